import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { LoaderProcess } from '../../../lab/loader-process.ts';
import { shippedFolder, shippedMain } from '../../../lab/shipped-folder.ts';

let folder = '';

beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'loader-log-outputs-'));
});

afterEach(() => rmSync(folder, { recursive: true, force: true }));

function environment(): Record<string, string | undefined> {
  return {
    PATH: process.env['PATH'],
    PORT: '0',
    HARDWARE_ID: 'test-hardware',
    STATE_DIR: path.join(folder, 'state'),
    MODEL_CACHE_DIR: path.join(folder, 'models'),
  };
}

describe('a Loader whose outputs nothing reads', () => {
  it('goes on answering, and ends at SIGTERM', async () => {
    const logPath = path.join(folder, 'loader.log');
    const loader = await LoaderProcess.start({ env: environment(), logPath });
    try {
      loader.stopReadingLog();
      for (let i = 0; i < 1_500; i++) await (await fetch(`${loader.url}/status`)).text();
      const { status } = await fetch(`${loader.url}/health`, { signal: AbortSignal.timeout(2_000) });
      assert.equal(status, 200);
      assert.equal(await loader.stop('SIGTERM', 10_000), 0);
    } finally {
      loader.kill();
    }
  });
});

describe('a LOG_FILE that is no file', () => {
  it('is refused at the start, in a sentence', { timeout: 20_000 }, async () => {
    const LOG_FILE = path.join(folder, 'fifo');
    execFileSync('mkfifo', [LOG_FILE]);
    const run = spawnSync(process.execPath, [shippedMain(await shippedFolder())], {
      env: { ...environment(), LOG_FILE },
      encoding: 'utf8',
      timeout: 10_000,
    });
    assert.equal(run.status, 1);
    assert.match(run.stderr, /could not start: .*LOG_FILE \(.*fifo\) can't be written: it is no regular file/);
  });
});
