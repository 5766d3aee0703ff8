/** Bytes of a representation. */
export interface ByteRange {
  readonly start: number;
  /** Exclusive. */
  readonly end: number;
}

/** One range: `first-last`, `first-` or `-suffix`. */
const ONE_RANGE = /^(\d*)-(\d*)$/;

/**
 * The range that a Range header asks for of `length` bytes (RFC 9110 section 14): `whole` where there is none, another unit,
 * or several; `unsatisfiable` for one that is none, or lies beyond the end.
 */
export function parseByteRange(header: string | undefined, length: number): ByteRange | 'whole' | 'unsatisfiable' {
  const set = /^bytes=(.*)$/i.exec(header?.trim() ?? '')?.[1];
  if (set === undefined || set.includes(',')) return 'whole';
  const [, first = '', last = ''] = ONE_RANGE.exec(set.trim()) ?? [];
  if (first === '' && last === '') return 'unsatisfiable';
  if (first === '') {
    const suffix = Math.min(Number(last), length);
    return suffix === 0 ? 'unsatisfiable' : { start: length - suffix, end: length };
  }
  const start = Number(first);
  if (start >= length || (last !== '' && Number(last) < start)) return 'unsatisfiable';
  return { start, end: last === '' ? length : Math.min(length, Number(last) + 1) };
}
