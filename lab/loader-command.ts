import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { shippedCommand, shippedFolder } from './shipped-folder.ts';

/** Runs the `loader` command of what ships in a folder, and returns its output. @throws Error when it failed, or the reason of `signal` */
export async function runLoaderCommand(
  args: readonly string[],
  options: { readonly cwd: string; readonly signal: AbortSignal },
): Promise<string> {
  const { cwd, signal } = options;
  const command = shippedCommand(await shippedFolder({ signal }));
  signal.throwIfAborted();
  const child = spawn(process.execPath, [command, ...args], {
    cwd,
    stdio: ['ignore', 'pipe', 'pipe'],
    // A process group of its own: Ctrl-C in the terminal is for the parent.
    detached: true,
  });
  const onAbort = () => child.kill('SIGTERM');
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    const [stdout, stderr, [code]] = await Promise.all([
      text(child.stdout),
      text(child.stderr),
      once(child, 'exit') as Promise<[number | null]>,
    ]);
    signal.throwIfAborted();
    if (code !== 0) throw new Error(`loader ${args[0] ?? ''} failed: ${stderr.trim()}`);
    return stdout;
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}
