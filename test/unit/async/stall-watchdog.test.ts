import assert from 'node:assert/strict';
import { PassThrough, Readable } from 'node:stream';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { QueuedBytes } from '../../../src/async/queued-bytes.ts';
import { watchForStalls } from '../../../src/async/stall-watchdog.ts';
import { abortReason } from '../../../src/async/abort.ts';

const options = (timeoutMs: number, signal = new AbortController().signal) => ({
  timeoutMs,
  stalled: () => new Error(`nothing for ${timeoutMs} ms`),
  signal,
});

describe('watchForStalls', () => {
  it('yields what comes, and destroys the source at its end', async () => {
    const source = Readable.from([Buffer.from('one'), Buffer.from('two')]);
    const chunks = await Array.fromAsync(watchForStalls(source, options(1000)));
    assert.equal(Buffer.concat(chunks).toString(), 'onetwo');
    assert.ok(source.destroyed);
  });

  it('fails when nothing comes at all', async () => {
    const source = new PassThrough();
    const begin = performance.now();
    await assert.rejects(Array.fromAsync(watchForStalls(source, options(50))), /nothing for 50 ms/);
    const elapsedMs = performance.now() - begin;
    assert.ok(elapsedMs >= 45 && elapsedMs < 2000, `${elapsedMs} ms`);
    assert.ok(source.destroyed);
  });

  it('fails when nothing more comes after some chunks, which it has yielded', async () => {
    const source = new PassThrough();
    source.write('some');
    const chunks: Buffer[] = [];
    await assert.rejects(async () => {
      for await (const chunk of watchForStalls(source, options(50))) chunks.push(chunk);
    }, /nothing for 50 ms/);
    assert.equal(Buffer.concat(chunks).toString(), 'some');
    assert.ok(source.destroyed);
  });

  it('destroys the source when its signal aborts, also while the consumer is busy', async () => {
    const source = new PassThrough();
    source.write('some');
    const abort = new AbortController();
    const chunks = watchForStalls(source, options(1000, abort.signal));
    await chunks.next();
    const reason = new Error('no longer wanted');
    abort.abort(reason);
    assert.ok(source.destroyed);
    await assert.rejects(chunks.next(), reason);
  });

  it('is patient with a source that is slow, but never silent for as long as the timeout', async () => {
    async function* trickle(): AsyncGenerator<Buffer> {
      for (let index = 0; index < 6; index++) {
        await sleep(50);
        yield Buffer.from('x');
      }
    }
    const chunks = await Array.fromAsync(watchForStalls(Readable.from(trickle()), options(200)));
    assert.equal(chunks.length, 6);
  });

  it('takes no busy consumer for a stall', async () => {
    const source = new PassThrough({ highWaterMark: 1, readableHighWaterMark: 1 });
    source.write('one');
    let text = '';
    for await (const chunk of watchForStalls(source, options(40))) {
      text += chunk.toString();
      await sleep(150);
      if (text === 'one') source.write('two');
      else source.end();
    }
    assert.equal(text, 'onetwo');
  });

  it('notices a stall after the consumer was busy for longer than the timeout', async () => {
    const source = new PassThrough();
    source.write('one');
    await assert.rejects(async () => {
      for await (const chunk of watchForStalls(source, options(40))) {
        assert.equal(chunk.toString(), 'one');
        await sleep(120);
      }
    }, /nothing for 40 ms/);
  });

  it('fails with the reason of its signal when that aborts while it waits', async () => {
    const abort = new AbortController();
    const source = new PassThrough();
    setTimeout(() => abort.abort(new Error('the client has left')), 20);
    await assert.rejects(Array.fromAsync(watchForStalls(source, options(5000, abort.signal))), /the client has left/);
    assert.ok(source.destroyed);
  });

  it('fails with the reason of a signal that has aborted before', async () => {
    const source = new PassThrough();
    source.write('never seen');
    const signal = AbortSignal.abort(new Error('the client has left'));
    await assert.rejects(Array.fromAsync(watchForStalls(source, options(5000, signal))), /the client has left/);
    assert.ok(source.destroyed);
  });

  it('fails with the failure of the source', async () => {
    const source = new PassThrough();
    setImmediate(() => source.destroy(new Error('connection reset')));
    await assert.rejects(Array.fromAsync(watchForStalls(source, options(5000))), /connection reset/);
  });

  it('destroys the source when its consumer leaves early', async () => {
    const source = new PassThrough();
    source.write('one');
    for await (const chunk of watchForStalls(source, options(5000))) {
      if (chunk.length > 0) break;
    }
    assert.ok(source.destroyed);
  });

  it('destroys the source when its consumer fails, and passes that failure on', async () => {
    const source = new PassThrough();
    source.write('one');
    await assert.rejects(async () => {
      for await (const chunk of watchForStalls(source, options(5000))) throw new Error(`${chunk.length} are too many`);
    }, /3 are too many/);
    assert.ok(source.destroyed);
  });

  it('queues 256 KiB while its consumer is busy, and one chunk where many are queued', async () => {
    using others = new QueuedBytes();
    assert.equal(await takenWhileBusy(), 6);
    others.add(8 * 1024 * 1024);
    assert.equal(await takenWhileBusy(), 2);
  });

  it('leaves neither timer nor listener behind', async (t) => {
    const abort = new AbortController();
    const remove = t.mock.method(abort.signal, 'removeEventListener');
    const clear = t.mock.method(globalThis, 'clearTimeout');
    await Array.fromAsync(watchForStalls(Readable.from([Buffer.from('x')]), options(60_000, abort.signal)));
    assert.equal(remove.mock.callCount(), 1);
    assert.equal(clear.mock.callCount(), 1);
  });
});

/** The number of chunks of 64 KiB that a source was asked for while the consumer works on the first; it keeps one itself. */
async function takenWhileBusy(): Promise<number> {
  let made = 0;
  const read = function (this: Readable) {
    made++;
    setImmediate(() => this.push(Buffer.alloc(64 * 1024)));
  };
  const chunks = watchForStalls(new Readable({ highWaterMark: 1, read }), options(5000));
  await chunks.next();
  await sleep(50);
  await chunks.return();
  return made;
}

describe('abortReason', () => {
  it('is the reason where it is an error, and an error that carries it where it is none', () => {
    const reason = new Error('x');
    assert.equal(abortReason(AbortSignal.abort(reason)), reason);
    assert.equal(abortReason(AbortSignal.abort('text')).cause, 'text');
    assert.ok(abortReason(AbortSignal.abort()) instanceof Error);
  });
});

describe('a source that had ended before it was watched', () => {
  const options = { timeoutMs: 5000, stalled: () => new Error('stalled'), signal: new AbortController().signal };

  it('is told at once when it was destroyed', async () => {
    const source = new Readable({ read: () => undefined });
    source.on('error', () => undefined);
    source.destroy(new Error('broken before'));
    await new Promise((resolve) => source.once('close', resolve));
    await assert.rejects(Array.fromAsync(watchForStalls(source, options)), /broken before/);
  });
});
