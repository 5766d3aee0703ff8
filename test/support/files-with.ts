import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';

/** The paths of the files in a folder, and in the folders within it, that hold a text. */
export async function filesWith(text: string, folder: string): Promise<string[]> {
  const found: string[] = [];
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    const filePath = path.join(entry.parentPath, entry.name);
    if (entry.isFile() && (await readFile(filePath)).includes(text)) found.push(filePath);
  }
  return found;
}
