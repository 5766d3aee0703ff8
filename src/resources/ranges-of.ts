/** A range of an object that is fetched with one request. */
export interface Range {
  readonly index: number;
  readonly start: number;
  /** Exclusive. */
  readonly end: number;
}

/** The ranges of an object, from its beginning. Several loops may share them: each range goes to one of them. */
export function* rangesOf(length: number, rangeLength: number): Generator<Range, void, undefined> {
  for (let index = 0; index * rangeLength < length; index++) {
    const start = index * rangeLength;
    yield { index, start, end: Math.min(length, start + rangeLength) };
  }
}
