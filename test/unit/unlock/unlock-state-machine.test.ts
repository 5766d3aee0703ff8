import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { LoaderError } from '../../../src/errors.ts';
import { UnlockStateMachine, type UnlockClaim, type UnlockState } from '../../../src/unlock/unlock-state-machine.ts';

const FAILURE = new LoaderError('archive_invalid', 'The image archive is broken.');

/** Which states may follow which, as the docs have it. */
const FOLLOWING = {
  idle: ['authenticating', 'ready'],
  authenticating: ['downloading_key', 'ready', 'error'],
  downloading_key: ['decrypting', 'error'],
  decrypting: ['loading_images', 'ready', 'error'],
  loading_images: ['ready', 'error'],
  ready: ['authenticating'],
  error: ['authenticating', 'ready'],
} as const satisfies Record<UnlockState, readonly UnlockState[]>;
const STATES = Object.keys(FOLLOWING) as UnlockState[];
/** No claim can go back to idle: there is no call for it. */
const TARGETS = STATES.filter((state) => state !== 'idle');
const WAY = ['authenticating', 'downloading_key', 'decrypting', 'loading_images', 'ready'] as const;

class Lab {
  changes = 0;
  readonly machine = new UnlockStateMachine({ announce: () => this.changes++ });

  claim(): UnlockClaim {
    const claim = this.machine.claim();
    assert.ok(claim, 'another claim is held');
    return claim;
  }
}

/** A machine in `state`, and a claim that it takes orders of. */
function machineIn(state: UnlockState): Lab & { held: UnlockClaim } {
  const lab = new Lab();
  let held = lab.claim();
  for (const step of state === 'error' ? WAY.slice(0, 1) : WAY) {
    if (lab.machine.state === state) break;
    held.advance(step);
  }
  if (state === 'error') held.fail(FAILURE);
  if (!lab.machine.isClaimed) held = lab.claim();
  assert.equal(lab.machine.state, state);
  return Object.assign(lab, { held });
}

function enter(claim: UnlockClaim, state: UnlockState): void {
  assert.notEqual(state, 'idle');
  if (state === 'error') claim.fail(FAILURE);
  else if (state !== 'idle') claim.advance(state);
}

describe('the state of the unlock', () => {
  for (const from of STATES) {
    for (const to of TARGETS) {
      const isAllowed = (FOLLOWING[from] as readonly UnlockState[]).includes(to);

      it(`${isAllowed ? 'goes' : 'does not go'} from ${from} to ${to}`, () => {
        const lab = machineIn(from);
        const before = lab.changes;
        if (isAllowed) {
          enter(lab.held, to);
          assert.deepEqual([lab.machine.state, lab.changes], [to, before + 1]);
          assert.equal(lab.machine.error, to === 'error' ? FAILURE : undefined);
        } else {
          const { error } = lab.machine;
          assert.throws(() => enter(lab.held, to), { message: `the unlock can't go from ${from} to ${to}` });
          // The claim goes on, and nothing was announced.
          assert.deepEqual([lab.machine.state, lab.changes, lab.machine.isClaimed], [from, before, true]);
          assert.equal(lab.machine.error, error);
        }
      });
    }
  }

  it('is idle at first, without an error and without a claim', () => {
    const { state, error, isClaimed } = new Lab().machine;
    assert.deepEqual([state, error, isClaimed], ['idle', undefined, false]);
  });
});

describe('a claim', () => {
  for (const state of STATES) {
    it(`is held by one unlock at a time, also when it is ${state}`, () => {
      const { machine, held } = machineIn(state);
      assert.equal(machine.claim(), undefined);
      assert.equal(held.state, state);
    });
  }

  it('changes nothing when it is taken and when it is disposed of', () => {
    for (const state of STATES) {
      const lab = machineIn(state);
      const { changes } = lab;
      const { error } = lab.machine;
      lab.held[Symbol.dispose]();
      assert.deepEqual([lab.machine.state, lab.machine.error, lab.changes], [state, error, changes]);
      assert.equal(lab.machine.isClaimed, false);
      lab.claim();
      assert.deepEqual([lab.machine.state, lab.machine.error, lab.changes], [state, error, changes]);
    }
  });

  for (const end of ['ready', 'error', 'disposal'] as const) {
    it(`that has ended (${end}) changes nothing any more, however late it comes`, () => {
      const { machine, held } = machineIn('decrypting');
      if (end === 'disposal') held[Symbol.dispose]();
      else enter(held, end);
      const late = () => {
        for (const step of WAY) held.advance(step);
        held.fail(new LoaderError('internal_error', 'late'));
        held[Symbol.dispose]();
      };
      const { state, error } = machine;
      late();
      assert.deepEqual([machine.state, machine.error, machine.isClaimed], [state, error, false]);
      const next = machine.claim();
      assert.ok(next);
      late();
      assert.deepEqual([machine.state, machine.isClaimed], [state, true]);
      if (end === 'disposal') return;
      next.advance('authenticating');
      late();
      assert.deepEqual([machine.state, machine.error, machine.isClaimed], ['authenticating', undefined, true]);
    });
  }

  it('leaves its error until the next unlock begins, or all images are found', () => {
    const { machine, held } = machineIn('error');
    assert.equal(machine.error, FAILURE);
    held.advance('authenticating');
    assert.deepEqual([machine.error], [undefined]);
    held.fail(new LoaderError('engine_unreachable', 'No Docker engine listens.'));
    assert.deepEqual(machine.error, new LoaderError('engine_unreachable', 'No Docker engine listens.'));
    machine.claim()?.advance('ready');
    assert.deepEqual([machine.state, machine.error], ['ready', undefined]);
  });

  it('may be taken at once by who hears of the end of the one before', () => {
    let left = 2;
    const machine: UnlockStateMachine = new UnlockStateMachine({
      announce: () => {
        if (machine.state === 'error' && left-- > 0) begin();
      },
    });
    const begin = () => {
      const claim = machine.claim();
      claim?.advance('authenticating');
      claim?.fail(FAILURE);
    };
    begin();
    assert.deepEqual([machine.state, machine.isClaimed, left], ['error', false, -1]);
  });
});
