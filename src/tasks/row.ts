import type { SQLOutputValue } from 'node:sqlite';

/** A row of a table, by the names of its columns. */
export type Row = Readonly<Record<string, SQLOutputValue>>;

const ID = /^[\w-]{1,64}$/;
/** The last time that JavaScript's Date knows, in ms since 1970. */
const MAX_TIME_MS = 8.64e15;

/** The text of a column; empty where it is no text. */
export function textOf(row: Row, column: string): string {
  const value = row[column];
  return typeof value === 'string' ? value : '';
}

export function isText(value: unknown): boolean {
  return typeof value === 'string';
}

export function isId(value: unknown): boolean {
  return typeof value === 'string' && ID.test(value);
}

/** Whole numbers come as bigint, because the statement of a row with a larger one would throw otherwise. */
export function isCount(value: unknown, max = Number.MAX_SAFE_INTEGER): boolean {
  return typeof value === 'bigint' && value >= 0n && value <= max;
}

/** A column that `isCount` was asked about. */
export function numberOrNull(value: SQLOutputValue | undefined): number | null {
  return typeof value === 'bigint' ? Number(value) : null;
}

/** Whether a value is ms since 1970. */
export function isTime(value: unknown): boolean {
  return isCount(value, MAX_TIME_MS);
}

export function isNullOr(value: unknown, isSound: (given: unknown) => boolean): boolean {
  return value === null || isSound(value);
}
