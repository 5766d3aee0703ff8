import { CliError } from './cli-error.ts';
import { readInput } from './input-chunks.ts';

const MAX_LENGTH = 64 * 1024;

/** The secret in a file, or in stdin for `-`, without the line's end. @throws CliError; the reason of `signal` */
export async function readSecretInput(path: string, signal: AbortSignal): Promise<string> {
  const secret = (await readInput('The file', path, MAX_LENGTH, signal)).toString('utf8').replace(/\r?\n$/, '');
  if (secret === '')
    throw new CliError(`${path === '-' ? 'Stdin' : `The file ${path}`} is empty: it must hold a secret.`);
  return secret;
}
