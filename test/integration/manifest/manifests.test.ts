import assert from 'node:assert/strict';
import { createPrivateKey, generateKeyPairSync, randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { bodyOf } from '../../../lab/json-answer.ts';
import { shippedCommand, shippedFolder } from '../../../lab/shipped-folder.ts';
import { digestBody, sha256 } from '../../../lab/sha256.ts';
import { S3_SKIP } from '../../../lab/test-environment.ts';
import type { Manifest } from '../../../src/manifest/manifest.ts';
import { ResourceKeyMac, SigningKey } from '../../../src/manifest/manifest-keys.ts';
import { Device } from '../../support/device.ts';
import { ManifestForge } from '../../support/manifest-forge.ts';

const COMMAND = shippedCommand(await shippedFolder());
const CHUNK = 2 * 1024 * 1024;
const CONTENT = randomBytes(3 * CHUNK + 4000);
/** Of the big part, behind 3,072 bytes of the small one. */
const BIG_LENGTH = 16 * (Math.floor(CONTENT.length / 16) + 1) + 16 - 3072;
const OTHER_DIGEST = 'e'.repeat(64);

const pem = (type: 'ed25519' | 'ec') => {
  const pair = type === 'ec' ? generateKeyPairSync('ec', { namedCurve: 'P-256' }) : generateKeyPairSync('ed25519');
  return {
    publicKey: pair.publicKey.export({ type: 'spki', format: 'pem' }),
    privateKey: pair.privateKey.export({ type: 'pkcs8', format: 'pem' }),
  };
};
const UPLOADER = pem('ed25519');
const ANOTHER = pem('ec');

/** What a load gives: the content's digest, or the code of the failure, or `broken` for a body that was cut. */
async function load(device: Device, name: string): Promise<string> {
  const response = await device.loader.load(name);
  if (response.status !== 200) return ((await response.json()) as { code: string }).code;
  try {
    const { sha256: digest } = await digestBody(response);
    return digest;
  } catch {
    return 'broken';
  }
}

describe('manifests', { skip: S3_SKIP, concurrency: 8 }, () => {
  let uploader: Device;
  let device: Device;
  let forge: ManifestForge;
  const RIGHT = sha256(CONTENT);

  before(async () => {
    uploader = await Device.start();
    device = await Device.start({ sharing: uploader });
    forge = new ManifestForge(uploader);
    await Promise.all([uploader.login(), device.login()]);
  });
  after(async () => {
    await device.stop();
    await uploader.stop();
  });

  it('are made in the pass of an upload, and say what it is made of to the last byte', async () => {
    await uploader.upload('made', CONTENT);
    const { bytes: big, metadata } = await uploader.readObject('models/made.big');
    const small = await uploader.origin.api.read('models', 'made.small');
    const manifest = await forge.read('made');
    assert.equal(metadata['manifest'], '1');
    assert.equal(metadata['small-sha256'], sha256(small));
    assert.equal((await uploader.readObject(forge.keyOf('made'))).cacheControl, 'no-cache');
    const digestsOfBig = [0, 1, 2, 3].map((index) => sha256(big.subarray(index * CHUNK, (index + 1) * CHUNK)));
    assert.ok(Math.abs(Date.parse(manifest.created) - Date.now()) < 60_000);
    assert.deepEqual(manifest, {
      folder: 'models',
      name: 'made',
      revision: Date.parse(manifest.created),
      created: manifest.created,
      length: CONTENT.length,
      sha256: RIGHT,
      small: { length: 3072, sha256: sha256(small) },
      big: { length: BIG_LENGTH, chunkLength: CHUNK, chunkSha256: digestsOfBig },
    } satisfies Manifest);
    assert.equal(await load(device, 'made'), RIGHT);
    assert.equal(await load(uploader, 'made'), RIGHT);
  });

  it('of a later upload have a higher revision, whatever the clock says', async () => {
    await uploader.upload('later', CONTENT);
    const revision = Date.now() + 3_600_000;
    await forge.change('later', () => ({ revision }));
    assert.equal(await load(device, 'later'), RIGHT);
    const content = randomBytes(1000);
    await uploader.upload('later', content);
    assert.equal((await forge.read('later')).revision, revision + 1);
    assert.equal(await load(device, 'later'), sha256(content));
  });

  describe('that are not right', { concurrency: 8 }, () => {
    for (const [what, expected, change] of [
      ['is empty', 'manifest_invalid', (name) => forge.write(name, Buffer.alloc(0))],
      ['has 5 MB', 'manifest_invalid', (name) => forge.write(name, Buffer.alloc(5_000_000, ' '))],
      ['is no JSON', 'manifest_invalid', (name) => forge.write(name, Buffer.from('no JSON'))],
      [
        'has another type of payload',
        'manifest_invalid',
        async (name) => {
          const text = (await forge.bytes(name)).toString().replace('in-toto', 'in-tutu');
          await forge.write(name, Buffer.from(text));
        },
      ],
      [
        'has two fields of one name',
        'manifest_invalid',
        async (name) => {
          const text = (await forge.bytes(name)).toString().replace('{', '{"payloadType":"x",');
          await forge.write(name, Buffer.from(text));
        },
      ],
      [
        'is signed under another resource key',
        'manifest_invalid',
        (name) => forge.change(name, () => ({}), [new ResourceKeyMac(randomBytes(32))]),
      ],
      ['is that of another name', 'manifest_invalid', (name) => forge.change(name, () => ({ name: 'other' }))],
      ['is that of another folder', 'manifest_invalid', (name) => forge.change(name, () => ({ folder: 'other' }))],
      [
        'has a digest too few',
        'manifest_invalid',
        (name) => forge.change(name, ({ big }) => ({ big: { ...big, chunkSha256: big.chunkSha256.slice(1) } })),
      ],
      [
        'has chunks of another length',
        'manifest_invalid',
        (name) => forge.change(name, ({ big }) => ({ big: { ...big, chunkLength: CHUNK + 1 } })),
      ],
      [
        'tells another length than the end of the envelope',
        'manifest_invalid',
        (name) => forge.change(name, ({ length }) => ({ length: length + 1 })),
      ],
      [
        'is of another small part, while the object says that it is of the one that it names',
        'upload_unfinished',
        (name) => forge.change(name, ({ small }) => ({ small: { ...small, sha256: OTHER_DIGEST } })),
        'settles',
      ],
      ['is gone', 'manifest_missing', (name) => uploader.removeObject(forge.keyOf(name))],
      [
        'has another digest of the first chunk',
        'resource_damaged',
        (name) =>
          forge.change(name, ({ big }) => ({
            big: { ...big, chunkSha256: [OTHER_DIGEST, ...big.chunkSha256.slice(1)] },
          })),
      ],
    ] as const satisfies [string, string, (name: string) => Promise<void>, 'settles'?][]) {
      const settles = expected === 'upload_unfinished';
      it(`end the load when one ${what}${settles ? ', but for an upload that died: then it counts as none' : ''}`, async () => {
        const name = what.replaceAll(/\W/g, '-');
        await uploader.upload(name, CONTENT);
        await change(name);
        assert.equal(await load(device, name), settles ? RIGHT : expected);
      });
    }

    it('let nothing of a damaged chunk leave, and the chunks before it are right', async () => {
      await uploader.upload('damaged', CONTENT);
      const { bytes, metadata } = await uploader.readObject('models/damaged.big');
      bytes[CHUNK + 7] = (bytes[CHUNK + 7] ?? 0) ^ 1;
      await uploader.writeObject('models/damaged.big', { bytes, metadata });
      const response = await device.loader.load('damaged');
      assert.equal(response.status, 200);
      let length = 0;
      await assert.rejects(async () => {
        for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
          const expected = CONTENT.subarray(length, length + chunk.length);
          assert.ok(expected.equals(chunk), 'a wrong byte has left');
          length += chunk.length;
        }
      }, /terminated|aborted|closed/);
      assert.ok(length <= CHUNK + 3072);
      assert.equal(await load(device, 'damaged'), 'broken');
    });

    it('end the load of an earlier version that somebody puts back, whole', async () => {
      await uploader.upload('replayed', CONTENT);
      const small = await uploader.origin.api.read('models', 'replayed.small');
      const big = await uploader.readObject('models/replayed.big');
      const manifest = await forge.bytes('replayed');
      const content = randomBytes(5000);
      await uploader.upload('replayed', content);
      assert.equal(await load(device, 'replayed'), sha256(content));
      await uploader.origin.api.store('models', 'replayed.small', small);
      await uploader.writeObject('models/replayed.big', big);
      await forge.write('replayed', manifest);
      assert.equal(await load(device, 'replayed'), 'manifest_outdated');
      const forget = async (name: string) => {
        const env = { ...process.env, STATE_DIR: device.stateFolder };
        return (await promisify(execFile)(process.execPath, [COMMAND, 'forget', name], { env })).stdout;
      };
      assert.match(await forget('models/never-seen'), /^Nothing is remembered of models\/never-seen/);
      assert.equal(await load(device, 'replayed'), 'manifest_outdated');
      assert.match(await forget('models/replayed'), /^models\/replayed is forgotten/);
      assert.equal(await load(device, 'replayed'), RIGHT);
    });

    it('that an older Loader has left behind count as none', async () => {
      await uploader.upload('older', CONTENT);
      const content = randomBytes(5000);
      await uploader.upload('newer', content);
      // An older Loader replaces the parts, and writes neither metadata nor manifest.
      await uploader.origin.api.store('models', 'older.small', await uploader.origin.api.read('models', 'newer.small'));
      await uploader.writeObject('models/older.big', { bytes: (await uploader.readObject('models/newer.big')).bytes });
      assert.equal(await load(device, 'older'), sha256(content));
    });
  });

  it('tell which byte of a copy has changed: its chunk is fetched alone, and the load does not notice', async () => {
    await uploader.upload('mended', CONTENT);
    assert.equal(await load(device, 'mended'), RIGHT);
    await device.settled();
    const file = device.bigPath('mended');
    const stored = await readFile(file);
    const damaged = Buffer.from(stored);
    damaged[2 * CHUNK] = (damaged[2 * CHUNK] ?? 0) ^ 0x80;
    await writeFile(file, damaged);
    assert.equal(await load(device, 'mended'), RIGHT);
    assert.ok((await readFile(file)).equals(stored));
  });

  it('need not be asked for when the copy has one: a warm load asks the API only', async () => {
    await uploader.upload('warm', CONTENT);
    assert.equal(await load(device, 'warm'), RIGHT);
    await device.settled();
    await uploader.removeObject(forge.keyOf('warm'));
    await uploader.removeObject('models/warm.big');
    assert.equal(await load(device, 'warm'), RIGHT);
  });
});

describe('a device with MANIFEST_PUBLIC_KEYS', { skip: S3_SKIP }, () => {
  let uploader: Device;
  let device: Device;
  let forge: ManifestForge;

  before(async () => {
    uploader = await Device.start({ env: { MANIFEST_SIGNING_KEY: UPLOADER.privateKey } });
    device = await Device.start({ sharing: uploader });
    const keys = path.join(device.folder, 'keys.pem');
    await writeFile(keys, `${ANOTHER.publicKey}\n${UPLOADER.publicKey}`);
    await device.loader.stop();
    await device.startLoader({ MANIFEST_PUBLIC_KEYS_FILE: keys });
    forge = new ManifestForge(uploader);
    await Promise.all([uploader.login(), device.login()]);
  });
  after(async () => {
    await device.stop();
    await uploader.stop();
  });

  it('loads what one of the keys has signed, cold and from its copy', async () => {
    await uploader.upload('signed', CONTENT);
    assert.equal(await load(device, 'signed'), sha256(CONTENT));
    assert.equal(await load(device, 'signed'), sha256(CONTENT));
  });

  it('refuses what is authenticated by the resource key alone, though a copy is there', async () => {
    await uploader.upload('unsigned', CONTENT);
    await forge.change('unsigned', () => ({}));
    assert.equal(await load(device, 'unsigned'), 'manifest_invalid');
    const other = createPrivateKey(pem('ec').privateKey);
    await forge.change('unsigned', () => ({}), [new SigningKey(other)]);
    assert.equal(await load(device, 'unsigned'), 'manifest_invalid');
    await forge.change('unsigned', () => ({}), [new SigningKey(createPrivateKey(ANOTHER.privateKey))]);
    assert.equal(await load(device, 'unsigned'), sha256(CONTENT));
  });

  it('refuses what has no manifest, and takes its copy for it when it gets one, without fetching that again', async () => {
    await uploader.upload('plain', CONTENT);
    const manifest = await forge.bytes('plain');
    const { bytes } = await uploader.readObject('models/plain.big');
    await uploader.removeObject(forge.keyOf('plain'));
    await uploader.writeObject('models/plain.big', { bytes });
    assert.equal(await load(device, 'plain'), 'manifest_required');
    // A copy of an earlier version of the Loader.
    await writeFile(device.bigPath('plain'), bytes);
    assert.equal(await load(device, 'plain'), 'manifest_required');
    await forge.write('plain', manifest);
    const before = device.s3Proxy.requests.length;
    assert.equal(await load(device, 'plain'), sha256(CONTENT));
    const asked = device.s3Proxy.requests.slice(before).map(({ url }) => url.replace(/.*\//, '').replace(/\?.*/, ''));
    assert.deepEqual(asked.toSorted(), ['plain.big', 'plain.manifest']);
  });
});

describe('a device with MANIFEST_REQUIRED', { skip: S3_SKIP }, () => {
  it('refuses what has no manifest, and loads what has one', async () => {
    const device = await Device.start({ env: { MANIFEST_REQUIRED: 'true' } });
    try {
      await device.login();
      await device.upload('m', CONTENT);
      assert.equal(await load(device, 'm'), sha256(CONTENT));
      await device.clearCache();
      const { bytes } = await device.readObject('models/m.big');
      await device.removeObject('models/m.manifest');
      assert.equal(await load(device, 'm'), 'manifest_missing');
      await device.writeObject('models/m.big', { bytes });
      assert.equal(await load(device, 'm'), 'manifest_required');
    } finally {
      await device.stop();
    }
  });
});

describe('an upload whose manifest can not be stored', { skip: S3_SKIP }, () => {
  it('fails, and is completed by itself when the CDN takes it again', async () => {
    const device = await Device.start();
    try {
      await device.login();
      device.s3Proxy.fault = ({ method, url }) =>
        method === 'PUT' && url.includes('.manifest') ? { kind: 'refuse' } : { kind: 'pass' };
      const { status, body } = await device.loader.upload('m', CONTENT);
      assert.deepEqual([status, body.code], [500, 'cdn_unreachable']);
      await device.loader.stop('SIGKILL');
      device.heal();
      await device.startLoader();
      await device.login();
      await device.clearCache();
      assert.equal(await load(device, 'm'), sha256(CONTENT));
      assert.ok(await device.readObject('models/m.manifest'));
      bodyOf(await device.loader.upload('m', CONTENT));
    } finally {
      await device.stop();
    }
  });
});
