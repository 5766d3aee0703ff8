import { createHash } from 'node:crypto';
import { asRecord } from '../json.ts';
import { formatEnvelope, parseEnvelope, parseObject, preAuthenticationEncoding } from '../manifest/dsse-envelope.ts';
import { parseBigPart, parseStatement, sha256Of, STATEMENT_TYPE, type Manifest } from '../manifest/manifest.ts';
import { ManifestError } from '../manifest/manifest-error.ts';
import type { MacKey } from '../manifest/manifest-keys.ts';
import { placeKey, copyStem, type CopyPlace } from './copy-paths.ts';

/** The digests of a big part's chunks. */
export interface ChunkDigests {
  /** Bytes of each chunk; the last one may be shorter. */
  readonly chunkLength: number;
  /** SHA-256, hex. */
  readonly chunkSha256: readonly string[];
}

/** What is known of a copy: the version to which it belongs, and its digests. It stands beside it as `<name>.big.dsse`. */
export interface CopyRecord {
  /** Bytes of the big part. */
  readonly bigLength: number;
  /** SHA-256, hex, of the small part of the same envelope; undefined for a file that another program put there. */
  readonly smallSha256: string | undefined;
  /** Undefined for a copy of an earlier version of the Loader, whose digests were not made yet. */
  readonly chunks?: ChunkDigests | undefined;
  /** The manifest that was accepted for this version, as it was signed; undefined where the resource has none. */
  readonly manifest?: Buffer | undefined;
  /** Of the object on the CDN that the copy was made from; undefined where the record does not tell it. */
  readonly etag?: string | undefined;
  /** Whether it is certain that both parts are of one version. The copies of older Loaders are not. */
  readonly isPair?: boolean | undefined;
  /** When the copy was made, in ms since 1970. */
  readonly madeAtMs?: number | undefined;
}

/** The record of a copy whose version has a manifest; `sealed` is that manifest as it was signed. */
export function recordOfManifest(
  { small, big }: Pick<Manifest, 'big' | 'small'>,
  sealed: Buffer | undefined,
): CopyRecord {
  const { length, ...chunks } = big;
  return { bigLength: length, smallSha256: small.sha256, chunks, manifest: sealed, isPair: true };
}

/** Of a record that this device makes: docs/protocol.md section 9. */
const PREDICATE_TYPE = 'https://azaion.com/loader/copy/v1';

/** The bytes of a record: the manifest where there is one, and otherwise a statement in its form that this device signs. */
export function formatRecord(record: CopyRecord, place: CopyPlace, name: string | undefined, key: MacKey): Buffer {
  return record.manifest ?? sealRecord(record, place, name, key);
}

function sealRecord(record: CopyRecord, place: CopyPlace, name: string | undefined, key: MacKey): Buffer {
  const { bigLength, smallSha256, chunks, etag, isPair, madeAtMs } = record;
  const { chunkLength, chunkSha256 } = chunks ?? {};
  const payload = Buffer.from(
    JSON.stringify({
      _type: STATEMENT_TYPE,
      subject: [{ name: `${placeKey(place)}.big`, digest: { chunksSha256: digestOf(chunkSha256 ?? []) } }],
      predicateType: PREDICATE_TYPE,
      predicate: {
        folder: place.folder,
        name,
        ...(smallSha256 !== undefined && { small: { sha256: smallSha256 } }),
        big: { length: bigLength, chunkLength, chunkSha256 },
        etag,
        isPair,
        madeAtMs,
      },
    }),
  );
  return formatEnvelope({ payload, signatures: [key.sign(preAuthenticationEncoding(payload))] });
}

/**
 * Reads the record of a copy. The signature of a manifest is not checked here: that is for who has the keys. One of this
 * device's own is; `foreign` is one that another device, or this one with another key, has signed.
 *
 * @throws ManifestError when it is damaged, or of another copy
 */
export function parseRecord(bytes: Buffer, place: CopyPlace, key: MacKey): CopyRecord | 'foreign' {
  const { payload, signatures } = parseEnvelope(bytes);
  const fields = parseObject(payload.toString('utf8'), 'has a payload that is not one object of JSON');
  if (fields['predicateType'] !== PREDICATE_TYPE) return openRecordOfManifest(bytes, payload, place);
  const encoding = preAuthenticationEncoding(payload);
  if (!signatures.some((signature) => key.verifies(encoding, signature))) {
    if (signatures.every(({ keyid }) => keyid !== key.keyid)) return 'foreign';
    throw new ManifestError('has another signature than its payload');
  }
  const subject = asRecord(Array.isArray(fields['subject']) ? fields['subject'][0] : undefined) ?? {};
  if (subject['name'] !== `${placeKey(place)}.big`) throw new ManifestError('is that of another copy');
  const { small, big, etag, isPair, madeAtMs } = asRecord(fields['predicate']) ?? {};
  return {
    ...parseDigests(asRecord(big) ?? {}),
    smallSha256: small === undefined ? undefined : sha256Of(asRecord(small)?.['sha256']),
    ...(typeof etag === 'string' && { etag }),
    ...(isPair === true && { isPair }),
    ...(typeof madeAtMs === 'number' && { madeAtMs }),
  };
}

function openRecordOfManifest(bytes: Buffer, payload: Buffer, place: CopyPlace): CopyRecord {
  const manifest = parseStatement(payload);
  if (manifest.folder !== place.folder || copyStem(manifest.name) !== place.stem) {
    throw new ManifestError('is that of another copy');
  }
  return recordOfManifest(manifest, bytes);
}

function parseDigests(big: Readonly<Record<string, unknown>>): Pick<CopyRecord, 'bigLength' | 'chunks'> {
  if (big['chunkLength'] === undefined) {
    const { length } = big;
    if (typeof length !== 'number') throw new ManifestError('has no length');
    return { bigLength: length };
  }
  const { length, ...chunks } = parseBigPart(big);
  return { bigLength: length, chunks };
}

/** The name of the resource in a record, which may be signed by anyone; undefined when there is none. */
export function parseRecordedName(bytes: Buffer): string | undefined {
  try {
    const statement = parseObject(parseEnvelope(bytes).payload.toString('utf8'), 'is none');
    const name = asRecord(statement['predicate'])?.['name'];
    return typeof name === 'string' ? name : undefined;
  } catch {
    return undefined;
  }
}

function digestOf(chunkSha256: readonly string[]): string {
  return createHash('sha256')
    .update(Buffer.from(chunkSha256.join(''), 'hex'))
    .digest('hex');
}
