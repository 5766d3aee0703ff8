import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Changes } from '../../../src/async/changes.ts';
import { happens } from '../../../src/async/abort.ts';
import type { ImageEvent } from '../../../src/docker/image-events.ts';
import { LoaderError } from '../../../src/errors.ts';
import { createLogger } from '../../../src/log/logger.ts';
import { ReleaseWatch } from '../../../src/unlock/release-watch.ts';
import { eventually } from '../../../lab/waiting.ts';

/** An unlock that counts how often its release is looked at. */
class Unlocks {
  isReady = false;
  checks = 0;
  /** How often it was looked at before the first run, and how many of these looks fail. */
  looks = 0;
  failingLooks = 0;
  readonly changes = new Changes();

  get nextChange(): Promise<undefined> {
    return this.changes.next;
  }

  findLoaded(): Promise<void> {
    this.looks++;
    if (this.failingLooks-- <= 0) return Promise.resolve();
    return Promise.reject(new LoaderError('engine_unreachable', 'no'));
  }

  recheck(): Promise<void> {
    this.checks++;
    return Promise.resolve();
  }

  becomeReady(): void {
    this.isReady = true;
    this.changes.announce();
  }
}

let unlocks: Unlocks;
let events: Changes;
let connections: number;
let failures: number;
let abort: AbortController;
let running: Promise<void>;

beforeEach(() => {
  unlocks = new Unlocks();
  events = new Changes();
  connections = 0;
  failures = 0;
  abort = new AbortController();
  const engine = {
    async *imageEvents(signal: AbortSignal): AsyncGenerator<ImageEvent, void, undefined> {
      connections++;
      if (failures-- > 0) throw new LoaderError('engine_unreachable', 'no');
      yield 'listening';
      while (await happens(events.next, signal)) yield 'changed';
    },
  };
  running = new ReleaseWatch({ engine, unlocks, firstLookMs: 1, logger: createLogger({ level: 'silent' }) }).run(
    abort.signal,
  );
});

afterEach(async () => {
  abort.abort();
  await running;
});

describe('the watch over a release', () => {
  it('looks at the start whether the release is loaded, and again while the engine can not be asked', async () => {
    await eventually(() => unlocks.looks === 1);
    abort.abort();
    await running;
    const late = new Unlocks();
    late.failingLooks = 1;
    const own = new AbortController();
    const lines: string[] = [];
    const logger = createLogger({ level: 'info', outputs: [{ write: (line) => lines.push(line) }] });
    const engine = { imageEvents: () => assert.fail('nobody is ready') };
    const watching = new ReleaseWatch({ engine, unlocks: late, firstLookMs: 1, logger }).run(own.signal);
    await eventually(() => late.looks === 2, { timeoutMs: 3_000 });
    own.abort();
    await watching;
    assert.equal(lines.length, 1);
    assert.match(lines[0] ?? '', /"level":"warn".*"code":"engine_unreachable".*Nothing tells yet whether the release/);
  });

  it('leaves the first look to an unlock that begins with the start', async () => {
    const late = new Unlocks();
    const own = new AbortController();
    const engine = { imageEvents: () => assert.fail('nobody is ready') };
    const logger = createLogger({ level: 'silent' });
    const watching = new ReleaseWatch({ engine, unlocks: late, firstLookMs: 60_000, logger }).run(own.signal);
    await sleep(20);
    assert.equal(late.looks, 0);
    late.changes.announce();
    // Its own look sees that a run has begun.
    await eventually(() => late.looks === 1);
    own.abort();
    await watching;
  });

  it('does not sleep while a run begins that becomes ready', async () => {
    abort.abort();
    await running;
    unlocks = new Unlocks();
    unlocks.failingLooks = 1;
    abort = new AbortController();
    const engine = {
      // eslint-disable-next-line @typescript-eslint/require-await -- It has the shape of the engine's.
      async *imageEvents(): AsyncGenerator<ImageEvent, void, undefined> {
        connections++;
        yield 'listening';
      },
    };
    running = new ReleaseWatch({ engine, unlocks, firstLookMs: 1, logger: createLogger({ level: 'silent' }) }).run(
      abort.signal,
    );
    await eventually(() => unlocks.looks === 1);
    unlocks.becomeReady();
    await eventually(() => connections === 1, { timeoutMs: 500 });
  });

  it('asks the engine for nothing before the first unlock is ready', async () => {
    await sleep(30);
    assert.deepEqual([connections, unlocks.checks], [0, 0]);
  });

  it('looks at the release when the engine listens, and after each event', async () => {
    unlocks.becomeReady();
    await eventually(() => unlocks.checks === 1);
    events.announce();
    await eventually(() => unlocks.checks === 2);
    assert.equal(connections, 1);
  });

  it('listens again when the connection broke, and looks at the release then', async () => {
    failures = 1;
    unlocks.becomeReady();
    await eventually(() => unlocks.checks === 1);
    assert.equal(connections, 2);
  });

  it('ends at once, also in its pause', async () => {
    failures = 10;
    unlocks.becomeReady();
    await eventually(() => connections === 1);
    const beganAt = performance.now();
    abort.abort();
    await running;
    assert.ok(performance.now() - beganAt < 500);
  });
});
