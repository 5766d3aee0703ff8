import { readFileSync } from 'node:fs';
import path from 'node:path';

const DOCKERFILE = path.resolve(import.meta.dirname, '../Dockerfile');

/** The options of Node that the Loader runs with: those of the image's command. @throws Error when it has none to read */
export function shippedNodeOptions(): readonly string[] {
  const command = /^CMD (\[.*\])$/m.exec(readFileSync(DOCKERFILE, 'utf8'))?.[1];
  const [node, ...args] = JSON.parse(command ?? '[]') as string[];
  if (node !== 'node' || args.pop() !== 'dist/main.js') throw new Error('the Dockerfile has no command of the Loader');
  return args;
}
