import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, it } from 'node:test';
import { freePort } from '../../../lab/free-port.ts';
import { LoaderError } from '../../../src/errors.ts';
import { Dispatchers } from '../../../src/net/dispatchers.ts';
import type { MeasuredCall } from '../../../src/net/measured-calls.ts';

const closing: (() => unknown)[] = [];

afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

async function startServer(listener: RequestListener): Promise<string> {
  const server = createServer(listener);
  await once(server.listen(0, '127.0.0.1'), 'listening');
  closing.push(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** Sends a request, and returns what was told of it. */
async function measure(origin: string, signal?: AbortSignal): Promise<MeasuredCall[]> {
  const calls: MeasuredCall[] = [];
  const dispatchers = new Dispatchers();
  closing.push(() => dispatchers.destroy());
  const dispatcher = dispatchers.create({
    connectTimeoutMs: 5_000,
    connections: 1,
    onCall: (call) => calls.push(call),
  });
  try {
    await text((await dispatcher.request({ origin, path: '/', method: 'PUT', signal: signal ?? null })).body);
  } catch {
    // What was told is asserted.
  }
  return calls;
}

describe('a measured call', () => {
  it('is told once, with its status and the time to its answer', async () => {
    const origin = await startServer((_request, response) => {
      void sleep(50).then(() => response.writeHead(418).end('short and stout'));
    });
    const [call, ...others] = await measure(origin);
    assert.ok(call?.kind === 'answer');
    assert.deepEqual([call.method, call.status, others], ['PUT', 418, []]);
    assert.ok(call.seconds >= 0.04 && call.seconds < 5, String(call.seconds));
  });

  it('that gets no answer is told with the reason', async () => {
    const origin = `http://127.0.0.1:${await freePort()}`;
    assert.deepEqual(await measure(origin), [{ kind: 'fault', method: 'PUT', fault: 'unreachable' }]);
    const late = await startServer(() => undefined);
    assert.deepEqual(await measure(late, AbortSignal.timeout(50)), [{ kind: 'fault', method: 'PUT', fault: 'late' }]);
  });

  it('that its caller broke off is no fault of the server', async () => {
    const origin = await startServer(() => undefined);
    for (const reason of [new LoaderError('client_closed', 'Gone.'), undefined]) {
      const abort = new AbortController();
      setTimeout(() => abort.abort(reason), 50);
      assert.deepEqual(await measure(origin, abort.signal), [{ kind: 'fault', method: 'PUT', fault: 'aborted' }]);
    }
  });

  it('whose body breaks is told as both', async () => {
    const origin = await startServer((_request, response) => {
      response.writeHead(200, { 'content-length': 10 }).write('half');
      setTimeout(() => response.destroy(), 50);
    });
    const calls = await measure(origin);
    assert.deepEqual(
      calls.map((call) => (call.kind === 'answer' ? call.status : call.fault)),
      [200, 'unreachable'],
    );
  });
});
