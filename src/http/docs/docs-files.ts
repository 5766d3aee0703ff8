import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

/** The files that the pages of /docs are made of. `npm run build` copies them to `docsFolder` of what ships. */
export const DOCS_FILES = ['openapi.json', 'swagger-ui.css', 'swagger-ui-bundle.js', 'swagger-ui-LICENSE'] as const;

export type DocsFile = (typeof DOCS_FILES)[number];

/** The folder of these files under the folder of the code, such as `dist`. */
export function docsFolder(codeFolder: string): string {
  return path.join(codeFolder, 'http/docs/files');
}

/**
 * The path of a file. In development nothing was copied: the document is in docs/, and the rest in a package that does
 * not ship, since it would bring ten more.
 */
export function docsFile(name: DocsFile): string {
  const copy = path.join(docsFolder(path.join(import.meta.dirname, '../..')), name);
  if (existsSync(copy)) return copy;
  if (name === 'openapi.json') return path.join(import.meta.dirname, '../../../docs', name);
  const packageFolder = path.dirname(fileURLToPath(import.meta.resolve('@fastify/swagger-ui')));
  return path.join(packageFolder, name === 'swagger-ui-LICENSE' ? 'LICENSE' : path.join('static', name));
}
