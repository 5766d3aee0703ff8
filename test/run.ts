import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { glob } from 'node:fs/promises';
import path from 'node:path';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';
import { startRgw, stopRgw, SERVICES_FOLDER } from './support/services.ts';

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

process.on('SIGINT', () => void stopServices().finally(() => process.exit(130)));

console.log('Starting the services of the tests ...');
try {
  const s3 = await startRgw();
  process.env['LOADER_TEST_S3_ENDPOINT'] = s3.endpoint;
  process.env['LOADER_TEST_S3_KEY'] = s3.accessKey;
  process.env['LOADER_TEST_S3_SECRET'] = s3.accessSecret;
} catch (error) {
  const reason = `the Ceph RADOS Gateway could not be started: ${lastLine(error)}`;
  console.log(`${reason}\nTests that need it are skipped.`);
  process.env['LOADER_TEST_S3_SKIP'] = reason;
}

try {
  const patterns = process.argv.slice(2);
  const files = (await Array.fromAsync(glob('test/{unit,integration}/**/*.test.ts')))
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
  const stream = run({ files, concurrency, timeout: FILE_TIMEOUT_MS });
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

async function stopServices(): Promise<void> {
  await stopRgw().catch(() => undefined);
}

function lastLine(error: unknown): string {
  const text = error instanceof Error && 'stderr' in error ? String(error.stderr) : String(error);
  return text.trim().split('\n').at(-1) ?? '';
}
