import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { DEFAULT_KEY_TEMPLATES } from '../../../src/config/variables.ts';
import { EnvelopeSplitter, joinedLength, smallPartLength } from '../../../src/resources/envelope-parts.ts';
import { PREFLIGHT_LENGTH, preflightEnvelope, envelopeLength } from '../../../src/security/envelope.ts';
import { encryptEnvelope, decryptBuffer, encryptBuffer } from '../../../src/security/envelope-cipher.ts';
import {
  deriveAesKey,
  deriveApiKey,
  deriveArchiveAesKey,
  deriveHardwareHash,
  deriveResourceKey,
} from '../../../src/security/key-derivation.ts';
import vectors from '../../vectors/vectors.json' with { type: 'json' };
import { sha256 } from '../../../lab/sha256.ts';

/** Bytes of the chunks that streams are fed with; Infinity is the whole in one. */
const CHUNK_LENGTHS = [1, 7, 4096, Infinity];

describe('the known answers for keys', () => {
  assert.ok(vectors.keys.length > 0);
  for (const known of vectors.keys) {
    it(`derives the keys of ${known.email} on "${known.hardware}"`, () => {
      const hardwareHash = deriveHardwareHash(DEFAULT_KEY_TEMPLATES.hardware, known.hardware);
      assert.equal(hardwareHash, known.hardware_hash);
      const apiKey = deriveApiKey(DEFAULT_KEY_TEMPLATES.api, {
        email: known.email,
        password: known.password,
        hardwareHash,
      });
      assert.equal(apiKey, known.api_key);
      assert.equal(deriveAesKey(apiKey).toString('hex'), known.api_aes_key);
    });
  }

  it('derives the resource key of the fleet', () => {
    const { secret, resource_key, resource_aes_key } = vectors.resource_key;
    assert.equal(deriveResourceKey(secret), resource_key);
    assert.equal(deriveAesKey(resource_key).toString('hex'), resource_aes_key);
  });
});

describe('the known answers for image archives', () => {
  assert.ok(vectors.archives.length > 0);
  for (const known of vectors.archives) {
    const aesKey = deriveArchiveAesKey(Buffer.from(known.key_fragment, 'hex'));
    const plaintext = makePlaintext(known.plaintext_rule, known.plaintext_length);
    const iv = Buffer.from(known.iv, 'hex');

    it('derives the AES key from the raw bytes of the fragment', () =>
      assert.equal(aesKey.toString('hex'), known.aes_key));

    for (const chunkLength of CHUNK_LENGTHS) {
      it(`encrypts and decrypts the archive in chunks of ${chunkLength}`, async () => {
        const archive = await collect(encryptEnvelope(cut(plaintext, chunkLength), aesKey, iv));
        assert.equal(archive.length, known.archive_length);
        assert.equal(sha256(archive), known.archive_sha256);
        assert.deepEqual(decryptBuffer(archive, aesKey), plaintext);
      });
    }
  }
});

describe('the known answers for envelopes', () => {
  assert.ok(vectors.envelopes.length > 0);
  for (const known of vectors.envelopes) {
    const aesKey = deriveAesKey(known.key);
    const iv = Buffer.from(known.iv, 'hex');
    const plaintext = makePlaintext(known.plaintext_rule, known.plaintext_length);
    const title = `of ${known.plaintext_length} bytes`;

    for (const chunkLength of CHUNK_LENGTHS) {
      it(`encrypts the envelope ${title} in chunks of ${chunkLength}`, async () =>
        assertEnvelope(await collect(encryptEnvelope(cut(plaintext, chunkLength), aesKey, iv)), known));
    }

    it(`seals and opens the envelope ${title} in one piece`, () => {
      assertEnvelope(encryptBuffer(plaintext, aesKey, iv), known);
      assert.deepEqual(decryptBuffer(knownEnvelope(known, plaintext, aesKey), aesKey), plaintext);
    });

    it(`tells the plaintext's length of the envelope ${title} from its last two blocks`, () => {
      const envelope = knownEnvelope(known, plaintext, aesKey);
      const length = preflightEnvelope(envelope.length, envelope.subarray(-PREFLIGHT_LENGTH), aesKey);
      assert.equal(length, known.plaintext_length);
    });

    it(`foresees the length of the envelope ${title}`, () =>
      assert.equal(envelopeLength(known.plaintext_length), known.envelope_length));
  }
});

describe('the known answers for splits', () => {
  assert.ok(vectors.splits.length > 0);
  const aesKey = deriveAesKey(vectors.resource_key.resource_key);
  for (const known of vectors.splits) {
    const title = `the envelope of ${known.plaintext_length} bytes`;
    const plaintext = makePlaintext('byte i = (31*i+7) mod 256', known.plaintext_length);

    it(`computes where ${title} is cut, and what its parts make together`, () => {
      assert.equal(envelopeLength(known.plaintext_length), known.envelope_length);
      assert.equal(smallPartLength(known.envelope_length), known.small_length);
      assert.equal(joinedLength(known.small_length, known.big_length), known.envelope_length);
    });

    for (const chunkLength of CHUNK_LENGTHS) {
      it(`cuts ${title} while it comes in chunks of ${chunkLength}`, () => {
        const envelope = encryptBuffer(plaintext, aesKey);
        const splitter = new EnvelopeSplitter();
        const big = Buffer.concat([...cut(envelope, chunkLength).map((chunk) => splitter.push(chunk)), splitter.end()]);
        assert.equal(splitter.small.length, known.small_length);
        assert.equal(big.length, known.big_length);
        assert.ok(Buffer.concat([splitter.small, big]).equals(envelope));
      });
    }

    it(`tells the plaintext's length of ${title}`, () => {
      const envelope = encryptBuffer(plaintext, aesKey);
      const length = preflightEnvelope(envelope.length, envelope.subarray(-PREFLIGHT_LENGTH), aesKey);
      assert.equal(length, known.plaintext_length);
    });
  }
});

type KnownEnvelope = (typeof vectors.envelopes)[number];

function assertEnvelope(envelope: Buffer, known: KnownEnvelope): void {
  assert.equal(envelope.length, known.envelope_length);
  assert.equal(sha256(envelope), known.envelope_sha256);
  if (known.envelope !== undefined) assert.equal(envelope.toString('hex'), known.envelope);
}

/** The envelope of the vector; made here, and proven by its digest, where the vector has the digest only. */
function knownEnvelope(known: KnownEnvelope, plaintext: Buffer, aesKey: Buffer): Buffer {
  if (known.envelope !== undefined) return Buffer.from(known.envelope, 'hex');
  const envelope = encryptBuffer(plaintext, aesKey, Buffer.from(known.iv, 'hex'));
  assert.equal(sha256(envelope), known.envelope_sha256);
  return envelope;
}

function makePlaintext(rule: string, length: number): Buffer {
  const rules: Readonly<Record<string, (index: number) => number>> = {
    'byte i = (31*i+7) mod 256': (index) => (31 * index + 7) % 256,
    'byte i = i mod 251': (index) => index % 251,
  };
  const byteAt = rules[rule];
  assert.ok(byteAt, `the vectors have a new rule: ${rule}`);
  return Buffer.from(Uint8Array.from({ length }, (_, index) => byteAt(index)));
}

function cut(bytes: Buffer, chunkLength: number): Buffer[] {
  if (chunkLength === Infinity) return [bytes];
  return Array.from({ length: Math.ceil(bytes.length / chunkLength) }, (_, index) =>
    bytes.subarray(index * chunkLength, (index + 1) * chunkLength),
  );
}

async function collect(chunks: AsyncIterable<Buffer>): Promise<Buffer> {
  return Buffer.concat(await Array.fromAsync(chunks));
}
