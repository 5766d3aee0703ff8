import { lstat, readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { sha256 } from '../lab/sha256.ts';

/** Folders of files like those of images, on every Linux machine. A folder that is absent is left out. */
const ROOTS = ['/usr/lib', '/usr/share', '/opt', '/usr/bin', '/usr/local'];
const PROJECT = path.resolve(import.meta.dirname, '..');

export interface MachineFile {
  /** Its path without the first slash; from the second time on, in a folder of another name. */
  readonly name: string;
  readonly content: Buffer;
}

/**
 * This machine's own regular files, always in the same order; when it has no more, they come again under other names.
 *
 * The folders are shuffled, for files of one kind lie together: so each part of the order has large and small ones, as a
 * layer of an image has.
 */
export class MachineFiles {
  readonly #paths = walkAgainAndAgain();

  /** The next one that has at most `maxLength` bytes and can be read. */
  async next(maxLength: number): Promise<MachineFile> {
    for (;;) {
      const { value, done } = await this.#paths.next();
      if (done === true) throw new Error('this machine has no files that could make an image');
      const [filePath, turn] = value;
      try {
        if ((await lstat(filePath)).size > maxLength) continue;
        const content = await readFile(filePath);
        const name = filePath.slice(1);
        return { name: turn === 1 ? name : `turn-${turn}/${name}`, content };
      } catch {
        // It has disappeared, or this user may not read it.
      }
    }
  }
}

async function* walkAgainAndAgain(): AsyncGenerator<[string, number], void, undefined> {
  const folders: Folder[] = [];
  for (const root of ROOTS) await addFolders(root, folders);
  folders.sort((a, b) => (a.rank < b.rank ? -1 : 1));
  if (folders.length === 0) return;
  for (let turn = 1; ; turn++) {
    for (const { path: folderPath, names } of folders) {
      for (const name of names) yield [path.join(folderPath, name), turn];
    }
  }
}

interface Folder {
  readonly path: string;
  /** The names of its regular files, sorted. */
  readonly names: readonly string[];
  /** Its place among the others: as good as random, and always the same. */
  readonly rank: string;
}

/** Adds a folder and those below it, as far as they have files; links are not followed. */
async function addFolders(folderPath: string, folders: Folder[]): Promise<void> {
  if (folderPath === PROJECT) return; // It changes while it is measured.
  const entries = await readdir(folderPath, { withFileTypes: true }).catch(() => []);
  const names = entries.filter((entry) => entry.isFile()).map(({ name }) => name);
  const rank = sha256(folderPath);
  if (names.length > 0) folders.push({ path: folderPath, names: names.sort(), rank });
  for (const entry of entries) {
    if (entry.isDirectory()) await addFolders(path.join(folderPath, entry.name), folders);
  }
}
