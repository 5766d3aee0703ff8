import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, it } from 'node:test';
import { LoaderError } from '../../src/errors.ts';
import { createLogger } from '../../src/log/logger.ts';
import { Shutdown, type ShutdownPhase } from '../../src/shutdown.ts';

const logger = createLogger({ level: 'silent' });

function makeShutdown(phases: readonly ShutdownPhase[], timeoutMs = 60_000) {
  const exitCodes: number[] = [];
  const exited = Promise.withResolvers<number>();
  const shutdown = new Shutdown(phases, {
    logger,
    timeoutMs,
    exit: (code) => {
      exitCodes.push(code);
      exited.resolve(code);
    },
  });
  return { shutdown, exitCodes, exited: exited.promise };
}

describe('stopping', () => {
  it('runs the phases one after the other, in their order, and then exits with 0', async () => {
    const events: string[] = [];
    const phases = ['requests', 'connections', 'files'].map((name) => ({
      name,
      run: async () => {
        events.push(`${name} begins`);
        await sleep(5);
        events.push(`${name} ends`);
      },
    }));
    const { shutdown, exitCodes } = makeShutdown(phases);
    const stopped = shutdown.stop('SIGTERM');
    assert.deepEqual(exitCodes, []);
    await stopped;
    assert.deepEqual(events, [
      'requests begins',
      'requests ends',
      'connections begins',
      'connections ends',
      'files begins',
      'files ends',
    ]);
    assert.deepEqual(exitCodes, [0]);
  });

  it('exits with 0 when there is nothing to do', async () => {
    const { shutdown, exitCodes } = makeShutdown([]);
    await shutdown.stop('SIGTERM');
    assert.deepEqual(exitCodes, [0]);
  });

  it('goes on after a phase that failed, and exits with 1', async () => {
    const ran: string[] = [];
    const { shutdown, exitCodes } = makeShutdown([
      { name: 'rejects', run: () => Promise.reject(new Error('x')) },
      {
        name: 'throws',
        run: () => {
          throw new Error('y');
        },
      },
      {
        name: 'last',
        run: () => {
          ran.push('last');
          return Promise.resolve();
        },
      },
    ]);
    await shutdown.stop('SIGTERM');
    assert.deepEqual(ran, ['last']);
    assert.deepEqual(exitCodes, [1]);
  });

  it('exits at once with 1 when it is asked for a second time, and runs no phase twice', async () => {
    let runs = 0;
    const gate = Promise.withResolvers<undefined>();
    const { shutdown, exitCodes } = makeShutdown([
      {
        name: 'slow',
        run: async () => {
          runs++;
          await gate.promise;
        },
      },
    ]);
    const first = shutdown.stop('SIGTERM');
    await shutdown.stop('SIGINT');
    assert.deepEqual(exitCodes, [1]);
    gate.resolve(undefined);
    await first;
    assert.equal(runs, 1);
  });

  it('tells a phase by its signal that the time is over, and ends when that one ends', async () => {
    let aborted = false;
    const { shutdown, exitCodes } = makeShutdown(
      [
        {
          name: 'waits',
          run: async (deadline) => {
            assert.ok(!deadline.aborted);
            const { promise, resolve } = Promise.withResolvers<undefined>();
            deadline.addEventListener('abort', () => resolve(undefined));
            await promise;
            aborted = deadline.aborted;
          },
        },
      ],
      30,
    );
    // The deadline's own timer does not keep a process alive, as a server's socket would.
    const alive = setTimeout(() => undefined, 5000);
    await shutdown.stop('SIGTERM');
    clearTimeout(alive);
    assert.ok(aborted);
    assert.deepEqual(exitCodes, [0]);
  });

  it('gives all phases one deadline together', async () => {
    const signals: AbortSignal[] = [];
    const run = (deadline: AbortSignal) => {
      signals.push(deadline);
      return Promise.resolve();
    };
    const { shutdown } = makeShutdown([
      { name: 'first', run },
      { name: 'second', run },
    ]);
    await shutdown.stop('SIGTERM');
    assert.equal(signals.length, 2);
    assert.equal(signals[0], signals[1]);
  });

  it('exits with 1 a moment after its time, when a phase does not hear the signal', async () => {
    const { shutdown, exited } = makeShutdown([{ name: 'deaf', run: () => new Promise(() => undefined) }], 20);
    const begin = performance.now();
    void shutdown.stop('SIGTERM');
    assert.equal(await exited, 1);
    const elapsedMs = performance.now() - begin;
    assert.ok(elapsedMs >= 1000 && elapsedMs < 4000, `${elapsedMs} ms`);
  });

  it('leaves no timer behind that would exit again', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const { shutdown, exitCodes } = makeShutdown([], 20);
    await shutdown.stop('SIGTERM');
    t.mock.timers.tick(60_000);
    assert.deepEqual(exitCodes, [0]);
  });
});

describe('stopping after a fault', () => {
  it('runs the phases and exits with 1', async () => {
    const ran: string[] = [];
    const { shutdown, exitCodes } = makeShutdown([
      {
        name: 'phase',
        run: () => {
          ran.push('phase');
          return Promise.resolve();
        },
      },
    ]);
    await shutdown.stopAfterFault(new Error('x'), 'An exception was not caught');
    assert.deepEqual(ran, ['phase']);
    assert.deepEqual(exitCodes, [1]);
  });

  it('logs the fault once, as fatal, with its code', async (t) => {
    const fatal = t.mock.method(logger, 'fatal', () => undefined);
    const error = new LoaderError('cdn_error', 'x');
    await makeShutdown([]).shutdown.stopAfterFault(error, 'not caught');
    await makeShutdown([]).shutdown.stopAfterFault('text', 'not caught');
    assert.deepEqual(
      fatal.mock.calls.map((call) => call.arguments as unknown),
      [
        [{ err: error, code: 'cdn_error' }, 'not caught'],
        [{ err: 'text', code: 'internal_error' }, 'not caught'],
      ],
    );
  });

  it('ends within its time, also when a phase does not hear the signal', async () => {
    const aborted: number[] = [];
    const begin = performance.now();
    const deaf = (deadline: AbortSignal) => {
      deadline.addEventListener('abort', () => aborted.push(performance.now() - begin));
      return new Promise<void>(() => undefined);
    };
    const { shutdown, exited } = makeShutdown([{ name: 'deaf', run: deaf }], 200);
    void shutdown.stopAfterFault(new Error('x'), 'not caught');
    assert.equal(await exited, 1);
    const elapsedMs = performance.now() - begin;
    assert.ok(elapsedMs >= 199 && elapsedMs < 900, `${elapsedMs} ms`);
    // The phase had been told before.
    assert.ok((aborted[0] ?? Infinity) < elapsedMs);
  });

  it('runs no phase twice when faults follow on each other, and logs each', async (t) => {
    const fatal = t.mock.method(logger, 'fatal', () => undefined);
    let runs = 0;
    const gate = Promise.withResolvers<undefined>();
    const run = async () => {
      runs++;
      await gate.promise;
    };
    const { shutdown, exitCodes } = makeShutdown([{ name: 'slow', run }]);
    const first = shutdown.stopAfterFault(new Error('x'), 'not caught');
    await shutdown.stopAfterFault(new Error('y'), 'not caught');
    assert.deepEqual(exitCodes, []);
    gate.resolve(undefined);
    await first;
    assert.deepEqual([runs, exitCodes, fatal.mock.callCount()], [1, [1], 2]);
  });

  it('makes the exit code 1 when the fault comes while a signal stops the process', async () => {
    const gate = Promise.withResolvers<undefined>();
    const { shutdown, exitCodes } = makeShutdown([
      {
        name: 'slow',
        run: async () => {
          await gate.promise;
        },
      },
    ]);
    const stopped = shutdown.stop('SIGTERM');
    await shutdown.stopAfterFault(new Error('x'), 'not caught');
    gate.resolve(undefined);
    await stopped;
    assert.deepEqual(exitCodes, [1]);
  });

  it('is cut short by a signal', async () => {
    const deaf = { name: 'deaf', run: () => new Promise<void>(() => undefined) };
    const { shutdown, exitCodes } = makeShutdown([deaf], 1_000);
    void shutdown.stopAfterFault(new Error('x'), 'not caught');
    await shutdown.stop('SIGTERM');
    assert.deepEqual(exitCodes, [1]);
  });
});
