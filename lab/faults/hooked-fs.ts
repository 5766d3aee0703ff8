import fs, { type FileHandle } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';

type Hookable = 'lstat' | 'open' | 'readdir' | 'rename' | 'unlink';

/** The functions of node:fs/promises, everywhere in this process, with the test's own work in between. */
export class HookedFs {
  readonly #originals = new Map<Hookable, unknown>();

  /** Lets `before` run, or fail, before each call. */
  before(name: Hookable, before: (filePath: string) => Promise<void> | void): void {
    const original = fs[name] as (...parameters: unknown[]) => Promise<unknown>;
    this.#replace(name, async (filePath, ...rest) => {
      await before(String(filePath));
      return await original(filePath, ...rest);
    });
  }

  /** Hands each file that is opened to `change`. */
  onOpen(change: (handle: FileHandle, filePath: string) => void): void {
    const original = fs.open as (...parameters: unknown[]) => Promise<FileHandle>;
    this.#replace('open', async (filePath, ...rest) => {
      const handle = await original(filePath, ...rest);
      change(handle, String(filePath));
      return handle;
    });
  }

  /** Makes them what they were. */
  restore(): void {
    Object.assign(fs, Object.fromEntries(this.#originals));
    syncBuiltinESMExports();
    this.#originals.clear();
  }

  #replace(name: Hookable, replacement: (...parameters: unknown[]) => Promise<unknown>): void {
    if (!this.#originals.has(name)) this.#originals.set(name, fs[name]);
    Object.assign(fs, { [name]: replacement });
    syncBuiltinESMExports();
  }
}

export function systemError(code: string): Error {
  return Object.assign(new Error(code), { code });
}
