import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { describe, it } from 'node:test';
import { happens, onAbort, unlessAborted } from '../../../src/async/abort.ts';

describe('waiting unless aborted', () => {
  it('answers what is waited for, and listens no more', async () => {
    const { signal } = new AbortController();
    assert.equal(await unlessAborted(Promise.resolve('value'), signal), 'value');
    assert.equal(getEventListeners(signal, 'abort').length, 0);
  });

  it('fails as what is waited for does, and listens no more', async () => {
    const { signal } = new AbortController();
    const failure = new Error('no');
    await assert.rejects(unlessAborted(Promise.reject(failure), signal), failure);
    assert.equal(getEventListeners(signal, 'abort').length, 0);
  });

  it('ends with the reason when it is aborted, and listens no more', async () => {
    const abort = new AbortController();
    const reason = new Error('the reason');
    const waiting = unlessAborted(new Promise(() => undefined), abort.signal);
    assert.equal(getEventListeners(abort.signal, 'abort').length, 1);
    abort.abort(reason);
    await assert.rejects(waiting, reason);
    assert.equal(getEventListeners(abort.signal, 'abort').length, 0);
  });

  it('ends with an Error also when the reason is none', async () => {
    const abort = new AbortController();
    const waiting = unlessAborted(new Promise(() => undefined), abort.signal);
    abort.abort('text');
    await assert.rejects(waiting, { message: 'aborted', cause: 'text' });
  });

  it('does not begin when it is aborted already', async () => {
    const reason = new Error('the reason');
    await assert.rejects(unlessAborted(Promise.resolve('value'), AbortSignal.abort(reason)), reason);
  });

  it('has the first of the two: what comes later harms nobody', async () => {
    const abort = new AbortController();
    const { promise, reject } = Promise.withResolvers<never>();
    const waiting = unlessAborted(promise, abort.signal);
    abort.abort(new Error('the reason'));
    await assert.rejects(waiting, /the reason/);
    reject(new Error('late')); // Would end the process, if nobody took it.
    await nextTurn();
    const late = new AbortController();
    assert.equal(await unlessAborted(Promise.resolve(1), late.signal), 1);
    late.abort();
    await nextTurn();
  });
});

describe('waiting for a change', () => {
  it('tells whether it came, and listens no more', async () => {
    const abort = new AbortController();
    assert.equal(await happens(Promise.resolve(false), abort.signal), true);
    const waiting = happens(new Promise(() => undefined), abort.signal);
    assert.equal(getEventListeners(abort.signal, 'abort').length, 1);
    abort.abort();
    assert.equal(await waiting, false);
    assert.equal(getEventListeners(abort.signal, 'abort').length, 0);
    assert.equal(await happens(Promise.resolve(1), abort.signal), false);
  });

  it('fails as that does', async () => {
    const failure = new Error('no');
    await assert.rejects(happens(Promise.reject(failure), new AbortController().signal), failure);
  });
});

describe('listening to an abort', () => {
  it('calls the listener once, with the reason as an Error', () => {
    const abort = new AbortController();
    const heard: Error[] = [];
    using _listener = onAbort(abort.signal, (reason) => heard.push(reason));
    assert.equal(heard.length, 0);
    abort.abort('text');
    abort.abort(new Error('again'));
    assert.equal(heard.length, 1);
    assert.equal(heard[0]?.cause, 'text');
  });

  it('calls the listener at once when the signal has aborted already', () => {
    const reason = new Error('the reason');
    const heard: Error[] = [];
    using _listener = onAbort(AbortSignal.abort(reason), (error) => heard.push(error));
    assert.deepEqual(heard, [reason]);
  });

  it('ends with the disposal, and leaves no listener', () => {
    const abort = new AbortController();
    {
      using _listener = onAbort(abort.signal, () => assert.fail('it listens no more'));
      assert.equal(getEventListeners(abort.signal, 'abort').length, 1);
    }
    assert.equal(getEventListeners(abort.signal, 'abort').length, 0);
    abort.abort();
  });
});
