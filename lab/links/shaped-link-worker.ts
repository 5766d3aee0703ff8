import { once } from 'node:events';
import { readlinkSync } from 'node:fs';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { setPriority } from 'node:os';
import path from 'node:path';
import { parentPort, workerData } from 'node:worker_threads';
import { makeRandom } from '../seeded-random.ts';
import { Agenda } from './agenda.ts';
import { Bottleneck } from './bottleneck.ts';
import { Flow, type FlowEnd } from './flow.ts';
import { LinkCounts } from './link-counts.ts';
import { roundTripMs } from './link-shape.ts';
import type { LinkCommand, LinkReply, LinkWorkerData } from './shaped-link.ts';
import { TlsFront } from './tls-front.ts';

/** The thread of a link (shaped-link.ts): it carries bytes between sockets at the times that the flows say. */

interface Pair {
  readonly client: Socket;
  readonly flows: readonly Flow[];
}

/** Timers are no finer. */
const EARLY_MS = 0.5;
/**
 * How sockets are made. With a shorter buffer, a receiver would seem to be slow when the pieces of a few ms arrive at once.
 */
const SOCKET = { allowHalfOpen: true, noDelay: true, highWaterMark: 1024 * 1024 };

if (parentPort === null) throw new Error('a link runs as a worker only');
const port = parentPort;
const data = workerData as LinkWorkerData;
let shape = data.shape;
const counts = new LinkCounts(data.counts);
const random = makeRandom(data.seed);
const up = new Bottleneck(() => shape.bytesPerSecond);
const down = new Bottleneck(() => shape.bytesPerSecond);
const pairs = new Set<Pair>();
/** The sockets that get all that is due now in one call of the system. */
const corked = new Set<Socket>();
const agenda = new Agenda(arm);
let timer: NodeJS.Timeout | undefined;
let timerDueMs = Infinity;

try {
  // A link has no processor to wait for. Linux gives threads priorities of their own; only root may raise one.
  setPriority(Number(path.basename(readlinkSync('/proc/thread-self'))), -15);
} catch {
  // It goes without.
}

port.on('message', ({ number, command }: { number: number; command: LinkCommand }) => {
  void obey(command).then((result) => {
    const reply: LinkReply = { number, ...result };
    port.postMessage(reply);
  });
});

async function obey(command: LinkCommand): Promise<{ port?: number }> {
  if (command.kind === 'open') return { port: await open(command) };
  const wasSilent = shape.outage === 'silent';
  shape = command.shape;
  if (shape.outage === 'reset') for (const { client } of pairs) client.resetAndDestroy();
  if (wasSilent && shape.outage !== 'silent') {
    for (const { flows } of pairs) for (const flow of flows) flow.recover(performance.now());
  }
  return {};
}

async function open({ target, tls }: Extract<LinkCommand, { kind: 'open' }>): Promise<number> {
  const onHandshake = ({ isResumed, isHttp2 }: { isResumed: boolean; isHttp2: boolean }) => {
    counts.add('handshakes', 1);
    if (isResumed) counts.add('resumedHandshakes', 1);
    if (isHttp2) counts.add('http2Handshakes', 1);
  };
  const front = tls && (await TlsFront.start({ ...tls, target, onHandshake }));
  const { hostname, port: targetPort } = new URL(front?.url ?? target);
  const server = createServer(SOCKET, (client) => {
    join(client, connect({ host: hostname, port: Number(targetPort), ...SOCKET }));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

function join(client: Socket, target: Socket): void {
  counts.add('connections', 1);
  counts.add('openConnections', 1);
  const nowMs = performance.now();
  // The client's first byte goes with the last segment of the handshake, the server's first one when that has arrived.
  const upFlow = carry(client, target, up, 'bytesUp', nowMs + roundTripMs(shape));
  const downFlow = carry(target, client, down, 'bytesDown', nowMs + roundTripMs(shape) + shape.delayMs);
  const pair = { client, flows: [upFlow, downFlow] };
  pairs.add(pair);
  client.once('close', () => {
    counts.add('openConnections', -1);
    pairs.delete(pair);
  });
  if (shape.outage === 'reset') client.resetAndDestroy();
}

function carry(
  from: Socket,
  to: Socket,
  bottleneck: Bottleneck,
  count: 'bytesUp' | 'bytesDown',
  startsAtMs: number,
): Flow {
  const flow = new Flow({
    agenda,
    bottleneck,
    shape: () => shape,
    random,
    startsAtMs,
    to: endOf(to, count),
    onRoom: () => from.resume(),
    onLoss: () => counts.add('losses', 1),
  });
  from.on('data', (chunk: Buffer) => {
    if (!flow.push(chunk, performance.now())) from.pause();
  });
  from.once('end', () => flow.end(performance.now()));
  from.on('error', () => undefined); // Its `close` follows.
  from.once('close', (hadError) => {
    if (hadError || !from.readableEnded) flow.reset(performance.now());
  });
  to.on('drain', () => flow.drain(performance.now()));
  to.once('close', () => flow.drain(performance.now())); // What it did not take is under way no more.
  return flow;
}

function endOf(socket: Socket, count: 'bytesUp' | 'bytesDown'): FlowEnd {
  return {
    write: (bytes) => {
      if (!socket.writable) return true;
      counts.add(count, bytes.length);
      if (!corked.has(socket)) {
        corked.add(socket);
        socket.cork();
      }
      return socket.write(bytes);
    },
    end: () => void socket.end(),
    reset: () => void socket.resetAndDestroy(),
  };
}

function arm(): void {
  const dueMs = agenda.firstDueMs ?? Infinity;
  if (dueMs >= timerDueMs) return;
  clearTimeout(timer);
  timerDueMs = dueMs;
  timer = setTimeout(run, Math.max(0, dueMs - performance.now()));
}

function run(): void {
  agenda.runUntil(performance.now() + EARLY_MS);
  for (const socket of corked) socket.uncork();
  corked.clear();
  timerDueMs = Infinity;
  arm();
}
