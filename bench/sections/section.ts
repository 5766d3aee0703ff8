import type { LoaderUnderTest } from '../loader-under-test.ts';
import type { Stage } from '../stage.ts';
import type { Table } from '../table.ts';

export interface SectionContext {
  readonly stage: Stage;
  readonly table: Table;
  /** Timed rounds, of which the median counts. */
  readonly rounds: number;
  /** Bytes of the image archive that is unlocked, about. */
  readonly archiveLength: number;
}

export interface Section {
  readonly title: string;
  readonly run: (context: SectionContext) => Promise<void>;
}

export const MB = 1_000_000;
/** The resource that loads and uploads are timed with. */
export const TIMED_LENGTH = 300 * MB;
/** The one that would show whether anything grows with size. */
export const LARGE_LENGTH = 2000 * MB;

/** An archive of another size: to warm up with, and to show whether anything grows. */
export const SMALL_ARCHIVE_LENGTH = 300 * MB;

/** For the 99th percentile of /health during all other work. */
export const TARGET_HEALTH_MS = 25;

/** What a probe of /health asks for. */
export function healthOf({ url }: LoaderUnderTest): { readonly url: string } {
  return { url: `${url}/health` };
}

/** What is measured must be right first. */
export function assertDigest(what: string, actual: string, expected: string): void {
  if (actual !== expected) throw new Error(`${what} is not the content that was uploaded`);
}

/** A private Docker engine needs root: without it, this says so, and the section is left out. */
export function canRunEngine(): boolean {
  if (process.getuid?.() === 0) return true;
  console.log('Skipped: a private Docker engine needs root.');
  return false;
}
