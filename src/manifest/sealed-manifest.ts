import { createHash } from 'node:crypto';
import { resourceKey, type ResourceName } from '../resource-name.ts';
import { formatEnvelope, parseEnvelope, preAuthenticationEncoding } from './dsse-envelope.ts';
import { formatStatement, parseStatement, type Manifest } from './manifest.ts';
import { ManifestError } from './manifest-error.ts';
import type { ManifestSigner, ManifestVerifier } from './manifest-keys.ts';

export interface OpenedManifest {
  readonly manifest: Manifest;
  /** SHA-256 of the payload, in hex: tells two manifests of one revision apart. */
  readonly payloadSha256: string;
}

/** The bytes of a manifest, signed by each of `signers`. */
export function sealManifest(manifest: Manifest, signers: readonly ManifestSigner[]): Buffer {
  const payload = formatStatement(manifest);
  const encoding = preAuthenticationEncoding(payload);
  return formatEnvelope({ payload, signatures: signers.map((signer) => signer.sign(encoding)) });
}

/**
 * Opens the bytes of a manifest (docs/protocol.md section 7, rules 1 and 2): one signature must be right by one of
 * `verifiers`, which is seen before the payload is read. It must be that of `resource`, if one is given.
 *
 * @throws ManifestError, whose message goes on after the word manifest
 */
export function openManifest(
  bytes: Buffer,
  verifiers: readonly ManifestVerifier[],
  resource?: ResourceName,
): OpenedManifest {
  const { payload, signatures } = parseEnvelope(bytes);
  const encoding = preAuthenticationEncoding(payload);
  const isTrusted = signatures.some((signature) =>
    verifiers.some((verifier) => verifier.verifies(encoding, signature)),
  );
  if (!isTrusted) throw new ManifestError('is signed by none of the known keys');
  const manifest = parseStatement(payload);
  if (resource !== undefined && resourceKey(manifest) !== resourceKey(resource)) {
    throw new ManifestError('is that of another resource');
  }
  return { manifest, payloadSha256: createHash('sha256').update(payload).digest('hex') };
}

/** What a manifest tells, whoever has signed it. @throws ManifestError */
export function readManifest(bytes: Buffer): Manifest {
  return parseStatement(parseEnvelope(bytes).payload);
}
