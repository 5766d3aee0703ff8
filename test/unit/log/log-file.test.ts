import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, renameSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { isNoFileOfItsOwn, LogFile } from '../../../src/log/log-file.ts';

let folder = '';
let filePath = '';

beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'loader-log-file-'));
  filePath = path.join(folder, 'logs/loader.log');
});

afterEach(() => rmSync(folder, { recursive: true, force: true }));

async function write(file: LogFile, text: string): Promise<void> {
  assert.equal(await file.write(Buffer.from(text)), text.length);
}

describe('the log file', () => {
  it('is made with its folders, and only its owner can read it', async () => {
    await using file = new LogFile(filePath);
    await file.open();
    await write(file, 'first\n');
    assert.equal(readFileSync(filePath, 'utf8'), 'first\n');
    assert.equal(statSync(filePath).mode & 0o777, 0o600);
  });

  it('is made by the first line where it could not be made before', async () => {
    writeFileSync(path.join(folder, 'logs'), '');
    await using file = new LogFile(filePath);
    await assert.rejects(file.open(), /ENOTDIR/);
    rmSync(path.join(folder, 'logs'));
    await write(file, 'first\n');
    assert.equal(readFileSync(filePath, 'utf8'), 'first\n');
  });

  it('is appended to', async () => {
    for (const line of ['first\n', 'second\n']) {
      await using file = new LogFile(filePath);
      await write(file, line);
    }
    assert.equal(readFileSync(filePath, 'utf8'), 'first\nsecond\n');
  });

  it('is made anew under its name after it was renamed', async () => {
    await using file = new LogFile(filePath);
    await write(file, 'first\n');
    renameSync(filePath, `${filePath}.1`);
    await write(file, 'second\n');
    await file.reopen();
    await write(file, 'third\n');
    assert.equal(readFileSync(`${filePath}.1`, 'utf8'), 'first\nsecond\n');
    assert.equal(readFileSync(filePath, 'utf8'), 'third\n');
    assert.equal(statSync(filePath).mode & 0o777, 0o600);
  });

  it('goes on in the old file when it can not be opened anew', async () => {
    await using file = new LogFile(filePath);
    await write(file, 'first\n');
    renameSync(path.dirname(filePath), path.join(folder, 'moved'));
    writeFileSync(path.dirname(filePath), '');
    await assert.rejects(file.reopen(), /^Error: LOG_FILE \(.*loader\.log\) can't be written: ENOTDIR$/);
    await write(file, 'second\n');
    assert.equal(readFileSync(path.join(folder, 'moved/loader.log'), 'utf8'), 'first\nsecond\n');
  });

  it(
    'is refused when it is a FIFO, a device or a folder, instead of waiting for a reader',
    { timeout: 5_000 },
    async () => {
      const fifo = path.join(folder, 'fifo');
      execFileSync('mkfifo', [fifo]);
      for (const name of [fifo, '/dev/full']) {
        await assert.rejects(new LogFile(name).open(), {
          message: `LOG_FILE (${name}) can't be written: it is no regular file`,
        });
      }
      await assert.rejects(new LogFile(folder).open(), /EISDIR/);
    },
  );

  it(
    'is refused in a folder in which nothing can be made, instead of trying for ever',
    { timeout: 5_000 },
    async () => {
      await assert.rejects(new LogFile('/proc/none/loader.log').open(), /LOG_FILE \(\/proc\/none\/loader\.log\)/);
    },
  );
});

describe('a name that needs no file of its own', () => {
  it('is that of /dev/null, or of what stdout is', async () => {
    assert.equal(await isNoFileOfItsOwn('/dev/null'), true);
    assert.equal(await isNoFileOfItsOwn('/dev/stdout'), true);
    symlinkSync('/proc/self/fd/1', path.join(folder, 'link'));
    assert.equal(await isNoFileOfItsOwn(path.join(folder, 'link')), true);
  });

  it('is no other one', async () => {
    writeFileSync(path.join(folder, 'file'), '');
    for (const name of [path.join(folder, 'file'), filePath, '/dev/full']) {
      assert.equal(await isNoFileOfItsOwn(name), false, name);
    }
  });
});
