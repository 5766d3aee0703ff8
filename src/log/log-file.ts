import { constants, fstatSync, type Stats } from 'node:fs';
import { open, stat, type FileHandle } from 'node:fs/promises';
import path from 'node:path';
import { systemErrorCode } from '../errors.ts';
import { makeFolder } from '../files/folders.ts';
import type { LogTarget } from './log-output.ts';

/** Lines of the log may name resources and users' roles: other users of the machine may not read them. */
const MODE = 0o600;
// Without O_NONBLOCK, opening a FIFO would wait for a reader.
const FLAGS = constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_NONBLOCK | constants.O_NOCTTY;
const STDOUT = 1;

/** LOG_FILE as a target of the log. It is opened, and made with its folders, at the first write. */
export class LogFile implements LogTarget, AsyncDisposable {
  readonly name = 'LOG_FILE';
  readonly #path: string;
  #handle: FileHandle | undefined;

  constructor(filePath: string) {
    this.#path = filePath;
  }

  /** Opens the file before the first line, so that a wrong name is found. @throws Error that names LOG_FILE */
  async open(): Promise<void> {
    this.#handle ??= await this.#openNamed();
  }

  async write(bytes: Buffer): Promise<number> {
    this.#handle ??= await openRegularFile(this.#path);
    return (await this.#handle.write(bytes)).bytesWritten;
  }

  /**
   * Opens the file under its name anew: log rotation has renamed the one that is open.
   * @throws Error that names LOG_FILE; the lines go on into the old file then
   */
  async reopen(): Promise<void> {
    const old = this.#handle;
    this.#handle = await this.#openNamed();
    // It waits for a write under way.
    await old?.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#handle?.close().catch(() => undefined);
  }

  async #openNamed(): Promise<FileHandle> {
    try {
      return await openRegularFile(this.#path);
    } catch (error) {
      throw new Error(`LOG_FILE (${this.#path}) can't be written: ${reasonOf(error)}`, { cause: error });
    }
  }
}

/** Tells whether a name is that of a place that needs no LOG_FILE: /dev/null, or what stdout already is. */
export async function isNoFileOfItsOwn(filePath: string): Promise<boolean> {
  try {
    const stats = await stat(filePath);
    return isSame(stats, fstatSync(STDOUT)) || (stats.isCharacterDevice() && isSame(stats, await stat('/dev/null')));
  } catch {
    return false;
  }
}

function isSame(a: Stats, b: Stats): boolean {
  return a.dev === b.dev && a.ino === b.ino;
}

async function openRegularFile(filePath: string): Promise<FileHandle> {
  await makeFolder(path.dirname(filePath));
  const handle = await open(filePath, FLAGS, MODE);
  if ((await handle.stat()).isFile()) return handle;
  await handle.close();
  throw new Error('it is no regular file');
}

function reasonOf(error: unknown): string {
  // Nothing reads from a FIFO, or it is a socket.
  const code = systemErrorCode(error);
  if (code === 'ENXIO') return 'it is no regular file';
  return code ?? (error instanceof Error ? error.message : 'unknown');
}
