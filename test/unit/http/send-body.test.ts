import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { connect, type AddressInfo } from 'node:net';
import { Readable } from 'node:stream';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fastify, LogController, type FastifyBaseLogger, type FastifyInstance } from 'fastify';
import { eventually } from '../../../lab/waiting.ts';
import { QueuedBytes } from '../../../src/async/queued-bytes.ts';
import { LoaderError } from '../../../src/errors.ts';
import { abortWhenClientLeaves } from '../../../src/http/bodies/client-abort.ts';
import { sendBody } from '../../../src/http/bodies/send-body.ts';
import { registerRequestLog } from '../../../src/http/request-log.ts';
import { createLogger } from '../../../src/log/logger.ts';

/** Far more than the kernel keeps for a reader that does not read. */
const LENGTH = 32 * 1024 * 1024;
const STALL_TIMEOUT_MS = 300;

describe('a body', () => {
  let app: FastifyInstance;
  /** Level and code of each line of the log that has a code. */
  let failures: string[] = [];
  let chunks: AsyncIterable<Buffer>;
  /** The last one. */
  let response: ServerResponse | undefined;
  before(async () => {
    const write = (line: string) => {
      const { level, code } = JSON.parse(line) as { level: string; code?: string };
      if (code !== undefined) failures.push(`${level} ${code}`);
    };
    const loggerInstance: FastifyBaseLogger = createLogger({ level: 'info', outputs: [{ write }] });
    app = fastify({ loggerInstance, logController: new LogController({ disableRequestLogging: true }) });
    registerRequestLog(app, () => undefined);
    app.get('/', async (_request, reply) => {
      response = reply.raw;
      const abort = abortWhenClientLeaves(reply);
      await sendBody(reply, { length: LENGTH, chunks }, { stallTimeoutMs: STALL_TIMEOUT_MS, abort });
    });
    await app.listen({ host: '127.0.0.1', port: 0 });
  });
  after(() => app.close());

  function ask() {
    const socket = connect((app.server.address() as AddressInfo).port, '127.0.0.1');
    socket.write('GET / HTTP/1.1\r\nHost: loader\r\nConnection: close\r\n\r\n');
    return socket;
  }

  it('arrives whole at a client that reads slowly, as long as it reads', async () => {
    [failures, chunks] = [[], oneChunk()];
    const socket = ask();
    const startedAt = performance.now();
    let received = 0;
    // In the kernel's buffers, most of what is left waits for several times the timeout.
    for await (const chunk of socket) {
      received += (chunk as Buffer).length;
      await sleep(2);
    }
    assert.ok(received > LENGTH);
    assert.ok(performance.now() - startedAt > 2 * STALL_TIMEOUT_MS);
    assert.deepEqual(failures, []);
  });

  it('is broken off at a client that reads nothing, when the timeout has passed', async () => {
    [failures, chunks] = [[], oneChunk()];
    const socket = ask();
    socket.pause();
    const startedAt = performance.now();
    await eventually(() => Promise.resolve(failures.length > 0));
    const elapsedMs = performance.now() - startedAt;
    assert.deepEqual(failures, ['info client_stalled']);
    assert.ok(elapsedMs >= STALL_TIMEOUT_MS - 50, String(elapsedMs));
    socket.on('error', () => undefined).resume();
    await once(socket, 'close');
  });

  it('queues 384 KiB for a client that reads nothing, and one chunk where many bytes are queued', async () => {
    using others = new QueuedBytes();
    assert.equal(await queuedForStalled(), 384 * 1024);
    others.add(9 * 1024 * 1024);
    assert.equal(await queuedForStalled(), 128 * 1024);
  });

  /** The bytes that wait for the socket when chunks of 128 KiB are sent. */
  async function queuedForStalled(): Promise<number> {
    const many = Array.from({ length: LENGTH / (128 * 1024) }, () => Buffer.alloc(128 * 1024));
    [failures, chunks] = [[], Readable.from(many)];
    const socket = ask().pause();
    await sleep(STALL_TIMEOUT_MS / 2);
    const queued = response?.writableLength ?? 0;
    socket.destroy();
    await eventually(() => Promise.resolve(failures.length > 0));
    return queued;
  }

  it('is broken off without an error in the log when its client leaves, and with one when it fails itself', async () => {
    [failures, chunks] = [[], oneChunk()];
    const socket = ask();
    await once(socket, 'data');
    socket.destroy();
    await eventually(() => Promise.resolve(failures.length > 0));
    assert.deepEqual(failures, ['info client_closed']);
    async function* failing(): AsyncGenerator<Buffer> {
      yield* oneChunk();
      throw new LoaderError('cdn_unreachable', 'The CDN is gone.');
    }
    [failures, chunks] = [[], failing()];
    const second = ask().resume();
    await once(second, 'close');
    await eventually(() => Promise.resolve(failures.length > 0));
    assert.deepEqual(failures, ['error cdn_unreachable']);
  });
});

async function* oneChunk(): AsyncGenerator<Buffer> {
  await Promise.resolve();
  yield Buffer.alloc(LENGTH, 'x');
}
