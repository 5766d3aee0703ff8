import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, describe, it } from 'node:test';
import { freePort } from '../../../lab/free-port.ts';
import { shippedCommand, shippedFolder } from '../../../lab/shipped-folder.ts';
import { tarArchive } from '../../../lab/images/tar-entry.ts';
import { noteSecrets, S3_SKIP } from '../../../lab/test-environment.ts';
import { encryptBuffer } from '../../../src/security/envelope-cipher.ts';
import { deriveArchiveAesKey } from '../../../src/security/key-derivation.ts';
import { Device } from '../../support/device.ts';

const COMMAND = shippedCommand(await shippedFolder());
const WRONG_PASSWORD = `wrong-${randomBytes(12).toString('hex')}`;
const SUBJECTS = ['configuration', 'folders', 'hardware', 'Resource API', 'clock', 'login', 'keys', 'CDN'];

interface Report {
  readonly exitCode: number | null;
  /** The words of the findings, by subject, in their order. */
  readonly words: Readonly<Record<string, string>>;
  readonly output: string;
  readonly errors: string;
  /** The lines of what failed. */
  readonly failures: readonly string[];
}

function subjectOf(line: string): string {
  return line.slice(9, 23).trim();
}

describe('loader doctor', { skip: S3_SKIP }, () => {
  let device: Device;
  let good: Readonly<Record<string, string>>;

  before(async () => {
    noteSecrets(WRONG_PASSWORD);
    device = await Device.start();
    await device.login();
    await device.upload('model', randomBytes(100_000));
    good = {
      PATH: String(process.env['PATH']),
      HARDWARE_ID: 'test-hardware',
      RESOURCE_API_URL: device.origin.api.url,
      MODEL_CACHE_DIR: device.cacheFolder,
      STATE_DIR: device.stateFolder,
      IMAGES_PATH: path.join(device.folder, 'images.enc'),
      DOCKER_HOST: `unix://${device.folder}/no-engine.sock`,
      LOGIN_EMAIL: device.email,
      LOGIN_PASSWORD: device.password,
      PORT: String(device.loader.port),
    };
  });
  after(() => device.stop());

  async function doctor(
    change: Readonly<Record<string, string>> = {},
    args: readonly string[] = [],
    input = '',
  ): Promise<Report> {
    const child = spawn(process.execPath, [COMMAND, 'doctor', ...args], { env: { ...good, ...change } });
    child.stdin.end(input);
    const [output, errors, [exitCode]] = await Promise.all([
      text(child.stdout),
      text(child.stderr),
      once(child, 'exit') as Promise<[number | null]>,
    ]);
    for (const secret of [device.password, WRONG_PASSWORD, device.origin.resourceKey, device.s3.accessSecret]) {
      assert.ok(!(output + errors).includes(secret), 'a secret was printed');
    }
    const lines = output.split('\n').filter((line) => line !== '');
    const words = Object.fromEntries(lines.map((line) => [subjectOf(line), line.slice(0, 8).trim()]));
    return { exitCode, words, output, errors, failures: lines.filter((line) => line.startsWith('FAILED')) };
  }

  async function assertFails(
    subject: string,
    pattern: RegExp,
    change: Readonly<Record<string, string>>,
  ): Promise<void> {
    const { exitCode, failures, output } = await doctor(change, ['--resource', 'models/model']);
    assert.equal(exitCode, 1, output);
    assert.deepEqual(failures.map(subjectOf), [subject], output);
    assert.match(failures.join('\n'), pattern);
  }

  it('finds nothing wrong with a device that works, and says what there is', async () => {
    const { exitCode, words, output } = await doctor({}, ['--resource', 'models/model']);
    assert.equal(exitCode, 0, output);
    const expected = Object.fromEntries([...SUBJECTS, 'resource key', 'Loader'].map((subject) => [subject, 'ok']));
    // It has neither archive nor engine, and nothing to unlock.
    assert.deepEqual(words, { ...expected, engine: 'warning', archive: 'warning' });
    assert.match(output, /models\/model opens, so it is right: 100000 bytes, from the CDN\./);
    assert.match(output, /The Loader at http:\/\/127\.0\.0\.1:\d+ is ready\./);
  });

  it('leaves no file behind, and changes none', async () => {
    const mine = async () => (await readdir(tmpdir())).filter((name) => name.startsWith('loader-doctor-'));
    const earlier = await mine();
    const state = await readdir(device.stateFolder);
    await doctor({}, ['--resource', 'models/model']);
    assert.deepEqual(await mine(), earlier);
    assert.deepEqual(await readdir(device.stateFolder), state);
  });

  it('works in a folder of the Loader where there is no other', async () => {
    const { exitCode, output } = await doctor({ TMPDIR: '/proc' });
    assert.equal(exitCode, 0, output);
    assert.ok(!(await readdir(device.stateFolder)).some((name) => name.startsWith('loader-doctor-')));
  });

  it('takes an account from its arguments, and looks at all else without one', async () => {
    const without = { LOGIN_EMAIL: '', LOGIN_PASSWORD: '' };
    const nobody = await doctor(without);
    assert.equal(nobody.exitCode, 0, nobody.output);
    assert.deepEqual([nobody.words['login'], nobody.words['Resource API']], ['skipped', 'ok']);
    const args = ['--email', device.email, '--password-file', '-'];
    const somebody = await doctor(without, args, `${device.password}\n`);
    assert.deepEqual([somebody.exitCode, somebody.words['keys']], [0, 'ok'], somebody.output);
    const wrong = await doctor(without, args, WRONG_PASSWORD);
    assert.deepEqual(
      [wrong.exitCode, wrong.words['login'], wrong.words['keys']],
      [1, 'FAILED', 'skipped'],
      wrong.output,
    );
  });

  it('names every variable that is wrong', async () => {
    const { exitCode, failures, output } = await doctor({ PORT: 'eighty', STALL_TIMEOUT_MS: '-1' });
    assert.equal(exitCode, 1);
    assert.equal(failures.length, 2, output);
    assert.match(output, /FAILED +configuration +PORT .*\nFAILED +configuration +STALL_TIMEOUT_MS /);
    const { output: warned } = await doctor({ RESOURCE_URL: 'http://example.com' });
    assert.match(warned, /warning +configuration +The variable RESOURCE_URL is not known.*RESOURCE_API_URL/);
  });

  it('finds a wrong URL', async () => {
    const port = await freePort();
    await assertFails('Resource API', /nothing listens there.*check RESOURCE_API_URL/, {
      RESOURCE_API_URL: `http://127.0.0.1:${port}`,
    });
    await assertFails('Resource API', /does not speak TLS.*check RESOURCE_API_URL/, {
      RESOURCE_API_URL: device.origin.api.url.replace('http:', 'https:'),
    });
    await assertFails('login', /status 404\. Check RESOURCE_API_URL/, {
      RESOURCE_API_URL: `${device.origin.api.url}/wrong/path`,
    });
  });

  it('finds a wrong password', async () => {
    await assertFails('login', /refused the email and password/, { LOGIN_PASSWORD: WRONG_PASSWORD });
  });

  it('finds a wrong template', async () => {
    await assertFails('keys', /KEY_TEMPLATE_HARDWARE and KEY_TEMPLATE_API/, {
      KEY_TEMPLATE_API: 'other/{email}/{password}/{hardware_hash}',
    });
  });

  it('finds a wrong resource key', async () => {
    const { resource_key: key, ...config } = device.goodCdnConfig;
    await device.origin.publishCdnConfig(config);
    try {
      await assertFails('resource key', /RESOURCE_KEY/, { RESOURCE_KEY: 'not-the-key-of-this-fleet' });
      await assertFails('resource key', /There is no resource key: set RESOURCE_KEY/, {});
    } finally {
      await device.origin.publishCdnConfig({ ...config, resource_key: key });
    }
  });

  it('finds a resource that is not there', async () => {
    const { failures, output } = await doctor({}, ['--resource', 'models/absent']);
    assert.match(failures.join('\n'), /^FAILED +resource key +.*models\/absent\.small/, output);
  });

  it('finds a wrong folder', async () => {
    const file = path.join(device.folder, 'a-file');
    await writeFile(file, '');
    await assertFails('folders', /MODEL_CACHE_DIR \(.*a-file\) can't be used.*it is no folder/, {
      MODEL_CACHE_DIR: file,
    });
  });

  it('makes no folder: that is for the user of the Loader', async () => {
    const { exitCode, output } = await doctor({ STATE_DIR: path.join(device.folder, 'not-yet') });
    assert.equal(exitCode, 0, output);
    assert.match(output, /warning +folders +There is no .*not-yet \(STATE_DIR\) yet/);
    assert.ok(!(await readdir(device.folder)).includes('not-yet'));
  });

  it('finds another program on the port', async () => {
    const server = createServer((_request, response) => response.end('hello'));
    await once(server.listen(0, '127.0.0.1'), 'listening');
    try {
      await assertFails('Loader', /is no Loader.*set PORT/, { PORT: String((server.address() as AddressInfo).port) });
    } finally {
      server.close();
    }
    const { words } = await doctor({ PORT: String(await freePort()) });
    assert.equal(words['Loader'], 'skipped');
  });

  it('finds a CDN that refuses its keys, or can not be reached', async () => {
    const config = device.goodCdnConfig;
    try {
      await device.origin.publishCdnConfig({ ...config, downloader_access_secret: 'wrong' });
      const { failures, output } = await doctor();
      assert.match(failures.join('\n'), /^FAILED +CDN +.*access secrets of cdn\.yaml/, output);
      await device.origin.publishCdnConfig({ ...config, host: `http://127.0.0.1:${await freePort()}` });
      const gone = await doctor();
      assert.match(gone.failures.join('\n'), /^FAILED +CDN +.*nothing listens there/, gone.output);
    } finally {
      await device.origin.publishCdnConfig(config);
    }
  });

  it('finds an archive that opens, and one that does not', async () => {
    const folder = path.join(device.folder, 'archives');
    await mkdir(folder, { recursive: true });
    const IMAGES_PATH = path.join(folder, 'images.enc');
    await writeFile(IMAGES_PATH, randomBytes(4096));
    const wrong = await doctor({ IMAGES_PATH });
    assert.equal(wrong.exitCode, 1);
    // With an archive, the engine is needed.
    assert.deepEqual([wrong.words['archive'], wrong.words['engine']], ['FAILED', 'FAILED'], wrong.output);
    assert.match(wrong.output, /no-engine\.sock/);
    const archive = tarArchive([{ name: 'manifest.json', content: '[]' }]);
    await writeFile(IMAGES_PATH, encryptBuffer(archive, deriveArchiveAesKey(device.origin.keyFragment)));
    const right = await doctor({ IMAGES_PATH });
    assert.equal(right.words['archive'], 'ok', right.output);
  });

  it('finds a DOCKER_HOST that is no socket', async () => {
    const socket = path.join(device.folder, 'archives', 'images.enc');
    const { output } = await doctor({ DOCKER_HOST: `unix://${socket}` });
    assert.match(output, /(warning|FAILED) +engine +.*images\.enc/);
  });

  it('ends at Ctrl-C while it waits for the password on stdin', async () => {
    const child = spawn(process.execPath, [COMMAND, 'doctor', '-e', 'a@example.com', '-p', '-'], { env: good });
    setTimeout(() => child.kill('SIGINT'), 1_000);
    const [exitCode] = (await once(child, 'exit')) as [number | null];
    assert.equal(exitCode, 130);
  });

  it('tells wrong usage from what is wrong with the device', async () => {
    for (const [args, pattern] of [
      [['--emial', 'x'], /Unknown option '--emial'/],
      [['--email', 'x'], /--email and --password-file go together/],
      [['--resource', 'model'], /--resource must be FOLDER\/FILE/],
      [['--resource', 'models/..'], /The file of --resource must be/],
      [['extra'], /There is no argument extra/],
    ] as const) {
      const { exitCode, errors, output } = await doctor({}, args);
      assert.equal(exitCode, 2, errors);
      assert.match(errors, pattern);
      assert.equal(output, '');
    }
    const { exitCode, output } = await doctor({}, ['--help']);
    assert.deepEqual([exitCode, output.startsWith('Usage:')], [0, true]);
  });
});
