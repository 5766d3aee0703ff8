import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Agenda } from '../../../../lab/links/agenda.ts';
import { Bottleneck } from '../../../../lab/links/bottleneck.ts';
import { FIRST_WINDOW } from '../../../../lab/links/congestion-window.ts';
import { Flow } from '../../../../lab/links/flow.ts';
import { FAR_LINK, roundTripMs, SLOW_LINK, type LinkShape } from '../../../../lab/links/link-shape.ts';
import { makeRandom } from '../../../../lab/seeded-random.ts';

const MB = 1_000_000;
const CHUNK = Buffer.alloc(65_536);

/** Flows over one direction of a link, in a time that passes as fast as it can be computed. */
class VirtualLink {
  shape: LinkShape;
  nowMs = 0;
  readonly #agenda = new Agenda();
  readonly #bottleneck = new Bottleneck(() => this.shape.bytesPerSecond);
  readonly #random = makeRandom(7);

  constructor(shape: LinkShape) {
    this.shape = shape;
  }

  connect(): VirtualFlow {
    return new VirtualFlow((ends) => {
      return new Flow({
        agenda: this.#agenda,
        bottleneck: this.#bottleneck,
        shape: () => this.shape,
        random: this.#random,
        startsAtMs: this.nowMs + roundTripMs(this.shape),
        ...ends,
      });
    }, this);
  }

  /** Lets the time pass. */
  run(untilMs = Infinity): void {
    for (let due = this.#agenda.firstDueMs; due !== undefined && due <= untilMs; due = this.#agenda.firstDueMs) {
      this.nowMs = due;
      this.#agenda.runUntil(due);
    }
    if (untilMs < Infinity) this.nowMs = untilMs;
  }
}

class VirtualFlow {
  readonly flow: Flow;
  /** When how many bytes had arrived. */
  readonly arrivals: { atMs: number; bytes: number }[] = [];
  bytes = 0;
  endedAtMs: number | undefined;
  wasReset = false;
  losses = 0;
  takes = true;
  readonly #link: VirtualLink;
  #left = 0;

  constructor(
    make: (ends: Pick<ConstructorParameters<typeof Flow>[0], 'to' | 'onRoom' | 'onLoss'>) => Flow,
    link: VirtualLink,
  ) {
    this.#link = link;
    this.flow = make({
      to: {
        write: (bytes) => {
          this.bytes += bytes.length;
          this.arrivals.push({ atMs: link.nowMs, bytes: this.bytes });
          return this.takes;
        },
        end: () => (this.endedAtMs = link.nowMs),
        reset: () => (this.wasReset = true),
      },
      onRoom: () => this.#fill(),
      onLoss: () => this.losses++,
    });
  }

  send(bytes: number): void {
    this.#left += bytes;
    this.#fill();
  }

  /** Nothing more will be sent. */
  reset(): void {
    this.#left = 0;
    this.flow.reset(this.#link.nowMs);
  }

  /** When so many bytes had arrived. */
  hadAtMs(bytes: number): number {
    return this.arrivals.find((arrival) => arrival.bytes >= bytes)?.atMs ?? Infinity;
  }

  #fill(): void {
    while (this.#left > 0) {
      const chunk = CHUNK.subarray(0, this.#left);
      this.#left -= chunk.length;
      if (!this.flow.push(chunk, this.#link.nowMs)) return;
    }
  }
}

describe('a flow over a link', () => {
  it('costs one round trip before its first byte', () => {
    const link = new VirtualLink(FAR_LINK);
    const flow = link.connect();
    flow.send(1);
    link.run();
    assert.ok(Math.abs(flow.hadAtMs(1) - 75) < 0.001);
  });

  it('begins with ten segments and doubles in each round trip', () => {
    const link = new VirtualLink(FAR_LINK);
    const flow = link.connect();
    flow.send(5 * MB);
    link.run();
    for (let trips = 0, sent = FIRST_WINDOW; trips < 6; trips++, sent = 2 * sent + FIRST_WINDOW) {
      // Pieces go when an eighth of the window is free, so a trip ends a little later.
      const atMs = flow.hadAtMs(sent * 0.98);
      assert.ok(atMs >= 75 + 50 * trips && atMs < 77 + 55 * trips, `${trips} trips: ${atMs}`);
    }
  });

  for (const [name, shape, length] of [
    ['a far', FAR_LINK, 300 * MB],
    ['a slow', SLOW_LINK, 30 * MB],
  ] as const) {
    it(`fills ${name} link with one connection after its first second or two`, () => {
      const link = new VirtualLink(shape);
      const flow = link.connect();
      flow.send(length);
      link.run();
      const afterMs = 2000;
      const before = flow.arrivals.findLast(({ atMs }) => atMs <= afterMs)?.bytes ?? 0;
      const rate = (1000 * (length - before)) / (link.nowMs - roundTripMs(shape) / 2 - afterMs);
      assert.equal(flow.bytes, length);
      assert.ok(rate >= 0.97 * shape.bytesPerSecond && rate <= 1.001 * shape.bytesPerSecond, String(rate));
    });
  }

  it('shares the rate with the other flows', () => {
    const link = new VirtualLink(FAR_LINK);
    const flows = Array.from({ length: 8 }, () => link.connect());
    for (const flow of flows) flow.send(10 * MB);
    link.run();
    const rate = (80 * MB * 1000) / (link.nowMs - 300);
    assert.ok(rate >= 0.85 * FAR_LINK.bytesPerSecond && rate <= 1.05 * FAR_LINK.bytesPerSecond, String(rate));
    assert.ok(flows.every(({ bytes }) => bytes === 10 * MB));
  });

  it('shares it alike: flows that begin together end together', () => {
    const link = new VirtualLink(FAR_LINK);
    const flows = Array.from({ length: 8 }, () => link.connect());
    for (const flow of flows) flow.send(40 * MB);
    link.run();
    const ends = flows.map((flow) => flow.hadAtMs(40 * MB));
    // Without it, the last one goes on alone for a third of the time, with a small window.
    assert.ok(Math.min(...ends) > 0.8 * Math.max(...ends), ends.join());
    assert.ok((320 * MB * 1000) / Math.max(...ends) > 0.93 * FAR_LINK.bytesPerSecond);
  });

  it('does not let the queue before the link grow without end', () => {
    const link = new VirtualLink(SLOW_LINK);
    const old = link.connect();
    old.send(20 * MB);
    link.run(4000);
    const late = link.connect();
    late.send(1);
    link.run();
    // Three times the delay, and the queue of one round trip and a bit.
    assert.ok(late.hadAtMs(1) - 4000 < 300 + 300, String(late.hadAtMs(1) - 4000));
  });

  it('begins with a small window again after it was idle', () => {
    const link = new VirtualLink(FAR_LINK);
    const flow = link.connect();
    flow.send(10 * MB);
    link.run();
    assert.ok(flow.flow.windowLength > 100 * FIRST_WINDOW);
    link.run(link.nowMs + 10_000);
    const startedAtMs = link.nowMs;
    flow.send(MB);
    link.run();
    assert.ok(flow.hadAtMs(11 * MB) - startedAtMs >= 25 + 4 * 50);
  });

  it('loses what it must, again in the same places, and delivers all the same', () => {
    const transfer = () => {
      const link = new VirtualLink({ ...FAR_LINK, loss: 0.001 });
      const flow = link.connect();
      flow.send(20 * MB);
      link.run();
      return { losses: flow.losses, bytes: flow.bytes, atMs: link.nowMs };
    };
    const lossy = transfer();
    assert.equal(lossy.bytes, 20 * MB);
    assert.ok(lossy.losses > 5 && lossy.losses < 20, String(lossy.losses));
    assert.deepEqual(transfer(), lossy);
    assert.ok(lossy.atMs > 3000); // Without losses, it takes 0.8 s.
  });

  it('sends no more than a window to a receiver that does not take it', () => {
    const link = new VirtualLink(FAR_LINK);
    const flow = link.connect();
    flow.takes = false;
    flow.send(MB);
    link.run();
    assert.equal(flow.bytes, FIRST_WINDOW);
    flow.takes = true;
    flow.flow.drain(link.nowMs);
    link.run();
    assert.equal(flow.bytes, MB);
  });

  it('ends after its last byte', () => {
    const link = new VirtualLink(FAR_LINK);
    const flow = link.connect();
    flow.send(MB);
    link.run(200);
    flow.flow.end(link.nowMs);
    link.run();
    assert.equal(flow.bytes, MB);
    assert.ok((flow.endedAtMs ?? 0) >= flow.hadAtMs(MB));
  });

  it('loses what was not sent when its source is reset', () => {
    const link = new VirtualLink(FAR_LINK);
    const flow = link.connect();
    flow.send(MB);
    link.run(60);
    flow.reset();
    link.run();
    assert.equal(flow.bytes, FIRST_WINDOW);
    assert.equal(flow.wasReset, true);
  });

  it('delivers after a silent outage what was under way, and nothing meanwhile', () => {
    const link = new VirtualLink(FAR_LINK);
    const flow = link.connect();
    flow.send(MB);
    link.run(130);
    const before = flow.bytes;
    link.shape = { ...link.shape, outage: 'silent' };
    link.run(20_000);
    assert.equal(flow.bytes, before);
    link.shape = FAR_LINK;
    flow.flow.recover(link.nowMs);
    link.run();
    assert.equal(flow.bytes, MB);
  });
});
