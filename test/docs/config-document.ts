import { readFileSync } from 'node:fs';
import path from 'node:path';

const ROOT = path.resolve(import.meta.dirname, '../..');

export const ENV_EXAMPLE = path.join(ROOT, '.env.example');
/** The document that has the table of the configuration. */
export const CONFIG_DOCUMENT = path.join(ROOT, 'docs/configuration.md');

const TABLE = /^\| variable .*\n(?:\|.*\n)+/m;

export function readConfigDocument(): string {
  return readFileSync(CONFIG_DOCUMENT, 'utf8');
}

/** The table of a document; undefined when it has none. */
export function tableOf(document: string): string | undefined {
  return TABLE.exec(document)?.[0];
}

export function withTable(document: string, table: string): string {
  return document.replace(TABLE, () => `${table}\n`);
}
