import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { DOCS_FILES, docsFile, docsFolder } from '../src/http/docs/docs-files.ts';

/** `npm run build`: makes `dist/` of the sources, with the files of the pages of /docs. */
const ROOT = path.resolve(import.meta.dirname, '..');
const DIST = path.join(ROOT, 'dist');

rmSync(DIST, { recursive: true, force: true });
const tsc = path.join(ROOT, 'node_modules/typescript/bin/tsc');
execFileSync(process.execPath, [tsc, '-p', 'tsconfig.build.json'], { cwd: ROOT, stdio: 'inherit' });
mkdirSync(docsFolder(DIST), { recursive: true });
for (const name of DOCS_FILES) copyFileSync(docsFile(name), path.join(docsFolder(DIST), name));
