import assert from 'node:assert/strict';
import { createHash, createPrivateKey, createPublicKey } from 'node:crypto';
import { describe, it } from 'node:test';
import { formatEnvelope, preAuthenticationEncoding } from '../../../src/manifest/dsse-envelope.ts';
import { formatStatement, parseStatement } from '../../../src/manifest/manifest.ts';
import { PublicKey, ResourceKeyMac, SigningKey, type ManifestVerifier } from '../../../src/manifest/manifest-keys.ts';
import { openManifest } from '../../../src/manifest/sealed-manifest.ts';
import { encryptBuffer } from '../../../src/security/envelope-cipher.ts';
import vectors from '../../vectors/vectors.json' with { type: 'json' };

/** The known answers of docs/protocol.md section 7. */

const { manifests, resource_key: resourceKey } = vectors;
const AES_KEY = Buffer.from(resourceKey.resource_aes_key, 'hex');
const SMALL_LENGTH = 3072;

const mac = new ResourceKeyMac(AES_KEY);
const ed25519 = new SigningKey(createPrivateKey(manifests.ed25519_private_key_pem));
const ed25519Public = new PublicKey(createPublicKey(manifests.ed25519_public_key_pem));
const ecdsaPublic = new PublicKey(createPublicKey(manifests.ecdsa_p256_public_key_pem));

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

describe('the known answers of manifests', () => {
  assert.ok(manifests.cases.length >= 3);
  for (const known of manifests.cases) {
    const payload = Buffer.from(known.payload, 'base64');
    const encoding = preAuthenticationEncoding(payload);
    const plaintext = Buffer.from(Array.from({ length: known.plaintext_length }, (_, i) => (31 * i + 7) % 256));

    it(`have the payload of ${known.plaintext_length} bytes, byte by byte`, () => {
      const manifest = parseStatement(payload);
      assert.deepEqual(formatStatement(manifest), payload);
      const envelope = encryptBuffer(plaintext, AES_KEY, Buffer.from(known.iv, 'hex'));
      const small = envelope.subarray(0, manifest.small.length);
      const big = envelope.subarray(manifest.small.length);
      assert.ok(manifest.small.length <= SMALL_LENGTH);
      assert.deepEqual([manifest.length, manifest.sha256], [plaintext.length, sha256(plaintext)]);
      assert.deepEqual(manifest.small, { length: small.length, sha256: sha256(small) });
      const { chunkLength } = manifest.big;
      const chunks = Array.from({ length: Math.ceil(big.length / chunkLength) }, (_, index) =>
        sha256(big.subarray(index * chunkLength, (index + 1) * chunkLength)),
      );
      assert.deepEqual(manifest.big, { length: big.length, chunkLength, chunkSha256: chunks });
    });

    it(`have what is signed of ${known.plaintext_length} bytes, and each signature`, () => {
      assert.equal(sha256(encoding), known.pae_sha256);
      for (const [signer, { keyid, sig }] of [
        [mac, known.hmac],
        [ed25519, known.ed25519],
      ] as const) {
        assert.deepEqual(signer.sign(encoding), { keyid, sig: Buffer.from(sig, 'base64') });
      }
      const verifiers: [ManifestVerifier, string][] = [
        [mac, known.hmac.sig],
        [ed25519Public, known.ed25519.sig],
        [ecdsaPublic, known.ecdsa_p256.sig_one_of_many],
      ];
      assert.equal(ed25519Public.keyid, known.ed25519.keyid);
      assert.equal(ecdsaPublic.keyid, known.ecdsa_p256.keyid);
      for (const [verifier, sig] of verifiers) {
        const signature = { keyid: '', sig: Buffer.from(sig, 'base64') };
        const bytes = formatEnvelope({ payload, signatures: [signature] });
        assert.equal(openManifest(bytes, [verifier]).payloadSha256, sha256(payload));
        for (const [other] of verifiers) {
          if (other !== verifier) assert.throws(() => openManifest(bytes, [other]), /signed by none/);
        }
      }
    });
  }
});
