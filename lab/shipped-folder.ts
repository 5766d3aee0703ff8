import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, statSync, utimesSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { SERVICES_FOLDER } from './services/services.ts';

const run = promisify(execFile);
const ROOT = path.resolve(import.meta.dirname, '..');
const BUILD_SCRIPT = path.join(import.meta.dirname, 'build-shipped.sh');
/** For both npm runs, in ms. */
const BUILD_TIMEOUT_MS = 300_000;
/** All that what ships is made of, under the project's root. */
const INPUTS = [
  'src',
  'package.json',
  'package-lock.json',
  'tsconfig.json',
  'tsconfig.build.json',
  'Dockerfile',
  'lab/build.ts',
  'docs/openapi.json',
];

export interface ShippedFolderOptions {
  /** Another checkout of the project, with its dependencies installed; this one unless given. */
  readonly project?: string;
  /** Called before a build, which takes some ten seconds; not called when the folder is there already. */
  readonly onBuild?: () => void;
  readonly signal?: AbortSignal;
}

/**
 * The folder of what ships: `dist/` as `npm run build` makes it, with the dependencies of `npm ci --omit=dev` beside it.
 * It is built once for each state of sources and lockfile, however many processes ask for it.
 *
 * A test run builds it first, and names it to its test files in LOADER_TEST_SHIPPED_FOLDER: they all run the
 * same one, also when a source is saved meanwhile.
 */
export async function shippedFolder({ project = ROOT, onBuild, signal }: ShippedFolderOptions = {}): Promise<string> {
  const ofThisRun = process.env['LOADER_TEST_SHIPPED_FOLDER'];
  if (project === ROOT && ofThisRun !== undefined) return ofThisRun;
  const folder = path.join(SERVICES_FOLDER, 'shipped', `shipped-${await digestInputs(project)}`);
  if (!existsSync(folder)) {
    onBuild?.();
    const options = { timeout: BUILD_TIMEOUT_MS, ...(signal === undefined ? {} : { signal }) };
    await run('bash', [BUILD_SCRIPT, project, folder], options);
  }
  const now = new Date();
  utimesSync(folder, now, now); // A folder that was not used for a day is removed by the next build.
  return folder;
}

/** The main file of what ships. */
export function shippedMain(folder: string): string {
  return path.join(folder, 'dist/main.js');
}

/** The `loader` command of what ships. */
export function shippedCommand(folder: string): string {
  return path.join(folder, 'dist/cli/loader.js');
}

async function digestInputs(project: string): Promise<string> {
  const hash = createHash('sha256');
  for (const input of INPUTS) {
    for (const file of await filesOf(project, input)) {
      const content = await readFile(path.join(project, file));
      hash.update(`${file}\0${content.length}\0`).update(content);
    }
  }
  return hash.digest('hex').slice(0, 16);
}

/** Their paths under the project's root, sorted. An older checkout may lack some. */
async function filesOf(project: string, input: string): Promise<string[]> {
  const stats = statSync(path.join(project, input), { throwIfNoEntry: false });
  if (stats?.isDirectory() !== true) return stats === undefined ? [] : [input];
  const entries = await readdir(path.join(project, input), { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(project, path.join(entry.parentPath, entry.name)))
    .sort();
}
