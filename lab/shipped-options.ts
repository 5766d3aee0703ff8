import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';

const DOCKERFILE = path.resolve(import.meta.dirname, '../Dockerfile');

/**
 * The options of Node that a Loader runs with: those of the image's command. `main` is its main file, which may be that of
 * what another checkout ships.
 *
 * @throws Error when there is no such command
 */
export function shippedNodeOptions(main = DOCKERFILE): readonly string[] {
  const shipped = path.resolve(path.dirname(main), '../Dockerfile');
  const command = /^CMD (\[.*\])$/m.exec(readFileSync(existsSync(shipped) ? shipped : DOCKERFILE, 'utf8'))?.[1];
  const [node, ...args] = JSON.parse(command ?? '[]') as string[];
  if (node !== 'node' || args.pop() !== 'dist/main.js') throw new Error('the Dockerfile has no command of the Loader');
  return args;
}
