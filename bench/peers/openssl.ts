import { OPENSSL } from '../debian-tools.ts';
import { runPipeline } from '../run-process.ts';
import type { Ciphertext } from '../stage.ts';

/** Decrypts a file into a pipe. Returns the time in ms. */
export async function opensslDecrypt(ciphertext: Ciphertext, signal: AbortSignal): Promise<number> {
  return (await runPipeline(`${DECRYPT_FILE} | cat >/dev/null`, opensslArgs(ciphertext), { signal })).wallMs;
}

export async function opensslDecryptDigest(ciphertext: Ciphertext, signal: AbortSignal): Promise<string> {
  const { stdout } = await runPipeline(`${DECRYPT_FILE} | sha256sum`, opensslArgs(ciphertext), { signal });
  return stdout.slice(0, 64);
}

const DECRYPT_FILE = `${OPENSSL} enc -d -aes-256-cbc -K "$1" -iv "$2" -in "$3"`;

function opensslArgs({ keyHex, ivHex, path }: Ciphertext): string[] {
  return [keyHex, ivHex, path];
}
