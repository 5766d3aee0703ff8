import { readFileSync } from 'node:fs';

/** The Loader's own version, of package.json, which ships beside the code. */
export const VERSION: string = readVersion();

function readVersion(): string {
  const json = readFileSync(new URL('../package.json', import.meta.url), 'utf8');
  return (JSON.parse(json) as { version: string }).version;
}
