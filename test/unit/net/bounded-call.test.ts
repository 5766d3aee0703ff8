import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, it } from 'node:test';
import { Agent } from 'undici';
import { NEVER } from '../../../src/async/abort.ts';
import {
  AnswerTooLongError,
  boundedCall,
  DeadlineError,
  jsonOf,
  type BoundedAnswer,
  type BoundedCallOptions,
} from '../../../src/net/bounded-call.ts';

const closing: (() => unknown)[] = [];

afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

/** Calls a server that answers with `listener`. */
async function call(listener: RequestListener, options: Partial<BoundedCallOptions> = {}): Promise<BoundedAnswer> {
  const server = createServer(listener);
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const dispatcher = new Agent();
  closing.push(async () => {
    await dispatcher.destroy();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  return await boundedCall({
    dispatcher,
    method: 'GET',
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/path?query`,
    timeoutMs: 5000,
    maxLength: 100,
    signal: NEVER,
    ...options,
  });
}

describe('a bounded call', () => {
  it('sends method, headers and body, and returns status, headers and body', async () => {
    let seen: unknown;
    const answer = await call(
      (request, response) => {
        seen = [request.method, request.url, request.headers['x-test'], request.headers['content-length']];
        response.writeHead(418, { 'x-answer': 'tea' }).end('{"a":1}');
      },
      { method: 'POST', headers: { 'x-test': 'yes' }, body: 'text' },
    );
    assert.deepEqual(seen, ['POST', '/path?query', 'yes', '4']);
    assert.deepEqual([answer.status, answer.headers['x-answer'], jsonOf(answer)], [418, 'tea', { a: 1 }]);
  });

  it('has no JSON where the body is none', async () => {
    assert.equal(jsonOf(await call((_, response) => response.end('<html>'))), undefined);
  });

  it('takes a body of the greatest length, and not a byte more', async () => {
    const answer = await call((_, response) => response.end('x'.repeat(100)));
    assert.equal(answer.body.length, 100);
    await assert.rejects(
      call((_, response) => response.end('x'.repeat(101))),
      AnswerTooLongError,
    );
  });

  it('ends the connection of an answer without an end', { timeout: 10_000 }, async () => {
    const { promise: closed, resolve } = Promise.withResolvers<undefined>();
    const calling = call((_, response) => {
      const timer = setInterval(() => response.write('x'.repeat(50)), 1);
      response.on('close', () => {
        clearInterval(timer);
        resolve(undefined);
      });
    });
    await assert.rejects(calling, AnswerTooLongError);
    await closed;
  });

  for (const [where, listener] of [
    ['before the headers', () => undefined],
    ['within the body', (_, response) => response.write('{')],
    [
      'in spite of a byte now and then',
      (_, response) => {
        const timer = setInterval(() => response.write(' '), 10);
        response.on('close', () => clearInterval(timer));
      },
    ],
  ] as const satisfies [string, RequestListener][]) {
    it(`fails with a DeadlineError when its time is over ${where}`, { timeout: 10_000 }, async () => {
      await assert.rejects(call(listener, { timeoutMs: 60 }), {
        name: DeadlineError.name,
        message: 'no answer within 60 ms',
      });
    });
  }

  it('fails with the reason of the signal, before and while it waits', async () => {
    const reason = new Error('cancelled');
    let calls = 0;
    const listener = () => {
      calls++;
    };
    await assert.rejects(call(listener, { signal: AbortSignal.abort(reason) }), reason);
    assert.equal(calls, 0);
    const abort = new AbortController();
    await assert.rejects(
      call(() => abort.abort(reason), { signal: abort.signal }),
      reason,
    );
  });

  it('fails with the error of a connection that breaks', async () => {
    await assert.rejects(
      call((request) => request.socket.destroy()),
      { code: 'UND_ERR_SOCKET' },
    );
  });
});
