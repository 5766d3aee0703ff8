import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { runPipeline, runProcess } from './run-process.ts';

const ROOT = path.resolve(import.meta.dirname, '..');

/**
 * Lays the files of a commit into a folder and installs what its build needs. Nothing of it is known to git.
 *
 * @throws Error when there is no such commit
 */
export async function checkOut(commit: string, folder: string, signal: AbortSignal): Promise<void> {
  await mkdir(folder, { recursive: true });
  await runPipeline('git -C "$1" archive "$2" | tar -x -C "$3"', [ROOT, commit, folder], { signal });
  await runProcess(
    'npm',
    ['ci', '--prefix', folder, '--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund', '--loglevel=error'],
    // npm keeps its cache there.
    { signal, env: { HOME: process.env['HOME'] ?? '/root' } },
  );
}

/** The abbreviated name of a commit, and its subject. @throws Error when the commit does not exist */
export async function describeCommit(commit: string, signal: AbortSignal): Promise<string> {
  const { stdout } = await runProcess('git', ['-C', ROOT, 'log', '-1', '--format=%h %s', commit, '--'], { signal });
  return stdout.trim();
}
