import { constants, fstatSync, openSync, write, writeSync, type Stats } from 'node:fs';
import { promisify } from 'node:util';
import type { LogTarget } from './log-output.ts';

const STDOUT = 1;
const NAME = 'stdout';
const writeLater = promisify(write);

/**
 * Stdout as a target of the log. A pipe, a terminal, a socket or a device is written at once and without waiting. A file
 * is written by Node's threads, because a disk can be slow whatever flags the file was opened with.
 */
export function openStdout(): LogTarget {
  const descriptor = nonBlockingDescriptor(fstatSync(STDOUT));
  if (descriptor !== undefined) return { name: NAME, write: (bytes) => writeSync(descriptor, bytes) };
  return { name: NAME, write: async (bytes) => (await writeLater(STDOUT, bytes)).bytesWritten };
}

/** A descriptor of stdout whose writes fail with EAGAIN where those of stdout would wait. */
function nonBlockingDescriptor(stats: Stats): number | undefined {
  if (stats.isFile() || stats.isBlockDevice()) return undefined;
  try {
    // A description of its own: other processes that write to the same pipe or terminal still wait.
    return openSync('/proc/self/fd/1', constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch {
    // A socket can't be opened so, nor can a pipe of another user. Node makes them non-blocking for its own stream.
    return (stats.isSocket() || stats.isFIFO()) && process.stdout.writable ? STDOUT : undefined;
  }
}
