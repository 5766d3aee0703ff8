import assert from 'node:assert/strict';
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it, mock } from 'node:test';
import { ChangingFile } from '../../../src/files/changing-file.ts';

let folder: string;
let file: string;
let changes: string[];
let failures: string[];
let nowMs: number;

beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'changing-file-'));
  file = path.join(folder, 'key');
  writeFileSync(file, 'first\n');
  changes = [];
  failures = [];
  nowMs = 1_000_000;
  mock.method(performance, 'now', () => nowMs);
});
afterEach(() => {
  mock.restoreAll();
  rmSync(folder, { recursive: true });
});

/** Its file holds one word. */
function changingFile(filePath: string | undefined = file): ChangingFile<string> {
  return new ChangingFile({
    path: filePath,
    initial: 'first',
    parse: (text) => /^\w+$/.exec(text.trim())?.[0],
    onChange: (value) => changes.push(value),
    onFailure: (reason) => failures.push(reason),
  });
}

/** The value after the file has been `text` for a while. */
async function valueAfter(changing: ChangingFile<string>, text: string): Promise<string> {
  writeFileSync(file, text);
  nowMs += 2_000;
  return await changing.value();
}

describe('a file that may change', () => {
  it('gives what it holds now, and tells each change once', async () => {
    const changing = changingFile();
    assert.equal(await changing.value(), 'first');
    assert.deepEqual(changes, []);
    assert.equal(await valueAfter(changing, 'second'), 'second');
    assert.equal(await valueAfter(changing, 'second'), 'second');
    assert.equal(changing.latest, 'second');
    assert.deepEqual(changes, ['second']);
  });

  it('is looked at every two seconds at most', async () => {
    const changing = changingFile();
    await changing.value();
    writeFileSync(file, 'second');
    nowMs += 1_999;
    assert.equal(await changing.value(), 'first');
    nowMs += 1;
    assert.equal(await changing.value(), 'second');
  });

  it('may have changed between the start and the first look', async () => {
    writeFileSync(file, 'second');
    assert.equal(await changingFile().value(), 'second');
    assert.deepEqual(changes, ['second']);
  });

  it('may be replaced by another one of that name', async () => {
    const changing = changingFile();
    await changing.value();
    const other = path.join(folder, 'other');
    writeFileSync(other, 'second');
    renameSync(other, file);
    nowMs += 2_000;
    assert.equal(await changing.value(), 'second');
  });

  it('keeps its value while it makes no sense or is gone, which is told once, and goes on after that', async () => {
    const changing = changingFile();
    assert.equal(await valueAfter(changing, 'two words'), 'first');
    assert.equal(await valueAfter(changing, 'two words'), 'first');
    rmSync(file);
    nowMs += 2_000;
    assert.equal(await changing.value(), 'first');
    assert.deepEqual(failures, ['makes no sense', "can't be read (ENOENT)"]);
    assert.equal(await valueAfter(changing, 'second'), 'second');
    assert.equal(await valueAfter(changing, 'two words'), 'second');
    assert.deepEqual(failures, ['makes no sense', "can't be read (ENOENT)", 'makes no sense']);
  });

  it('is none where the value stands in the environment', async () => {
    const changing = new ChangingFile({
      path: undefined,
      initial: 'first',
      parse: () => assert.fail('nothing is read'),
      onChange: () => assert.fail('nothing changes'),
      onFailure: () => assert.fail('nothing fails'),
    });
    assert.equal(await changing.value(), 'first');
  });
});
