import assert from 'node:assert/strict';
import fs, { type FileHandle } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';

type Hookable = 'lstat' | 'open' | 'readdir' | 'rename' | 'unlink';
type HandleMethod = 'read' | 'write';
/** The files for which a hook is meant: one path, or all paths that match. */
type Files = string | RegExp;
type Call = (...parameters: unknown[]) => Promise<unknown>;

interface Plan {
  readonly name: string;
  isHit: boolean;
}

/**
 * The functions of node:fs/promises, everywhere in this process, with the test's own work in between.
 *
 * `restore` fails when a hook was never hit: such a test would show nothing of the fault that it is about.
 */
export class HookedFs {
  readonly #originals = new Map<Hookable, unknown>();
  readonly #plans: Plan[] = [];

  /** Lets `work` run, or fail, before each call of `name` for one of `files`. */
  before(name: Hookable, files: Files, work: (filePath: string) => Promise<void> | void): void {
    const original = fs[name] as Call;
    const plan = this.#plan(name, files);
    this.#replace(name, async (filePath, ...rest) => {
      if (isMeant(files, String(filePath))) {
        plan.isHit = true;
        await work(String(filePath));
      }
      return await original(filePath, ...rest);
    });
  }

  /** Lets `work` run, or fail, before each read or write of those of `files` that are opened from now on. */
  beforeHandle(method: HandleMethod, files: Files, work: (position: number) => unknown): void {
    const plan = this.#plan(method, files);
    this.#onOpen(files, (handle) => {
      const original = handle[method].bind(handle) as Call;
      const replacement: Call = async (...parameters) => {
        plan.isHit = true;
        await work(Number(parameters[3]));
        return await original(...parameters);
      };
      Object.assign(handle, { [method]: replacement });
    });
  }

  /** Hands each of `files` that is opened to `change`. */
  onOpen(files: Files, change: (handle: FileHandle, filePath: string) => void): void {
    const plan = this.#plan('open', files);
    this.#onOpen(files, (handle, filePath) => {
      plan.isHit = true;
      change(handle, filePath);
    });
  }

  /** Takes all hooks back; files that are open keep those of their handles. @throws AssertionError for one not hit */
  restore(): void {
    Object.assign(fs, Object.fromEntries(this.#originals));
    syncBuiltinESMExports();
    this.#originals.clear();
    const missed = this.#plans.splice(0).filter(({ isHit }) => !isHit);
    assert.deepEqual(
      missed.map(({ name }) => name),
      [],
      'hooks that were never hit',
    );
  }

  #onOpen(files: Files, change: (handle: FileHandle, filePath: string) => void): void {
    const original = fs.open as (...parameters: unknown[]) => Promise<FileHandle>;
    this.#replace('open', async (filePath, ...rest) => {
      const handle = await original(filePath, ...rest);
      if (isMeant(files, String(filePath))) change(handle, String(filePath));
      return handle;
    });
  }

  #plan(name: string, files: Files): Plan {
    const plan = { name: `${name} of ${String(files)}`, isHit: false };
    this.#plans.push(plan);
    return plan;
  }

  #replace(name: Hookable, replacement: Call): void {
    if (!this.#originals.has(name)) this.#originals.set(name, fs[name]);
    Object.assign(fs, { [name]: replacement });
    syncBuiltinESMExports();
  }
}

export function systemError(code: string): Error {
  return Object.assign(new Error(code), { code });
}

function isMeant(files: Files, filePath: string): boolean {
  return typeof files === 'string' ? filePath === files : files.test(filePath);
}
