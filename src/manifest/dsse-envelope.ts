import { asRecord, parseJson } from '../json.ts';
import { ManifestError } from './manifest-error.ts';
import { hasUniqueKeys } from './unique-keys.ts';

/** One signature of an envelope. */
export interface DsseSignature {
  /** A hint which key made it. */
  readonly keyid: string;
  readonly sig: Buffer;
}

/** A DSSE envelope (secure-systems-lab/dsse, protocol 1.0), whose payload nothing has been said about yet. */
export interface DsseEnvelope {
  readonly payload: Buffer;
  /** One to eight. */
  readonly signatures: readonly DsseSignature[];
}

/** Bytes of the longest manifest. */
export const MAX_ENVELOPE_LENGTH = 4 * 1024 * 1024;
export const PAYLOAD_TYPE = 'application/vnd.in-toto+json';

const MAX_SIGNATURES = 8;
/** Characters: no key has a longer one. */
const MAX_KEYID_LENGTH = 256;
/** Both alphabets of RFC 4648, with or without padding. */
const BASE64 = /^[A-Za-z0-9+/_-]*={0,2}$/;

/** What is signed: the pre-authentication encoding of a payload of PAYLOAD_TYPE. */
export function preAuthenticationEncoding(payload: Buffer): Buffer {
  const type = Buffer.from(PAYLOAD_TYPE);
  return Buffer.concat([Buffer.from(`DSSEv1 ${type.length} ${PAYLOAD_TYPE} ${payload.length} `), payload]);
}

export function formatEnvelope({ payload, signatures }: DsseEnvelope): Buffer {
  return Buffer.from(
    JSON.stringify({
      payloadType: PAYLOAD_TYPE,
      payload: payload.toString('base64'),
      signatures: signatures.map(({ keyid, sig }) => ({ keyid, sig: sig.toString('base64') })),
    }),
  );
}

/** Fields that are not known are passed over. @throws ManifestError */
export function parseEnvelope(bytes: Buffer): DsseEnvelope {
  if (bytes.length > MAX_ENVELOPE_LENGTH) throw new ManifestError('has more than 4 MiB');
  const fields = parseObject(bytes.toString('utf8'), 'is not one object of JSON');
  if (fields['payloadType'] !== PAYLOAD_TYPE) throw new ManifestError('holds another type of payload');
  const { signatures } = fields;
  if (!Array.isArray(signatures) || signatures.length < 1 || signatures.length > MAX_SIGNATURES) {
    throw new ManifestError(`has not one to ${MAX_SIGNATURES} signatures`);
  }
  return { payload: decode(fields['payload']), signatures: signatures.map(toSignature) };
}

/** @throws ManifestError, with `fault` where the text is not one object without duplicate names */
export function parseObject(text: string, fault: string): Readonly<Record<string, unknown>> {
  const fields = asRecord(parseJson(text));
  if (fields === undefined) throw new ManifestError(fault);
  if (!hasUniqueKeys(text)) throw new ManifestError('has two fields of one name');
  return fields;
}

function toSignature(value: unknown): DsseSignature {
  const { keyid = '', sig } = asRecord(value) ?? {};
  if (typeof keyid !== 'string' || keyid.length > MAX_KEYID_LENGTH) throw new ManifestError('has a keyid that is none');
  return { keyid, sig: decode(sig) };
}

function decode(value: unknown): Buffer {
  if (typeof value !== 'string' || !BASE64.test(value)) throw new ManifestError('has a field that is not base64');
  return Buffer.from(value, 'base64');
}
