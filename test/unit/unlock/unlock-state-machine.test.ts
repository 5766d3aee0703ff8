import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { LoaderError } from '../../../src/errors.ts';
import { UnlockStateMachine, type UnlockClaim, type UnlockState } from '../../../src/unlock/unlock-state-machine.ts';

const FAILURE = new LoaderError('archive_invalid', 'The image archive is broken.');
const STATES = [
  'idle',
  'authenticating',
  'downloading_key',
  'decrypting',
  'loading_images',
  'ready',
  'error',
] as const satisfies readonly UnlockState[];

/** Which states may follow which. */
const FOLLOWING: Readonly<Record<UnlockState, readonly UnlockState[]>> = {
  idle: ['authenticating', 'ready'],
  authenticating: ['downloading_key', 'ready', 'error'],
  downloading_key: ['decrypting', 'error'],
  decrypting: ['loading_images', 'ready', 'error'],
  loading_images: ['ready', 'error'],
  ready: ['authenticating'],
  error: ['authenticating', 'ready'],
};

/** A machine in `state`, and the run that brought it there, if one did. */
function machineIn(state: UnlockState): { machine: UnlockStateMachine; run: UnlockClaim | undefined } {
  const machine = new UnlockStateMachine();
  if (state === 'idle') return { machine, run: undefined };
  const run = machine.claim();
  assert.ok(run);
  if (state === 'error') run.fail(FAILURE);
  for (const step of ['downloading_key', 'decrypting', 'loading_images', 'ready'] as const) {
    if (machine.state === state) break;
    run.advance(step);
  }
  assert.equal(machine.state, state);
  return { machine, run };
}

/** Tries to bring the machine to `to` in the one way that there is to it. */
function tryToEnter(machine: UnlockStateMachine, run: UnlockClaim | undefined, to: UnlockState): void {
  if (to === 'authenticating') machine.claim();
  else if (to === 'error') run?.fail(FAILURE);
  else if (to === 'ready' && !machine.isRunning) machine.becomeReady();
  else if (to !== 'idle') run?.advance(to);
}

describe('the state of the unlock', () => {
  for (const from of STATES) {
    for (const to of STATES) {
      if (FOLLOWING[from].includes(to)) {
        it(`goes from ${from} to ${to}`, () => {
          const { machine, run } = machineIn(from);
          tryToEnter(machine, run, to);
          assert.equal(machine.state, to);
        });
      } else {
        it(`does not go from ${from} to ${to}`, () => {
          const { machine, run } = machineIn(from);
          try {
            tryToEnter(machine, run, to);
          } catch (error) {
            assert.equal((error as Error).message, `the unlock can't go from ${from} to ${to}`);
          }
          assert.equal(machine.state, from);
        });
      }
    }
  }

  for (const from of ['authenticating', 'downloading_key', 'decrypting', 'loading_images'] as const) {
    for (const to of ['downloading_key', 'decrypting', 'loading_images', 'ready'] as const) {
      if (FOLLOWING[from].includes(to)) continue;
      it(`is a fault of the Loader from ${from} to ${to}, and the run goes on`, () => {
        const { machine, run } = machineIn(from);
        assert.throws(() => run?.advance(to), { message: `the unlock can't go from ${from} to ${to}` });
        assert.ok(machine.isRunning);
        run?.fail(FAILURE);
        assert.equal(machine.state, 'error');
      });
    }
  }

  it('is idle at first, without an error and without a run', () => {
    const { state, error, isRunning } = new UnlockStateMachine();
    assert.deepEqual([state, error, isRunning], ['idle', undefined, false]);
  });

  for (const state of STATES) {
    const isRunning = !['idle', 'ready', 'error'].includes(state);
    it(`${isRunning ? 'has' : 'has no'} run under way when it is ${state}`, () => {
      const { machine } = machineIn(state);
      assert.equal(machine.isRunning, isRunning);
      assert.equal(machine.claim() === undefined, isRunning);
    });
  }
});

describe('a run', () => {
  it('is one at a time: nobody else gets one while it lasts', () => {
    const machine = new UnlockStateMachine();
    const run = machine.claim();
    for (const step of ['downloading_key', 'decrypting', 'loading_images'] as const) {
      assert.equal(machine.claim(), undefined);
      run?.advance(step);
      assert.equal(machine.state, step);
    }
    run?.advance('ready');
    assert.ok(machine.claim());
  });

  it('that has ended says nothing any more, however late it comes', () => {
    for (const state of ['ready', 'error'] as const) {
      const { machine, run } = machineIn(state);
      const steps = ['downloading_key', 'decrypting', 'loading_images', 'ready'] as const;
      const late = () => {
        for (const step of steps) run?.advance(step);
        run?.fail(new LoaderError('internal_error', 'late'));
      };
      const { error } = machine;
      late();
      assert.deepEqual([machine.state, machine.error], [state, error]);
      const next = machine.claim();
      late();
      assert.deepEqual([machine.state, machine.error], ['authenticating', undefined]);
      next?.advance('ready');
      late();
      assert.equal(machine.state, 'ready');
    }
  });

  it('leaves its error until the next one begins, or all is found there', () => {
    const { machine, run } = machineIn('error');
    assert.ok(run);
    assert.deepEqual([machine.error], [FAILURE]);
    machine.claim()?.fail(new LoaderError('engine_unreachable', 'No Docker engine listens.'));
    assert.equal(machine.error?.code, 'engine_unreachable');
    machine.claim();
    assert.equal(machine.error, undefined);
    const settled = machineIn('error').machine;
    settled.becomeReady();
    assert.deepEqual([settled.state, settled.error], ['ready', undefined]);
  });
});

describe('what is there already', () => {
  it('settles nothing while a run is under way, and nothing twice', () => {
    let changes = 0;
    const machine = new UnlockStateMachine(() => changes++);
    machine.becomeReady();
    machine.becomeReady();
    assert.deepEqual([machine.state, changes], ['ready', 1]);
    machine.claim();
    machine.becomeReady();
    assert.deepEqual([machine.state, machine.isRunning, changes], ['authenticating', true, 2]);
  });
});

describe('whoever watches', () => {
  it('is told after each change, and of none that did not happen', () => {
    const seen: [UnlockState, boolean, string | undefined][] = [];
    const machine: UnlockStateMachine = new UnlockStateMachine(() =>
      seen.push([machine.state, machine.isRunning, machine.error?.code]),
    );
    const run = machine.claim();
    machine.claim();
    assert.throws(() => run?.advance('loading_images'));
    run?.advance('downloading_key');
    run?.fail(FAILURE);
    run?.fail(FAILURE);
    run?.advance('ready');
    machine.becomeReady();
    assert.deepEqual(seen, [
      ['authenticating', true, undefined],
      ['downloading_key', true, undefined],
      ['error', false, 'archive_invalid'],
      ['ready', false, undefined],
    ]);
  });

  it('may begin the next run at once', () => {
    let left = 2;
    const machine: UnlockStateMachine = new UnlockStateMachine(() => {
      if (machine.state === 'error' && left-- > 0) machine.claim()?.fail(FAILURE);
    });
    machine.claim()?.fail(FAILURE);
    assert.deepEqual([machine.state, machine.isRunning, left], ['error', false, -1]);
  });
});
