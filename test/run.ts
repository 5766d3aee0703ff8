import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { glob } from 'node:fs/promises';
import path from 'node:path';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';
import { SERVICES_FOLDER, startDockerd, startRgw, stopAllDockerds, stopRgw } from '../lab/services/services.ts';

/**
 * Runs the tests: `npm test`, or `npm run test:only -- PATTERN...` for the files whose path has one of the patterns.
 * It starts the services that the tests need, and stops them at the end. With CI=true, a skipped test is a failure.
 */

/** For one file: a test that hangs must not hang the run. */
const FILE_TIMEOUT_MS = 300_000;

const isCi = process.env['CI'] === 'true';
const runFolder = path.join(SERVICES_FOLDER, 'run');
rmSync(runFolder, { recursive: true, force: true });
mkdirSync(path.join(runFolder, 'logs'), { recursive: true });
writeFileSync(path.join(runFolder, 'secrets.txt'), '');
process.env['LOADER_TEST_RUN_FOLDER'] = runFolder;

const interrupt = new AbortController();
process.on('SIGINT', () => {
  interrupt.abort();
  void stopServices().finally(() => process.exit(130));
});

console.log('Starting the services of the tests ...');
const s3Start = startS3();
// Where both must be installed, one after the other: two runs of apt at once get in each other's way.
const dockerStart = isInstalled('dockerd') ? startDocker() : s3Start.then(startDocker);
await Promise.all([s3Start, dockerStart]);

try {
  const patterns = process.argv.slice(2);
  const files = (await Array.fromAsync(glob('test/{unit,integration,docs}/**/*.test.ts')))
    .filter((file) => patterns.length === 0 || patterns.some((pattern) => file.includes(pattern)))
    .sort();
  const passed = await runFiles(files, 2);
  // It looks at what all the others left behind.
  // With patterns, there may be no logs to look at.
  const passedLast = patterns.length > 0 || (await runFiles(await Array.fromAsync(glob('test/last/*.test.ts')), 1));
  process.exitCode = passed && passedLast ? 0 : 1;
} finally {
  await stopServices();
}

async function runFiles(files: string[], concurrency: number): Promise<boolean> {
  let passed = true;
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
  for await (const text of stream.compose(spec)) process.stdout.write(text as string);
  return passed;
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

/** Never the engine of the machine: the tests kill theirs, and remove its images. */
async function startDocker(): Promise<void> {
  await stopAllDockerds(); // A run that was killed may have left images behind.
  try {
    process.env['LOADER_TEST_DOCKER_HOST'] = (await startDockerd()).host;
  } catch (error) {
    process.env['LOADER_TEST_DOCKER_SKIP'] = announce(`the Docker engine could not be started: ${lastLine(error)}`);
  }
}

function announce(reason: string): string {
  console.log(`${reason}\nTests that need it are skipped.`);
  return reason;
}

function isInstalled(command: string): boolean {
  const folders = [...(process.env['PATH'] ?? '').split(':'), '/usr/sbin', '/usr/bin'];
  return folders.some((folder) => existsSync(path.join(folder, command)));
}

async function stopServices(): Promise<void> {
  await Promise.all([s3Start, dockerStart]); // What is just starting could not be stopped.
  await Promise.allSettled([stopRgw(), stopAllDockerds()]);
}

function lastLine(error: unknown): string {
  const text = error instanceof Error && 'stderr' in error ? String(error.stderr) : String(error);
  return text.trim().split('\n').at(-1) ?? '';
}
