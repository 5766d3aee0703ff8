import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { glob } from 'node:fs/promises';
import path from 'node:path';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';
import { baseImage } from '../lab/containers/base-image.ts';
import { ContainerEngine } from '../lab/containers/container-engine.ts';
import { findProcesses } from '../lab/proc.ts';
import {
  CONTAINER_ENGINE,
  SERVICES_FOLDER,
  startDockerd,
  startRgw,
  stopAllDockerds,
  stopDockerd,
  stopRgw,
} from '../lab/services/services.ts';
import { shippedFolder } from '../lab/shipped-folder.ts';
import { FolderBusyError, FolderLock } from '../src/files/folder-lock.ts';

/**
 * Runs the tests: `npm test` all of them after `npm run check`, `npm run test:only -- PATTERN...` the files whose path has
 * one of the patterns. It starts a service only when a chosen file names the skip option of that service, and stops it at
 * the end. With CI=true, a skipped test is a failure.
 */

/** The number of files whose times are printed at the end. */
const SLOWEST_FILES = 10;
/** Files that run at a time, on two cores or more: tests wait for timers and for other processes more than they work. */
const CONCURRENCY = 3;
/** Their files take longest: they begin first, so that none of them runs alone at the end. */
const LONG_FOLDER = 'test/integration/unlock/';
/** For one test, and for a file of tests: one that hangs must not hang the run. Campaigns (test/README.md) set a longer time. */
const FILE_TIMEOUT_MS = Number(process.env['LOADER_TEST_FILE_MINUTES'] ?? 10) * 60_000;
/** How often the ages of the test files' processes are looked at. */
const LOOK_MS = 5_000;
/** For the whole run, preparation included: whoever waits for it must get an answer, also where the machine hangs. */
const RUN_TIMEOUT_MS = 4 * FILE_TIMEOUT_MS;
/** For the end of the run after a signal. */
const END_TIMEOUT_MS = 30_000;
/** The signals that end a run, with the exit codes that shells give them. */
const EXIT_CODES = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;
/** Of a run that took longer than RUN_TIMEOUT_MS, as timeout(1) has it. */
const TIMED_OUT = 124;

const isCi = process.env['CI'] === 'true';
const patterns = process.argv.slice(2);
const files = (await Array.fromAsync(glob('test/{unit,integration,docs}/**/*.test.ts')))
  .filter((file) => patterns.length === 0 || patterns.some((pattern) => file.includes(pattern)))
  .sort();
if (files.length === 0) {
  console.error(`No test file has ${patterns.join(' or ')} in its path.`);
  process.exit(1);
}
const unitFiles = files.filter(isUnitTest);
const integrationFiles = files
  .filter((file) => !isUnitTest(file))
  .sort((a, b) => Number(b.startsWith(LONG_FOLDER)) - Number(a.startsWith(LONG_FOLDER)));
const needsS3 = files.some((file) => names(file, 'S3_SKIP'));
const needsDocker = files.some((file) => names(file, 'DOCKER_SKIP'));
const needsDocker26 = files.some((file) => names(file, 'DOCKER_26_SKIP'));
const needsContainers = files.some((file) => names(file, 'CONTAINER_SKIP'));
const runsLoaders = integrationFiles.length > 0;

mkdirSync(SERVICES_FOLDER, { recursive: true });
using _lock = await lockRun();
const runFolder = path.join(SERVICES_FOLDER, 'run');
rmSync(runFolder, { recursive: true, force: true });
mkdirSync(path.join(runFolder, 'logs'), { recursive: true });
writeFileSync(path.join(runFolder, 'secrets.txt'), '');
process.env['LOADER_TEST_RUN_FOLDER'] = runFolder;
// Of Node: it need not strip and compile the same sources in each test file's process.
process.env['NODE_COMPILE_CACHE'] ??= path.join(SERVICES_FOLDER, 'compile-cache');

const interrupt = new AbortController();
const prepared = prepare();
for (const signal of Object.keys(EXIT_CODES) as (keyof typeof EXIT_CODES)[]) {
  process.on(signal, () => void endRun(EXIT_CODES[signal]));
}
setTimeout(() => {
  console.error(`The run was ended: it took longer than ${RUN_TIMEOUT_MS / 60_000} minutes.`);
  void endRun(TIMED_OUT);
}, RUN_TIMEOUT_MS).unref();

try {
  await prepared;
  const passedUnit = await runFiles(unitFiles, CONCURRENCY);
  const passedOthers = await runFiles(integrationFiles, CONCURRENCY);
  // The last test looks at what all the others left behind. With patterns, there may be no logs to look at.
  const passedLast = patterns.length > 0 || (await runFiles(await Array.fromAsync(glob('test/last/*.test.ts')), 1));
  process.exitCode = passedUnit && passedOthers && passedLast ? 0 : 1;
} finally {
  await stopAll();
}
// A process that a killed test file left behind may hold its output open, for which this one would wait.
if (!interrupt.signal.aborted) process.exit();

/** Two runs at once would remove each other's logs and services. */
async function lockRun(): Promise<FolderLock> {
  try {
    return await FolderLock.take(SERVICES_FOLDER, 'run.lock');
  } catch (error) {
    if (!(error instanceof FolderBusyError)) throw error;
    console.error('Tests are running in this checkout already: wait for their end, or use another clone.');
    process.exit(1);
  }
}

/** Ends the run before its end, with nothing left of it. Further calls change nothing. */
async function endRun(exitCode: number): Promise<void> {
  if (interrupt.signal.aborted) return;
  setTimeout(() => process.exit(exitCode), END_TIMEOUT_MS);
  interrupt.abort();
  await prepared.catch(() => undefined); // What is just starting could not be stopped.
  await stopAll();
  process.exit(exitCode);
}

/** Starts what the chosen files need, and builds what ships. A whole run checks types, lint and format meanwhile. */
async function prepare(): Promise<void> {
  const needs = [...(needsS3 ? ['Ceph'] : []), ...(needsDocker || needsDocker26 || needsContainers ? ['Docker'] : [])];
  if (needs.length > 0) console.log(`Starting ${needs.join(' and ')} ...`);
  const s3Start = needsS3 ? startS3() : Promise.resolve();
  // Where both must be installed, one after the other: two runs of apt at once get in each other's way.
  const engineStart = isInstalled('dockerd') ? startEngines() : s3Start.then(startEngines);
  const build = runsLoaders ? buildShipped() : undefined;
  const checked = patterns.length === 0 ? check() : undefined;
  const results = await Promise.allSettled([s3Start, engineStart, build, checked]);
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}

/** @throws Error when it finds anything, which is printed */
async function check(): Promise<void> {
  const child = spawn('npm', ['run', '--silent', 'check'], {
    stdio: ['ignore', 'inherit', 'inherit'],
    signal: interrupt.signal,
  });
  const [code] = (await once(child, 'close')) as [number | null];
  if (code !== 0) throw new Error('npm run check found what is printed above. No test was run.');
}

async function buildShipped(): Promise<void> {
  const onBuild = () => console.log('Building what ships ...');
  process.env['LOADER_TEST_SHIPPED_FOLDER'] = await shippedFolder({ onBuild });
}

async function runFiles(files: string[], concurrency: number): Promise<boolean> {
  if (files.length === 0) return true;
  let passed = true;
  const seconds = new Map<string, number>();
  const stream = run({ files, concurrency, timeout: FILE_TIMEOUT_MS, signal: interrupt.signal });
  stream.on('test:fail', () => {
    passed = false;
  });
  stream.on('test:pass', (event) => {
    if (isCi && (event.skip !== undefined || event.todo !== undefined)) {
      console.log(`Skipped with CI=true: ${event.name}`);
      passed = false;
    }
  });
  stream.on('test:summary', ({ file, duration_ms: ms }) => {
    if (file !== undefined) seconds.set(path.relative('.', file), ms / 1000);
  });
  const watch = watchFiles();
  for await (const text of stream.compose(spec)) process.stdout.write(text as string);
  clearInterval(watch);
  printSlowest(seconds);
  return passed;
}

/** Kills a test file that takes too long: the timeout of `run` ends its tests, but not a process that stays open. */
function watchFiles(): NodeJS.Timeout {
  const sinceMs = new Map<number, number>();
  return setInterval(() => {
    for (const pid of findOwn().filter(isTestFile)) {
      if (!sinceMs.has(pid)) sinceMs.set(pid, performance.now());
      if (performance.now() - (sinceMs.get(pid) ?? 0) > FILE_TIMEOUT_MS) kill(pid);
    }
  }, LOOK_MS);
}

function printSlowest(seconds: ReadonlyMap<string, number>): void {
  const slowest = [...seconds].sort(([, a], [, b]) => b - a).slice(0, SLOWEST_FILES);
  if (seconds.size < 2) return;
  console.log('The slowest files, in seconds:');
  for (const [file, time] of slowest) console.log(`${time.toFixed(1).padStart(7)}  ${file}`);
}

async function startS3(): Promise<void> {
  try {
    const s3 = await startRgw();
    process.env['LOADER_TEST_S3_ENDPOINT'] = s3.endpoint;
    process.env['LOADER_TEST_S3_KEY'] = s3.accessKey;
    process.env['LOADER_TEST_S3_SECRET'] = s3.accessSecret;
  } catch (error) {
    process.env['LOADER_TEST_S3_SKIP'] = announce(`the Ceph RADOS Gateway could not be started: ${lastLine(error)}`);
  }
}

async function startEngines(): Promise<void> {
  // A run that was killed may have left engines, and images on them.
  if (needsDocker || needsDocker26) await stopAllDockerds();
  const docker26 = needsDocker26 ? prepareDocker26() : undefined;
  if (needsDocker) await startDocker();
  if (needsContainers) await startContainerEngine();
  await docker26;
}

/** Never the engine of the machine: the tests kill theirs, and remove its images. */
async function startDocker(): Promise<void> {
  try {
    process.env['LOADER_TEST_DOCKER_HOST'] = (await startDockerd()).host;
  } catch (error) {
    process.env['LOADER_TEST_DOCKER_SKIP'] = announce(`the Docker engine could not be started: ${lastLine(error)}`);
  }
}

/** Fetches Docker 26.1, and finds out whether it runs here. Test files start engines of their own. */
async function prepareDocker26(): Promise<void> {
  const name = 'dockerd-26';
  try {
    await startDockerd(name, { version: '26.1', imageStore: 'containerd' });
    await stopDockerd(name);
    process.env['LOADER_TEST_DOCKER_26'] = 'true';
  } catch (error) {
    process.env['LOADER_TEST_DOCKER_26_SKIP'] = announce(`Docker 26.1 could not be started: ${lastLine(error)}`);
  }
}

/** An engine may load images where the kernel lets it run no container: this one must have run one. */
async function startContainerEngine(): Promise<void> {
  try {
    await using engine = new ContainerEngine((await startDockerd(CONTAINER_ENGINE)).host);
    await engine.removeEndedContainers();
    const base = await baseImage(engine, () => console.log("Making the image that the Loader's stands on (once) ..."));
    const { exitCode, output } = await engine.run({ image: base, command: ['true'] });
    if (exitCode !== 0) throw new Error(`a container ended with exit code ${exitCode}. ${output}`);
    process.env['LOADER_TEST_CONTAINER_HOST'] = engine.host;
    process.env['LOADER_TEST_CONTAINER_BASE'] = base;
  } catch (error) {
    process.env['LOADER_TEST_CONTAINER_SKIP'] = announce(`the Loader's image can't be run here: ${lastLine(error)}`);
  }
}

/** Stops the services, also those that test files have started, and what else is left of the run. */
async function stopAll(): Promise<void> {
  findOwn().filter(isTestFile).forEach(kill); // The services have the run's variable in their environment, too, and are stopped in order.
  const stops = [
    ...(needsS3 ? [stopRgw()] : []),
    ...(needsDocker || needsDocker26 ? [stopAllDockerds()] : []),
    ...(needsContainers ? [stopDockerd(CONTAINER_ENGINE, { keepsData: true })] : []),
  ];
  await Promise.allSettled(stops);
  findOwn().forEach(kill); // Loaders of test files that were killed.
}

/** The processes that were started by this run, at any depth. */
function findOwn(): number[] {
  return findProcesses(`LOADER_TEST_RUN_FOLDER=${runFolder}\0`).filter((pid) => pid !== process.pid);
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended meanwhile.
  }
}

function isTestFile(pid: number): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('.test.ts');
  } catch {
    return false; // It has ended meanwhile.
  }
}

function isUnitTest(file: string): boolean {
  return file.startsWith('test/unit/');
}

function names(file: string, word: string): boolean {
  return readFileSync(file, 'utf8').includes(word);
}

function announce(reason: string): string {
  console.log(`${reason}\nTests that need it are skipped.`);
  return reason;
}

function isInstalled(command: string): boolean {
  const folders = [...(process.env['PATH'] ?? '').split(':'), '/usr/sbin', '/usr/bin'];
  return folders.some((folder) => existsSync(path.join(folder, command)));
}

function lastLine(error: unknown): string {
  const text = error instanceof Error && 'stderr' in error ? String(error.stderr) : String(error);
  return text.trim().split('\n').at(-1) ?? '';
}
