import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it, type TestContext } from 'node:test';
import { LogFile } from '../../../src/log/log-file.ts';

let folder = '';
let filePath = '';

beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'loader-log-file-'));
  filePath = path.join(folder, 'logs/loader.log');
});

afterEach(() => rmSync(folder, { recursive: true, force: true }));

function watchStderr(t: TestContext): string[] {
  const lines: string[] = [];
  t.mock.method(process.stderr, 'write', (text: string) => lines.push(text));
  return lines;
}

describe('the log file', () => {
  it('is made with its folders, and only its owner can read it', () => {
    new LogFile(filePath).write('first\n');
    assert.equal(readFileSync(filePath, 'utf8'), 'first\n');
    assert.equal(statSync(filePath).mode & 0o777, 0o600);
  });

  it('is appended to', () => {
    new LogFile(filePath).write('first\n');
    new LogFile(filePath).write('second\n');
    assert.equal(readFileSync(filePath, 'utf8'), 'first\nsecond\n');
  });

  it('is made anew under its name after it was renamed', () => {
    const file = new LogFile(filePath);
    file.write('first\n');
    renameSync(filePath, `${filePath}.1`);
    file.write('second\n');
    file.reopen();
    file.write('third\n');
    assert.equal(readFileSync(`${filePath}.1`, 'utf8'), 'first\nsecond\n');
    assert.equal(readFileSync(filePath, 'utf8'), 'third\n');
    assert.equal(statSync(filePath).mode & 0o777, 0o600);
  });

  it('goes on in the old file when it can not be opened anew', (t) => {
    const errors = watchStderr(t);
    const file = new LogFile(filePath);
    renameSync(path.dirname(filePath), path.join(folder, 'moved'));
    file.reopen();
    file.write('first\n');
    assert.equal(readFileSync(path.join(folder, 'moved/loader.log'), 'utf8'), 'first\n');
    assert.match(errors.join(), /^LOG_FILE can't be opened anew.*ENOENT/);
  });

  it('tells once that it can not be written, and again after it could', (t) => {
    const errors = watchStderr(t);
    const file = new LogFile('/dev/full');
    file.write('first\n');
    file.write('second\n');
    assert.equal(errors.length, 1);
    assert.match(errors.join(), /^LOG_FILE can't be written: ENOSPC/);
  });

  it('that can not be opened at the start throws', () => {
    writeFileSync(path.join(folder, 'logs'), '');
    assert.throws(() => new LogFile(filePath), { code: 'EEXIST' });
  });
});
