import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, it } from 'node:test';
import { createLogger } from '../../src/logger.ts';
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
