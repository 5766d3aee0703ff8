import { asRecord } from '../json.ts';
import { resourceKey, type ResourceName } from '../resource-name.ts';
import { parseObject } from './dsse-envelope.ts';
import { ManifestError } from './manifest-error.ts';

/** What a resource is made of, to the last byte (docs/protocol.md section 7). Lengths are in bytes, digests SHA-256 in hex. */
export interface Manifest extends ResourceName {
  /** Orders the versions of a resource. */
  readonly revision: number;
  /** ISO 8601, by the clock of the uploader. */
  readonly created: string;
  /** Of the plaintext. */
  readonly length: number;
  readonly sha256: string;
  /** The two parts as they are stored. */
  readonly small: { readonly length: number; readonly sha256: string };
  readonly big: {
    readonly length: number;
    /** Of each chunk of the big part but the last one, which may be shorter. */
    readonly chunkLength: number;
    readonly chunkSha256: readonly string[];
  };
}

export const STATEMENT_TYPE = 'https://in-toto.io/Statement/v1';
const PREDICATE_TYPE = 'https://azaion.com/loader/resource/v1';
const SHA256 = /^[0-9a-f]{64}$/;
const MIN_CHUNK_LENGTH = 64 * 1024;
const MAX_CHUNK_LENGTH = 4 * 1024 * 1024;
const MAX_REVISION = 2 ** 52;
/** Bytes of an envelope beside its plaintext: the IV, and a padding of 1 to 16. */
const MIN_OVERHEAD = 17;
const MAX_OVERHEAD = 32;

/** The payload of a manifest: an in-toto Statement v1. */
export function formatStatement({ folder, name, sha256, ...facts }: Manifest): Buffer {
  const { revision, created, length, small, big } = facts;
  return Buffer.from(
    JSON.stringify({
      _type: STATEMENT_TYPE,
      subject: [{ name: resourceKey({ folder, name }), digest: { sha256 } }],
      predicateType: PREDICATE_TYPE,
      predicate: {
        folder,
        name,
        revision,
        created,
        length,
        small: { length: small.length, sha256: small.sha256 },
        big: { length: big.length, chunkLength: big.chunkLength, chunkSha256: big.chunkSha256 },
      },
    }),
  );
}

/** Reads a payload whose signature is right. Fields that are not known are passed over. @throws ManifestError */
export function parseStatement(payload: Buffer): Manifest {
  const statement = parseObject(payload.toString('utf8'), 'has a payload that is not one object of JSON');
  if (statement['_type'] !== STATEMENT_TYPE) throw new ManifestError('is not an in-toto Statement v1');
  if (statement['predicateType'] !== PREDICATE_TYPE) throw new ManifestError('says nothing of a resource');
  const predicate = asRecord(statement['predicate']) ?? {};
  const small = asRecord(predicate['small']) ?? {};
  const manifest: Manifest = {
    folder: textOf(predicate, 'folder'),
    name: textOf(predicate, 'name'),
    revision: integerOf(predicate, 'revision', MAX_REVISION),
    created: textOf(predicate, 'created'),
    length: integerOf(predicate, 'length'),
    sha256: '',
    small: { length: integerOf(small, 'length'), sha256: sha256Of(small['sha256']) },
    big: parseBigPart(asRecord(predicate['big']) ?? {}),
  };
  assertLengthFits(manifest);
  return { ...manifest, sha256: subjectOf(statement['subject'], manifest) };
}

/** The big part in a predicate. @throws ManifestError */
export function parseBigPart(big: Readonly<Record<string, unknown>>): Manifest['big'] {
  const length = integerOf(big, 'length');
  const chunkLength = integerOf(big, 'chunkLength', MAX_CHUNK_LENGTH);
  if (chunkLength < MIN_CHUNK_LENGTH || !Number.isInteger(Math.log2(chunkLength))) {
    throw new ManifestError('has a chunkLength that is no power of two from 64 KiB to 4 MiB');
  }
  const { chunkSha256 } = big;
  if (!Array.isArray(chunkSha256) || chunkSha256.length !== Math.ceil(length / chunkLength)) {
    throw new ManifestError('has not one digest for each chunk of the big part');
  }
  return { length, chunkLength, chunkSha256: chunkSha256.map(sha256Of) };
}

/** The parts are one envelope of AES-256-CBC, whose length leaves the plaintext's sixteen choices. */
function assertLengthFits({ length, small, big }: Manifest): void {
  const stored = small.length + big.length;
  const overhead = stored - length;
  if (stored % 16 === 0 && overhead >= MIN_OVERHEAD && overhead <= MAX_OVERHEAD) return;
  throw new ManifestError('has lengths that are not those of one envelope');
}

function subjectOf(subjects: unknown, resource: ResourceName): string {
  if (!Array.isArray(subjects) || subjects.length !== 1) throw new ManifestError('has not one subject');
  const { name, digest } = asRecord(subjects[0]) ?? {};
  if (name !== resourceKey(resource)) throw new ManifestError('has a subject of another name than its folder and file');
  return sha256Of(asRecord(digest)?.['sha256']);
}

function textOf(fields: Readonly<Record<string, unknown>>, name: string): string {
  const value = fields[name];
  if (typeof value !== 'string' || value === '') throw new ManifestError(`has no text in the field ${name}`);
  return value;
}

function integerOf(fields: Readonly<Record<string, unknown>>, name: string, max = Number.MAX_SAFE_INTEGER): number {
  const value = fields[name];
  if (Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) <= max) return value as number;
  throw new ManifestError(`has no whole number in the field ${name}`);
}

/** A SHA-256 in hex, as manifests tell it. @throws ManifestError */
export function sha256Of(value: unknown): string {
  if (typeof value === 'string' && SHA256.test(value)) return value;
  throw new ManifestError('has a digest that is no SHA-256 in hex');
}
