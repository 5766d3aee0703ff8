import { CliError } from './cli-error.ts';
import { InputFile } from './input-file.ts';

const MAX_LENGTH = 64 * 1024;

/** The secret in a file, or in stdin for `-`, without the line's end. @throws CliError; the reason of `signal` */
export async function readSecretInput(path: string, signal: AbortSignal): Promise<string> {
  const what = path === '-' ? 'The standard input' : `The file ${path}`;
  const chunks =
    path === '-' ? (process.stdin as AsyncIterable<Buffer>) : (await InputFile.at('The file', path)).chunks(signal);
  const read: Buffer[] = [];
  let length = 0;
  for await (const chunk of chunks) {
    read.push(chunk);
    length += chunk.length;
    if (length > MAX_LENGTH) throw new CliError(`${what} holds more than 64 KiB: name the file of the password.`);
  }
  const secret = Buffer.concat(read)
    .toString('utf8')
    .replace(/\r?\n$/, '');
  if (secret === '') throw new CliError(`${what} holds no password.`);
  return secret;
}
