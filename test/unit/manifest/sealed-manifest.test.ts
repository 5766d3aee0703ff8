import assert from 'node:assert/strict';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import { formatEnvelope, PAYLOAD_TYPE, preAuthenticationEncoding } from '../../../src/manifest/dsse-envelope.ts';
import { formatStatement, type Manifest } from '../../../src/manifest/manifest.ts';
import { ManifestError } from '../../../src/manifest/manifest-error.ts';
import { PublicKey, ResourceKeyMac, SigningKey } from '../../../src/manifest/manifest-keys.ts';
import { openManifest, sealManifest } from '../../../src/manifest/sealed-manifest.ts';

const MIB = 1024 * 1024;
const mac = new ResourceKeyMac(randomBytes(32));
const digest = () => randomBytes(32).toString('hex');
const RESOURCE = { folder: 'models/night', name: 'détector.onnx' };

const MANIFEST: Manifest = {
  ...RESOURCE,
  revision: 1_764_162_000_000,
  created: '2026-11-26T13:00:00.000Z',
  length: 9_000_000,
  sha256: digest(),
  small: { length: 3072, sha256: digest() },
  big: { length: 9_000_032 - 3072, chunkLength: 4 * MIB, chunkSha256: [digest(), digest(), digest()] },
};

/** A manifest whose statement is changed, and signed as it is then. */
function sealChanged(change: (statement: Record<string, unknown>, predicate: Record<string, unknown>) => void): Buffer {
  const statement = JSON.parse(formatStatement(MANIFEST).toString()) as Record<string, unknown>;
  change(statement, statement['predicate'] as Record<string, unknown>);
  return sealText(JSON.stringify(statement));
}

function sealText(text: string): Buffer {
  const payload = Buffer.from(text);
  return formatEnvelope({ payload, signatures: [mac.sign(preAuthenticationEncoding(payload))] });
}

function open(bytes: Buffer, resource = RESOURCE) {
  return openManifest(bytes, [mac], resource);
}

function refuses(bytes: Buffer, pattern: RegExp): void {
  assert.throws(
    () => open(bytes),
    (error) => error instanceof ManifestError && pattern.test(error.message),
    String(pattern),
  );
}

describe('a manifest', () => {
  it('comes back as it was sealed, by each key that signed it', () => {
    const pairs = [generateKeyPairSync('ed25519'), generateKeyPairSync('ec', { namedCurve: 'prime256v1' })];
    const signers = pairs.map(({ privateKey }) => new SigningKey(privateKey));
    const bytes = sealManifest(MANIFEST, [mac, ...signers]);
    for (const verifier of [mac, ...pairs.map(({ publicKey }) => new PublicKey(publicKey))]) {
      assert.deepEqual(openManifest(bytes, [verifier], RESOURCE).manifest, MANIFEST);
    }
    const stranger = new PublicKey(generateKeyPairSync('ed25519').publicKey);
    assert.throws(() => openManifest(bytes, [stranger]), /is signed by none of the known keys/);
    assert.throws(() => openManifest(bytes, []), /is signed by none/);
  });

  it('is refused with any bit flipped that matters, and never read as another one', () => {
    const bytes = sealManifest(MANIFEST, [mac]);
    let same = 0;
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const flipped = Buffer.from(bytes);
      flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      try {
        // A flip in a name that is not signed, or in the unused bits of base64, changes nothing that is said.
        assert.deepEqual(open(flipped).manifest, MANIFEST);
        same++;
      } catch (error) {
        assert.ok(error instanceof ManifestError, String(error));
      }
    }
    assert.ok(same < 200, `${same} flips were passed over`);
  });

  it('is refused at every length but its own', () => {
    const bytes = sealManifest(MANIFEST, [mac]);
    for (let length = 0; length < bytes.length; length++)
      refuses(bytes.subarray(0, length), /is not one object of JSON/);
  });

  it('is taken with fields that are not known, and base64 of both alphabets', () => {
    const bytes = sealChanged((statement, predicate) => {
      statement['later'] = { a: 1 };
      predicate['later'] = [1];
    });
    assert.deepEqual(open(bytes).manifest, MANIFEST);
    const envelope = JSON.parse(bytes.toString()) as { payload: string; signatures: { sig: string }[] };
    const url = (text: string) => text.replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
    const [first] = envelope.signatures;
    const others = {
      ...envelope,
      payload: url(envelope.payload),
      signatures: [{ keyid: 'x', sig: url(first?.sig ?? '') }],
    };
    assert.deepEqual(open(Buffer.from(JSON.stringify(others))).manifest, MANIFEST);
  });

  it('is refused where its envelope is none', () => {
    const good = JSON.parse(sealManifest(MANIFEST, [mac]).toString()) as Record<string, unknown>;
    const seal = (change: object) => Buffer.from(JSON.stringify({ ...good, ...change }));
    refuses(Buffer.alloc(0), /is not one object of JSON/);
    refuses(Buffer.from('<html>a page</html>'), /is not one object of JSON/);
    refuses(Buffer.from('[]'), /is not one object of JSON/);
    refuses(Buffer.alloc(100 * MIB, 0x20), /has more than 4 MiB/);
    refuses(seal({ payloadType: 'text/plain' }), /another type of payload/);
    refuses(seal({ payload: 'not base64!' }), /not base64/);
    refuses(seal({ payload: 7 }), /not base64/);
    refuses(seal({ signatures: [] }), /one to 8 signatures/);
    refuses(seal({ signatures: Array.from({ length: 9 }, () => ({ keyid: '', sig: '' })) }), /one to 8 signatures/);
    refuses(seal({ signatures: [{ keyid: 7, sig: '' }] }), /a keyid that is none/);
    refuses(seal({ signatures: [{ keyid: 'x'.repeat(257), sig: '' }] }), /a keyid that is none/);
    refuses(seal({ signatures: [{ keyid: '', sig: 'AAAA' }] }), /signed by none/);
    const twice = `{"payloadType":"text/plain",${sealManifest(MANIFEST, [mac]).toString().slice(1)}`;
    refuses(Buffer.from(twice), /two fields of one name/);
    assert.equal(good['payloadType'], PAYLOAD_TYPE);
  });

  it('is refused where what was signed is none', () => {
    refuses(sealText('no JSON'), /payload that is not one object/);
    const text = formatStatement(MANIFEST).toString();
    refuses(sealText(text.replace('"length":', '"length":1,"l\\u0065ngth":')), /two fields of one name/);
    for (const [pattern, change] of [
      [/not an in-toto Statement v1/, (statement) => (statement['_type'] = 'https://in-toto.io/Statement/v0.1')],
      [/says nothing of a resource/, (statement) => (statement['predicateType'] = 'https://slsa.dev/provenance/v1')],
      [/has not one subject/, (statement) => (statement['subject'] = [])],
      [
        /has not one subject/,
        (statement) => (statement['subject'] = [statement['subject'], statement['subject']].flat()),
      ],
      [/subject of another name/, (_statement, predicate) => (predicate['name'] = 'other')],
      [/no text in the field folder/, (_statement, predicate) => (predicate['folder'] = '')],
      [/no whole number in the field revision/, (_statement, predicate) => (predicate['revision'] = 2 ** 52 + 2)],
      [/no whole number in the field revision/, (_statement, predicate) => (predicate['revision'] = -1)],
      [/no whole number in the field length/, (_statement, predicate) => (predicate['length'] = 1.5)],
      [/lengths that are not those of one envelope/, (_statement, predicate) => (predicate['length'] = 9_000_016)],
      [/lengths that are not those of one envelope/, (_statement, predicate) => (predicate['length'] = 8_999_999)],
      [/no whole number in the field length/, (_statement, predicate) => (predicate['small'] = null)],
      [/no SHA-256 in hex/, (_statement, predicate) => (predicate['small'] = { length: 3072, sha256: 'A'.repeat(64) })],
      ...[4 * MIB - 1, 32 * 1024, 3 * MIB].map(
        (chunkLength) =>
          [
            /chunkLength that is no power of two/,
            (_statement: object, predicate: Record<string, unknown>) =>
              (predicate['big'] = { ...MANIFEST.big, chunkLength }),
          ] as const,
      ),
      [
        /not one digest for each chunk/,
        (_s, predicate) => (predicate['big'] = { ...MANIFEST.big, chunkSha256: [digest()] }),
      ],
      [/no SHA-256 in hex/, (_s, predicate) => (predicate['big'] = { ...MANIFEST.big, chunkSha256: ['', '', ''] })],
    ] as [RegExp, (statement: Record<string, unknown>, predicate: Record<string, unknown>) => unknown][]) {
      refuses(sealChanged(change), pattern);
    }
  });

  it('is refused for another resource', () => {
    const bytes = sealManifest(MANIFEST, [mac]);
    for (const other of [
      { ...RESOURCE, name: 'other.onnx' },
      { ...RESOURCE, folder: 'models' },
    ]) {
      assert.throws(() => open(bytes, other), /is that of another resource/);
    }
  });

  it('is signed by no other key than Ed25519 and ECDSA P-256', () => {
    for (const { privateKey, publicKey } of [
      generateKeyPairSync('rsa', { modulusLength: 2048 }),
      generateKeyPairSync('ec', { namedCurve: 'secp384r1' }),
      generateKeyPairSync('ed448'),
    ]) {
      assert.throws(() => new SigningKey(privateKey), /must be Ed25519 or ECDSA P-256/);
      assert.throws(() => new PublicKey(publicKey), /must be Ed25519 or ECDSA P-256/);
    }
  });
});
