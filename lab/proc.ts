import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import path from 'node:path';

/** What Linux shows of a process under /proc: see proc(5). */

/** The kernel shows CPU time in hundredths of a second. */
const TICKS_PER_SECOND = 100;

/** What a process has open: paths of files, `socket:[inode]` and others. */
export function readOpenFiles(pid: number): string[] {
  const folder = `/proc/${pid}/fd`;
  return readdirSync(folder).flatMap((fd) => {
    try {
      return [readlinkSync(path.join(folder, fd))];
    } catch {
      return []; // It was closed meanwhile.
    }
  });
}

/** Resident memory in bytes: at present, and the most that it ever was. */
export function readMemory(pid: number): { readonly present: number; readonly peak: number } {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const bytesOf = (field: string) => {
    const kibibytes = new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(status)?.[1];
    if (kibibytes === undefined) throw new Error(`process ${pid} has no ${field}`);
    return Number(kibibytes) * 1024;
  };
  return { present: bytesOf('VmRSS'), peak: bytesOf('VmHWM') };
}

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

export interface Connection {
  readonly inode: string;
  /** Bytes that have come and were not read yet. While a body is on its way, this is nearly always more than 0. */
  readonly unread: number;
}

/** Open TCP connections of a process, over IPv4, to a port. */
export function readConnections(pid: number, remotePort: number): Connection[] {
  const own = new Set(readOpenFiles(pid));
  const lines = readFileSync(`/proc/${pid}/net/tcp`, 'utf8').trim().split('\n').slice(1);
  return lines.flatMap((line) => {
    // sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode
    const fields = line.trim().split(/\s+/);
    const [port, unread] = [fields[2], fields[4]].map((field) => Number.parseInt(field?.split(':')[1] ?? '', 16));
    const inode = fields[9] ?? '';
    return port === remotePort && own.has(`socket:[${inode}]`) ? [{ inode, unread: unread ?? 0 }] : [];
  });
}

/** IDs of the processes whose environment has this text. */
export function findProcesses(inEnvironment: string): number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => {
      try {
        return pid > 0 && readFileSync(`/proc/${pid}/environ`, 'utf8').includes(inEnvironment);
      } catch {
        return false; // It has ended meanwhile.
      }
    });
}
