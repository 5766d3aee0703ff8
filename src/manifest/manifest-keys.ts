import {
  createHash,
  createHmac,
  createPublicKey,
  hkdfSync,
  sign,
  timingSafeEqual,
  verify,
  type KeyObject,
} from 'node:crypto';
import type { DsseSignature } from './dsse-envelope.ts';

/** Makes one signature of a manifest. */
export interface ManifestSigner {
  sign(encoding: Buffer): DsseSignature;
}

/** Tells whether a signature is right. The keyid is a hint that is not needed: the key decides. */
export interface ManifestVerifier {
  verifies(encoding: Buffer, signature: DsseSignature): boolean;
}

const RESOURCE_KEYID = 'resource-key';
const MAC_INFO = 'azaion-loader/manifest/v1';
const MAC_KEY_LENGTH = 32;
const ID_INFO = 'azaion-loader/key-id/v1';
/** Characters. */
const ID_LENGTH = 16;

/** Authenticates among all who have one secret key: HMAC-SHA256. */
export class MacKey implements ManifestSigner, ManifestVerifier {
  readonly keyid: string;
  readonly #key: Buffer;

  constructor(keyid: string, key: Buffer) {
    this.keyid = keyid;
    this.#key = key;
  }

  /** Tells one key from another, without telling anything else of it. */
  static idOf(key: Buffer): string {
    return createHmac('sha256', key).update(ID_INFO).digest('hex').slice(0, ID_LENGTH);
  }

  sign(encoding: Buffer): DsseSignature {
    return { keyid: this.keyid, sig: createHmac('sha256', this.#key).update(encoding).digest() };
  }

  verifies(encoding: Buffer, { sig }: DsseSignature): boolean {
    const expected = this.sign(encoding).sig;
    return sig.length === expected.length && timingSafeEqual(sig, expected);
  }
}

/** Authenticates manifests among all who have the resource key. */
export class ResourceKeyMac extends MacKey {
  constructor(resourceAesKey: Buffer) {
    super(RESOURCE_KEYID, Buffer.from(hkdfSync('sha256', resourceAesKey, '', MAC_INFO, MAC_KEY_LENGTH)));
  }
}

/** The uploader's own key. @throws Error for a key that `assertManifestKey` refuses */
export class SigningKey implements ManifestSigner {
  readonly #key: KeyObject;
  readonly #keyid: string;

  constructor(privateKey: KeyObject) {
    assertManifestKey(privateKey);
    this.#key = privateKey;
    this.#keyid = keyidOf(createPublicKey(privateKey));
  }

  sign(encoding: Buffer): DsseSignature {
    return { keyid: this.#keyid, sig: sign(digestOf(this.#key), encoding, this.#key) };
  }
}

/** A key whose owner's manifests are taken. @throws Error for a key that `assertManifestKey` refuses */
export class PublicKey implements ManifestVerifier {
  readonly keyid: string;
  readonly #key: KeyObject;

  constructor(publicKey: KeyObject) {
    assertManifestKey(publicKey);
    this.#key = publicKey;
    this.keyid = keyidOf(publicKey);
  }

  verifies(encoding: Buffer, { sig }: DsseSignature): boolean {
    return verify(digestOf(this.#key), encoding, this.#key, sig);
  }
}

/** @throws Error for a key that is neither Ed25519 nor ECDSA P-256 */
export function assertManifestKey(key: KeyObject): void {
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = key;
  if (type === 'ed25519' || (type === 'ec' && details?.namedCurve === 'prime256v1')) return;
  throw new Error('a key of manifests must be Ed25519 or ECDSA P-256');
}

/** Ed25519 hashes by itself. */
function digestOf({ asymmetricKeyType }: KeyObject): 'sha256' | null {
  return asymmetricKeyType === 'ed25519' ? null : 'sha256';
}

function keyidOf(publicKey: KeyObject): string {
  return createHash('sha256')
    .update(publicKey.export({ type: 'spki', format: 'der' }))
    .digest('hex');
}
