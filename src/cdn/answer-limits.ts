import { LoaderError } from '../errors.ts';

export const ANSWER_LIMITS = {
  /** Characters of an ETag or of the ID of an upload, which the journal and the records keep. Those of S3 have less than 200. */
  tokenLength: 256,
  /** Bytes of a big part: far above the 78 GiB that an upload can have. The memory of a load grows with this length. */
  objectLength: 1024 ** 4,
} as const;

/** A short text of an answer. `name` is what it is. @throws LoaderError `cdn_invalid_response` */
export function assertToken(text: string | undefined, name: string): string {
  if (text !== undefined && text !== '' && text.length <= ANSWER_LIMITS.tokenLength) return text;
  const fault =
    text === undefined || text === '' ? 'without' : `with more than ${ANSWER_LIMITS.tokenLength} characters in`;
  throw new LoaderError('cdn_invalid_response', `The CDN answered ${fault} ${name}; check host in cdn.yaml.`);
}

/** @throws LoaderError `cdn_invalid_response` for a length that no big part has */
export function assertObjectLength(length: number): number {
  if (length <= ANSWER_LIMITS.objectLength) return length;
  throw new LoaderError('cdn_invalid_response', 'The CDN says that the big part has more than 1 TiB: upload it again.');
}
