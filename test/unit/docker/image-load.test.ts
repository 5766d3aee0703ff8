import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type RequestListener } from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { DockerEngine, type LayerProgress, type LoadBody } from '../../../src/docker/docker-engine.ts';
import { NEVER } from '../../../src/async/abort.ts';

const INVALID_RESPONSE = { name: 'LoaderError', code: 'engine_invalid_response' };
const UNREACHABLE = { name: 'LoaderError', code: 'engine_unreachable' };

let folder = '';
let socketPath = '';
const closing: (() => Promise<void>)[] = [];

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-engine-'));
  socketPath = path.join(folder, 'docker.sock');
});

afterEach(async () => {
  for (const close of closing.splice(0)) await close();
  await rm(folder, { recursive: true, force: true });
});

function connectEngine(): DockerEngine {
  const engine = new DockerEngine({ host: { kind: 'unix', socketPath }, timeoutMs: 5000 });
  closing.push(() => engine.close());
  return engine;
}

/** An engine at the socket that answers the ping, and all else with `listener`. */
async function startEngine(listener: RequestListener): Promise<DockerEngine> {
  const server = createServer((request, response) => {
    request.on('error', () => undefined); // Some tests break it off.
    if (request.url === '/_ping') response.writeHead(200, { 'api-version': '1.41' }).end('OK');
    else listener(request, response);
  });
  await new Promise<void>((resolve) => server.listen(socketPath, resolve));
  closing.push(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  return connectEngine();
}

/** Loads `body`, and returns what the engine tells of layers. */
async function load(engine: DockerEngine, body: LoadBody, signal = NEVER): Promise<LayerProgress[]> {
  return await Array.fromAsync(engine.load(body, signal));
}

async function readBody(request: IncomingMessage): Promise<Buffer> {
  return Buffer.concat((await Array.fromAsync(request)) as Buffer[]);
}

describe('a load', () => {
  const PIECE = Buffer.alloc(64 * 1024, 't');

  /** So many pieces, and whether whoever took them has left. */
  function makeBody(pieces: number): { chunks: AsyncGenerator<Buffer>; length: number; state: { isLeft: boolean } } {
    const state = { isLeft: false };
    async function* chunks(): AsyncGenerator<Buffer> {
      try {
        for (let at = 0; at < pieces; at++) yield await Promise.resolve(PIECE);
      } finally {
        state.isLeft = true;
      }
    }
    return { chunks: chunks(), length: pieces * PIECE.length, state };
  }

  for (const isKnown of [true, false]) {
    it(`sends the tar as it is, with its length ${isKnown ? 'told' : 'unknown'}`, async () => {
      let seen: unknown;
      const engine = await startEngine((request, response) => {
        void readBody(request).then((body) => {
          const { 'content-type': type, 'content-length': length } = request.headers;
          seen = [request.method, request.url, type, length, body.length, body.equals(Buffer.alloc(body.length, 't'))];
          response.end('{"stream":"Loaded image: x\\n"}\n');
        });
      });
      const { chunks, length } = makeBody(50);
      await load(engine, { chunks, length: isKnown ? length : undefined });
      const told = isKnown ? String(length) : undefined;
      assert.deepEqual(seen, ['POST', '/v1.41/images/load?quiet=0', 'application/x-tar', told, length, true]);
    });
  }

  it('tells how far each layer is', async () => {
    const engine = await startEngine((request, response) => {
      void readBody(request).then(() => {
        response.write('{"id":"a","progressDetail":{"current":5}}\n{"id":"b",');
        setTimeout(() => response.end('"progressDetail":{"current":7}}\n'), 10);
      });
    });
    assert.deepEqual(await load(engine, makeBody(1)), [
      { layerId: 'a', current: 5 },
      { layerId: 'b', current: 7 },
    ]);
  });

  for (const [what, reply, code] of [
    ['an error', '{"stream":"x"}\n{"errorDetail":{"message":"bad layer"},"error":"bad layer"}\n', 'engine_error'],
    ['a full disk', '{"error":"write /var/x: No space left on device"}\n', 'engine_disk_full'],
    ['a full quota', '{"error":"mkdir: disk quota exceeded"}\n', 'engine_disk_full'],
    ['nothing', '', 'engine_invalid_response'],
    ['garbage', '<html></html>', 'engine_invalid_response'],
    ['a line that is cut', '{"stream":"Load', 'engine_invalid_response'],
    ['an error and garbage', '{"error":"first"}\ngarbage', 'engine_error'],
  ] as const) {
    it(`fails with ${code} when the engine replies ${what}`, async () => {
      const engine = await startEngine((request, response) => {
        void readBody(request).then(() => response.end(reply));
      });
      await assert.rejects(load(engine, makeBody(2)), { name: 'LoaderError', code });
    });
  }

  it('fails with engine_invalid_response when the reply is broken off', async () => {
    const engine = await startEngine((request, response) => {
      void readBody(request).then(() => {
        response.write('{"stream":"Loaded image: x"}\n', () => request.socket.destroy());
      });
    });
    await assert.rejects(load(engine, makeBody(2)), { ...INVALID_RESPONSE, message: /broke off/ });
  });

  for (const isClosed of [false, true]) {
    it(`fails with the engine's words when it refuses in mid-body${isClosed ? ', and closes' : ''}`, async () => {
      const engine = await startEngine((request, response) => {
        request.once('data', () => {
          request.pause();
          response.writeHead(500, { 'content-type': 'application/json', connection: 'close' });
          response.end('{"message":"write /x: no space left on device"}', () => {
            if (isClosed) request.socket.destroySoon();
          });
        });
      });
      const { chunks, length, state } = makeBody(20_000);
      await assert.rejects(load(engine, { chunks, length }), { code: 'engine_disk_full' });
      await new Promise((resolve) => setTimeout(resolve, 20));
      assert.ok(state.isLeft, 'the body is still held');
    });
  }

  it('fails with engine_unreachable when the connection breaks in mid-body', async () => {
    const engine = await startEngine((request) => request.once('data', () => request.socket.destroy()));
    const { state, ...body } = makeBody(20_000);
    await assert.rejects(load(engine, body), UNREACHABLE);
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.ok(state.isLeft);
  });

  it('fails with engine_unreachable where there is no engine, and takes nothing of the body', async () => {
    const { state, ...body } = makeBody(5);
    await assert.rejects(load(connectEngine(), body), UNREACHABLE);
    assert.ok(!state.isLeft);
  });

  for (const length of [10 * PIECE.length, undefined]) {
    it(`fails with what its body threw, whatever that does to the connection (length: ${length ?? 'unknown'})`, async () => {
      let isAborted = false;
      const engine = await startEngine((request) => request.on('error', () => (isAborted = true)).resume());
      const failure = new Error('the layer is wrong');
      async function* failing(): AsyncGenerator<Buffer> {
        yield await Promise.resolve(PIECE);
        throw failure;
      }
      await assert.rejects(load(engine, { length, chunks: failing() }), failure);
      await new Promise((resolve) => setTimeout(resolve, 20));
      assert.ok(isAborted, 'the engine took it for whole');
    });
  }

  it('fails with the reason of the signal, before, while it sends and while it waits', async () => {
    const reason = new Error('cancelled');
    const abort = new AbortController();
    const engine = await startEngine((request) => {
      request.resume().once('end', () => abort.abort(reason));
    });
    await assert.rejects(load(engine, makeBody(2), AbortSignal.abort(reason)), reason);
    await assert.rejects(load(engine, makeBody(2), abort.signal), reason);
    const sending = new AbortController();
    async function* endless(): AsyncGenerator<Buffer> {
      for (let at = 0; ; at++) {
        if (at === 30) sending.abort(reason);
        yield await Promise.resolve(PIECE);
      }
    }
    await assert.rejects(load(engine, { length: undefined, chunks: endless() }, sending.signal), reason);
  });
});
