import { createHash, createPublicKey } from 'node:crypto';
import { MAX_ENVELOPE_LENGTH } from '../manifest/dsse-envelope.ts';
import type { Manifest } from '../manifest/manifest.ts';
import { ManifestError } from '../manifest/manifest-error.ts';
import { PublicKey, ResourceKeyMac, type ManifestVerifier } from '../manifest/manifest-keys.ts';
import { openManifest } from '../manifest/sealed-manifest.ts';
import { resourceKey } from '../resource-name.ts';
import { deriveAesKey, deriveResourceKey } from '../security/key-derivation.ts';
import { CliError } from './cli-error.ts';
import { inputChunks, readInput } from './input-chunks.ts';
import { readSecretInput } from './secret-input.ts';
import type { VerifyArguments } from './verify-arguments.ts';

const MAX_KEY_LENGTH = 64 * 1024;

/**
 * Compares a file with its manifest. Returns a sentence that says what it is.
 *
 * @throws CliError that says what does not fit; the reason of `signal`
 */
export async function verifyFile(args: VerifyArguments, signal: AbortSignal): Promise<string> {
  const verifiers = await readKeys(args, signal);
  const manifest = openFrom(await readManifest(args.manifestPath, signal), args.manifestPath, verifiers);
  const what = resourceKey(manifest);
  const { length, sha256 } = await digestFile(args.filePath, signal);
  if (length !== manifest.length) {
    throw new CliError(
      `${args.filePath} is not ${what}: it has ${length} bytes, not ${manifest.length}. Load it again.`,
    );
  }
  if (sha256 !== manifest.sha256) {
    throw new CliError(`${args.filePath} is not ${what}: a byte of it is another one. Load it again.`);
  }
  return `${args.filePath} is ${what} of ${manifest.created}, revision ${manifest.revision}: ${length} bytes, all of them right`;
}

async function readKeys(args: VerifyArguments, signal: AbortSignal): Promise<ManifestVerifier[]> {
  if (args.resourceKeyPath !== undefined) {
    const secret = await readSecretInput(args.resourceKeyPath, signal);
    return [new ResourceKeyMac(deriveAesKey(deriveResourceKey(secret)))];
  }
  return await Promise.all(args.publicKeyPaths.map((path) => readPublicKey(path, signal)));
}

async function readPublicKey(path: string, signal: AbortSignal): Promise<PublicKey> {
  const pem = await readInput('The public key', path, MAX_KEY_LENGTH, signal);
  try {
    return new PublicKey(createPublicKey(pem));
  } catch (error) {
    throw new CliError(`${path} is no public key in PEM of Ed25519 or ECDSA P-256.`, { cause: error });
  }
}

async function readManifest(path: string, signal: AbortSignal): Promise<Buffer> {
  return await readInput('The manifest', path, MAX_ENVELOPE_LENGTH, signal);
}

function openFrom(bytes: Buffer, path: string, verifiers: readonly ManifestVerifier[]): Manifest {
  try {
    return openManifest(bytes, verifiers).manifest;
  } catch (error) {
    if (!(error instanceof ManifestError)) throw error;
    throw new CliError(`The manifest ${path} ${error.message}.`, { cause: error });
  }
}

async function digestFile(path: string, signal: AbortSignal): Promise<{ length: number; sha256: string }> {
  const hash = createHash('sha256');
  let length = 0;
  for await (const chunk of await inputChunks('The file', path, signal)) {
    hash.update(chunk);
    length += chunk.length;
  }
  return { length, sha256: hash.digest('hex') };
}
