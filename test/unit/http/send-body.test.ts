import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type AddressInfo } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fastify, type FastifyInstance } from 'fastify';
import { eventually } from '../../../lab/waiting.ts';
import { asLoaderError } from '../../../src/errors.ts';
import { abortWhenClientLeaves } from '../../../src/http/bodies/client-abort.ts';
import { sendBody } from '../../../src/http/bodies/send-body.ts';

/** Far more than the kernel keeps for a reader that does not read. */
const LENGTH = 32 * 1024 * 1024;
const STALL_TIMEOUT_MS = 300;

describe('a body', () => {
  let app: FastifyInstance;
  let failures: string[] = [];
  before(async () => {
    app = fastify();
    app.get('/', async (_request, reply) => {
      const abort = abortWhenClientLeaves(reply);
      try {
        await sendBody(reply, { length: LENGTH, chunks: oneChunk() }, { stallTimeoutMs: STALL_TIMEOUT_MS, abort });
      } catch (error) {
        failures.push(asLoaderError(error).code);
      }
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
    failures = [];
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

  it('is broken off, at a client that reads nothing, after one to two timeouts', async () => {
    failures = [];
    const socket = ask();
    socket.pause();
    const startedAt = performance.now();
    await eventually(() => Promise.resolve(failures.length > 0));
    const elapsedMs = performance.now() - startedAt;
    assert.deepEqual(failures, ['client_stalled']);
    assert.ok(elapsedMs >= STALL_TIMEOUT_MS - 50 && elapsedMs < 3 * STALL_TIMEOUT_MS, String(elapsedMs));
    socket.on('error', () => undefined).resume();
    await once(socket, 'close');
  });
});

async function* oneChunk(): AsyncGenerator<Buffer> {
  await Promise.resolve();
  yield Buffer.alloc(LENGTH, 'x');
}
