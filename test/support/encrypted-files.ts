import { mkdtemp, open, rm, writeFile, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before } from 'node:test';
import { encryptBuffer } from '../../src/security/envelope-cipher.ts';
import { EnvelopeReader } from '../../src/security/envelope-reader.ts';

const KEY = Buffer.alloc(32, 'k');

/**
 * Returns a function that encrypts a plaintext into a file of its own, and opens that. Call it at the top of a test file:
 * the files lie in one folder, which is removed after the last test.
 */
export function useEncryptedFiles(): (plaintext: Buffer) => Promise<EnvelopeReader> {
  let folder = '';
  const handles: FileHandle[] = [];
  before(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'loader-encrypted-'));
  });
  after(async () => {
    for (const handle of handles) await handle.close();
    await rm(folder, { recursive: true, force: true });
  });
  return async (plaintext) => {
    const filePath = path.join(folder, String(handles.length));
    await writeFile(filePath, encryptBuffer(plaintext, KEY));
    const handle = await open(filePath);
    handles.push(handle);
    return new EnvelopeReader(handle, plaintext.length, KEY);
  };
}
