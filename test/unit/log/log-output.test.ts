import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, it } from 'node:test';
import { LogOutput, type LogTarget } from '../../../src/log/log-output.ts';

const LINE = `${'x'.repeat(1023)}\n`;
const MIB = 1_048_576;

/** A target whose next writes do what a test says: take some bytes, or fail with a code. */
class ScriptedTarget implements LogTarget {
  readonly name = 'target';
  readonly takes: number;
  readonly isLate: boolean;
  /** Fails with this code while it is set. */
  fault: string | undefined;
  text = '';

  constructor({ takes = Infinity, isLate = false }: { takes?: number; isLate?: boolean } = {}) {
    this.takes = takes;
    this.isLate = isLate;
  }

  write(bytes: Buffer): number | Promise<number> {
    return this.isLate ? sleep(1).then(() => this.#write(bytes)) : this.#write(bytes);
  }

  #write(bytes: Buffer): number {
    if (this.fault !== undefined) throw Object.assign(new Error('of the system'), { code: this.fault });
    const taken = bytes.subarray(0, this.takes);
    this.text += taken.toString();
    return taken.length;
  }
}

function makeOutput(options: ConstructorParameters<typeof ScriptedTarget>[0] = {}) {
  const target = new ScriptedTarget(options);
  const losses: string[] = [];
  return { target, losses, output: new LogOutput(target, (reason) => losses.push(reason)) };
}

/** The counts of lost lines that were told. */
function toldIn(text: string): number[] {
  return [...text.matchAll(/"lostLines":(\d+)/g)].map((match) => Number(match[1]));
}

describe('a line', () => {
  it('is written before the call returns, where the target can take it', () => {
    const { target, output } = makeOutput();
    output.write('first\n');
    assert.equal(target.text, 'first\n');
    output.write('second\n');
    assert.equal(target.text, 'first\nsecond\n');
  });

  it('waits while the target is busy, and goes out in its order', async () => {
    const { target, output, losses } = makeOutput();
    target.fault = 'EAGAIN';
    for (const line of ['first\n', 'second\n']) output.write(line);
    await sleep(20);
    target.fault = undefined;
    output.write('third\n');
    await output.flush(1_000);
    assert.equal(target.text, 'first\nsecond\nthird\n');
    assert.deepEqual(losses, []);
  });

  it('goes out whole through a target that takes a few bytes at a time, at once or later', async () => {
    for (const isLate of [false, true]) {
      const { target, output } = makeOutput({ takes: 3, isLate });
      for (const line of ['the first line\n', 'and ä second one\n']) output.write(line);
      await output.flush(1_000);
      assert.equal(target.text, 'the first line\nand ä second one\n');
    }
  });

  it('is lost when 1 MiB waits already, and the log tells how many were', async () => {
    const { target, output, losses } = makeOutput();
    target.fault = 'EAGAIN';
    for (let i = 0; i < 3000; i++) output.write(LINE);
    assert.deepEqual(losses, ['it takes lines more slowly than they come']);
    target.fault = undefined;
    await output.flush(1_000);
    const lines = target.text.split('\n').slice(0, -1);
    const [told, ...more] = toldIn(target.text);
    assert.deepEqual(more, []);
    assert.equal(lines.length - 1 + (told ?? 0), 3000);
    assert.ok(Math.abs(target.text.length - MIB) < 100_000, `${target.text.length} bytes were kept`);
    const line = JSON.parse(lines.at(-1) ?? '') as Record<string, unknown>;
    assert.deepEqual(Object.keys(line), ['level', 'time', 'lostLines', 'since', 'msg']);
  });

  it('is lost until everything that waits is written, so that the log has one gap', async () => {
    const { target, output, losses } = makeOutput({ takes: 4096, isLate: true });
    for (let i = 0; i < 1200; i++) output.write(LINE);
    await sleep(30);
    output.write('in the gap\n');
    await output.flush(5_000);
    output.write('after\n');
    await output.flush(1_000);
    assert.equal(losses.length, 1);
    assert.doesNotMatch(target.text, /in the gap/);
    assert.match(target.text, /^(x{1023}\n)+\{"level":"warn"[^\n]*\}\nafter\n$/);
  });

  it('of more than 1 MiB is lost', async () => {
    const { target, output } = makeOutput();
    output.write(`${'x'.repeat(MIB)}\n`);
    output.write('after\n');
    await output.flush(1_000);
    assert.deepEqual(toldIn(target.text), [1]);
    assert.match(target.text, /\}\nafter\n$/);
  });
});

describe('a target that fails', () => {
  it('loses what waits, is tried again, and tells how many lines are missing', async () => {
    for (const isLate of [false, true]) {
      const { target, output, losses } = makeOutput({ isLate });
      target.fault = 'ENOSPC';
      for (const line of ['first\n', 'second\n']) output.write(line);
      await sleep(20);
      output.write('third\n');
      assert.deepEqual(losses, ['ENOSPC']);
      target.fault = undefined;
      await output.flush(3_000);
      assert.deepEqual(toldIn(target.text), [3]);
      output.write('fourth\n');
      await output.flush(1_000);
      assert.match(target.text, /^\{[^\n]+\}\nfourth\n$/);
    }
  });

  it('in the middle of a line leaves that line cut, and the next one begins anew', async () => {
    const { target, output } = makeOutput({ takes: 3 });
    const write = target.write.bind(target);
    target.write = (bytes) => {
      if (target.text.length === 3) target.fault = 'ENOSPC';
      return write(bytes);
    };
    output.write('first\n');
    assert.equal(target.text, 'fir');
    target.write = write;
    target.fault = undefined;
    await output.flush(3_000);
    assert.match(target.text, /^fir\n\{"level":"warn"/);
    assert.deepEqual(toldIn(target.text), [1]);
  });
});

describe('a flush', () => {
  it('ends after its time, though the target takes nothing', async () => {
    const { target, output } = makeOutput();
    target.fault = 'EAGAIN';
    output.write('first\n');
    const startedAt = performance.now();
    await output.flush(50);
    assert.ok(performance.now() - startedAt < 500);
  });

  it('knows a write that does not end', async () => {
    const ended = Promise.withResolvers<number>();
    const output = new LogOutput({ name: 'target', write: () => ended.promise }, () => undefined);
    output.write('first\n');
    await output.flush(20);
    assert.equal(output.isWriting, true);
    ended.resolve(6);
    await output.flush(1_000);
    assert.equal(output.isWriting, false);
  });
});
