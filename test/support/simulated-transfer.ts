import { Agenda } from '../../lab/links/agenda.ts';
import { Bottleneck } from '../../lab/links/bottleneck.ts';
import { Flow, type FlowOptions } from '../../lab/links/flow.ts';
import { roundTripMs, type LinkShape } from '../../lab/links/link-shape.ts';

export interface SimulatedTransfer {
  readonly shape: LinkShape;
  readonly direction: 'down' | 'up';
  /** Bytes of all requests. */
  readonly length: number;
  /** Bytes of one request. */
  readonly requestLength: number;
  /** How many requests are under way, asked at the beginning and when one has ended. */
  readonly parallel: () => number;
  readonly onFinish: (length: number, ms: number) => void;
}

const CHUNK = Buffer.alloc(16 * 1024);
/** How long a server takes to answer, in ms. */
const SERVER_MS = 10;

/** Moves bytes over a link that is only computed, request by request, and returns how long that takes, in ms. */
export function simulateTransfer(transfer: SimulatedTransfer): number {
  const { length, requestLength, parallel, onFinish, shape, direction } = transfer;
  const agenda = new Agenda();
  const bodies = new Bottleneck(() => shape.bytesPerSecond);
  const rest = new Bottleneck(() => shape.bytesPerSecond);
  let nowMs = 0;
  let left = length;
  let connections = 0;

  const widen = () => {
    while (connections < parallel()) connect();
  };

  const connect = () => {
    connections++;
    let beganAtMs = 0;
    let present = 0;
    let unsent = 0;
    let unarrived = 0;
    // TCP and TLS.
    const startsAtMs = nowMs + 2 * roundTripMs(shape);
    const flow = (bottleneck: Bottleneck, onBytes: (length: number) => void, onRoom: () => void = () => undefined) => {
      const write = (bytes: Buffer) => {
        onBytes(bytes.length);
        return true;
      };
      const to = { write, end: () => undefined, reset: () => undefined };
      const options: FlowOptions = {
        agenda,
        bottleneck,
        shape: () => shape,
        random: () => 1,
        startsAtMs,
        to,
        onRoom,
        onLoss: () => undefined,
      };
      return new Flow(options);
    };
    const send = () => {
      while (unsent > 0) {
        const bytes = CHUNK.subarray(0, unsent);
        unsent -= bytes.length;
        if (!body.push(bytes, nowMs)) return;
      }
    };
    const later = (work: () => void) => {
      agenda.add(nowMs + SERVER_MS, (dueMs) => {
        nowMs = dueMs;
        work();
      });
    };
    const begin = () => {
      beganAtMs = nowMs;
      present = Math.min(left, requestLength);
      left -= present;
      if (present === 0) return;
      unsent = unarrived = present;
      if (direction === 'up') send();
      else short.push(CHUNK.subarray(0, 500), nowMs);
    };
    const finish = () => {
      onFinish(present, nowMs - beganAtMs);
      widen();
      begin();
    };
    const body = flow(
      bodies,
      (arrived) => {
        unarrived -= arrived;
        if (unarrived > 0) return;
        if (direction === 'down') finish();
        else later(() => short.push(CHUNK.subarray(0, 300), nowMs));
      },
      send,
    );
    const short = flow(rest, () => (direction === 'down' ? later(send) : finish()));
    begin();
  };

  widen();
  for (let dueMs = agenda.firstDueMs; dueMs !== undefined; dueMs = agenda.firstDueMs) {
    nowMs = dueMs;
    agenda.runUntil(dueMs);
  }
  return nowMs;
}
