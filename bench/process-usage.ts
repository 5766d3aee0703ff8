import { readFileSync } from 'node:fs';

/** Linux counts time in hundredths of a second here, whatever its own clock does (proc(5)). */
const TICKS_PER_SECOND = 100;

/** CPU seconds of a process, all its threads, and those of its children that have ended. */
export function readCpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  // The name, in brackets, may hold anything. After it, field 3 is the first; 14 to 17 are the times.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const ticks = fields.slice(14 - 3, 18 - 3).reduce((sum, field) => sum + Number(field), 0);
  return ticks / TICKS_PER_SECOND;
}

/** Bytes that a process gave to file systems to be written; sockets and pipes do not count. */
export function readWrittenBytes(pid: number): number {
  const written = /^write_bytes: (\d+)$/m.exec(readFileSync(`/proc/${pid}/io`, 'utf8'))?.[1];
  if (written === undefined) throw new Error('this kernel does not tell what a process writes');
  return Number(written);
}
