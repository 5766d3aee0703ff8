import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type RequestListener } from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { NEVER } from '../../../src/async/abort.ts';
import { DockerEngine } from '../../../src/docker/docker-engine.ts';

const OPTIONS = { prepareTimeoutMs: 5000, stallTimeoutMs: 5000, signal: NEVER };
const TAR = Buffer.alloc(1_000_000, 't');

let socketPath = '';
const closing: (() => Promise<unknown>)[] = [];

beforeEach(async () => {
  const folder = await mkdtemp(path.join(tmpdir(), 'loader-engine-'));
  socketPath = path.join(folder, 'docker.sock');
  closing.push(() => rm(folder, { recursive: true, force: true }));
});

afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

/** An engine that answers all but the ping with `listener`. */
async function startEngine(listener: RequestListener): Promise<DockerEngine> {
  const server = createServer((request, response) => {
    if (request.url === '/_ping') response.writeHead(200, { 'api-version': '1.41' }).end('OK');
    else listener(request, response);
  });
  await once(server.listen(socketPath), 'listening');
  const engine = new DockerEngine({ host: { kind: 'unix', socketPath }, timeoutMs: 5000 });
  closing.push(async () => {
    await engine.close();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  return engine;
}

describe('an export', () => {
  it('asks for all images at once and yields the tar as it comes', async () => {
    let seen: string | undefined;
    const engine = await startEngine((request, response) => {
      seen = `${request.method} ${request.url}`;
      response.end(TAR);
    });
    const chunks = await Array.fromAsync(engine.exportImages(['azaion/api:1', 'sha256:ab&c'], OPTIONS));
    assert.ok(Buffer.concat(chunks).equals(TAR));
    assert.equal(seen, 'GET /v1.41/images/get?names=azaion%2Fapi%3A1&names=sha256%3Aab%26c');
  });

  it("fails with the engine's words when an image is not there", async () => {
    const engine = await startEngine((_, response) => response.writeHead(404).end('{"message":"No such image: x"}'));
    await assert.rejects(Array.fromAsync(engine.exportImages(['x'], OPTIONS)), {
      code: 'engine_error',
      message: /No such image: x/,
    });
  });

  it('fails with engine_invalid_response for an answer of another status, or one without an end', async () => {
    const engine = await startEngine((request, response) => {
      response.writeHead(request.url?.includes('endless') === true ? 500 : 204);
      if (request.url?.includes('endless') !== true) return void response.end();
      const more = () => {
        while (!response.destroyed && response.write(Buffer.alloc(64 * 1024, ' ')));
      };
      response.on('drain', more);
      more();
    });
    for (const name of ['x', 'endless']) {
      await assert.rejects(Array.fromAsync(engine.exportImages([name], OPTIONS)), { code: 'engine_invalid_response' });
    }
  });

  it('fails with engine_stalled when the engine is silent before the tar, or within it', async () => {
    const engine = await startEngine((request, response) => {
      if (request.url?.includes('begun') === true) response.write(TAR);
    });
    const cases = [
      ['x', { ...OPTIONS, prepareTimeoutMs: 50 }],
      ['begun', { ...OPTIONS, stallTimeoutMs: 50 }],
    ] as const;
    for (const [name, options] of cases) {
      await assert.rejects(Array.fromAsync(engine.exportImages([name], options)), {
        code: 'engine_stalled',
        message: /sent nothing for 50 ms/,
      });
    }
  });

  it('gives the engine another time before the tar than within it', async () => {
    const engine = await startEngine((_, response) => {
      setTimeout(() => response.end(TAR), 100);
    });
    const chunks = await Array.fromAsync(engine.exportImages(['x'], { ...OPTIONS, stallTimeoutMs: 50 }));
    assert.ok(Buffer.concat(chunks).equals(TAR));
  });

  it('fails with engine_unreachable when the connection breaks', async () => {
    const engine = await startEngine((request, response) => {
      response.writeHead(200, { 'content-length': TAR.length });
      response.write(TAR.subarray(1), () => request.socket.destroy());
    });
    await assert.rejects(Array.fromAsync(engine.exportImages(['x'], OPTIONS)), { code: 'engine_unreachable' });
  });

  it('fails with the reason of the signal, and breaks the call off', async () => {
    const reason = new Error('cancelled');
    for (const hasBegun of [false, true]) {
      const abort = new AbortController();
      const { promise: broken, resolve } = Promise.withResolvers<IncomingMessage>();
      const engine = await startEngine((request, response) => {
        response.on('close', () => resolve(request));
        if (hasBegun) response.write(TAR);
        setTimeout(() => abort.abort(reason), 20);
      });
      await assert.rejects(Array.fromAsync(engine.exportImages(['x'], { ...OPTIONS, signal: abort.signal })), reason);
      await broken;
      await closing.pop()?.();
    }
  });

  it('ends the call when the consumer leaves', async () => {
    const { promise: broken, resolve } = Promise.withResolvers<IncomingMessage>();
    const engine = await startEngine((request, response) => {
      response.on('close', () => resolve(request));
      response.write(TAR);
    });
    for await (const chunk of engine.exportImages(['x'], OPTIONS)) {
      assert.ok(chunk.length > 0);
      break;
    }
    await broken;
  });
});
