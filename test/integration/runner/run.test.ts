import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { findProcesses } from '../../../lab/proc.ts';
import { S3_SKIP } from '../../../lab/test-environment.ts';
import { eventually } from '../../../lab/waiting.ts';
import { FolderLock } from '../../../src/files/folder-lock.ts';

const ROOT = path.resolve(import.meta.dirname, '../../..');
/** For a start of Ceph on a busy machine, and the end of all after a signal. */
const WAIT_MS = 90_000;

/** Of services that belong to the inner run alone. */
let folder = '';

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-run-'));
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

/** Runs test/run.ts inside of this run, with services of its own. */
class InnerRun {
  text = '';
  readonly #child;
  readonly #closed: Promise<unknown[]>;

  constructor(...patterns: string[]) {
    const inherited = Object.entries(process.env).filter(
      ([name]) => name === 'LOADER_TEST_SHIPPED_FOLDER' || !/^(LOADER_TEST_|NODE_TEST_)/.test(name),
    );
    this.#child = spawn(process.execPath, ['test/run.ts', ...patterns], {
      cwd: ROOT,
      env: { ...Object.fromEntries(inherited), LOADER_TEST_SERVICES_FOLDER: folder, TMPDIR: folder },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#closed = once(this.#child, 'close', { signal: AbortSignal.timeout(2 * WAIT_MS) });
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream.on('data', (data: Buffer) => (this.text += data.toString()));
    }
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Lets it stop what it has started when a test of it fails. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.signal('SIGTERM');
    await this.#closed;
  }

  async ended(): Promise<unknown> {
    const [code] = await this.#closed;
    return code;
  }
}

function commandOf(pid: number): string {
  return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
}

/** Waits for a Loader: the test file then uses the S3 server. */
async function untilLoaderRuns(run: InnerRun): Promise<void> {
  const isRunning = () => findProcesses(`STATE_DIR=${folder}`).length > 0;
  await eventually(isRunning, { timeoutMs: WAIT_MS, pollMs: 20, what: `a Loader after ${run.text}` });
}

describe('test/run.ts', () => {
  it('fails when no test file matches', async () => {
    await using run = new InnerRun('no-such-test');
    assert.equal(await run.ended(), 1);
    assert.match(run.text, /No test file has no-such-test in its path/);
  });

  it('starts no service for unit tests', async () => {
    await using run = new InnerRun('unit/errors.test');
    assert.equal(await run.ended(), 0, run.text);
    assert.doesNotMatch(run.text, /Starting|Building/);
  });

  it('refuses to run beside another run in the same checkout, and takes nothing from it', async () => {
    using _other = await FolderLock.take(folder, 'run.lock');
    const log = path.join(folder, 'run', 'of-the-other.log');
    await mkdir(path.dirname(log));
    await writeFile(log, 'x');
    await using run = new InnerRun('unit/errors.test');
    assert.equal(await run.ended(), 1, run.text);
    assert.match(run.text, /Tests are running in this checkout already/);
    assert.equal(readFileSync(log, 'utf8'), 'x');
  });

  for (const [signal, code] of [
    ['SIGTERM', 143],
    ['SIGINT', 130],
  ] as const) {
    it(`leaves nothing running after ${signal}`, { skip: S3_SKIP }, async () => {
      await using run = new InnerRun('integration/load/round-trip');
      await untilLoaderRuns(run);
      assert.notEqual(findProcesses(`LOADER_TEST_SERVICES_FOLDER=${folder}`).length, 0);
      run.signal(signal);
      assert.equal(await run.ended(), code, run.text);
      await eventually(() => findProcesses(folder).length === 0).catch(() => undefined); // A killed one ends in moments.
      assert.deepEqual(findProcesses(folder).map(commandOf), []);
    });
  }
});
