import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { DockerEngine, type LayerProgress } from '../../../src/docker/docker-engine.ts';
import { LoaderError } from '../../../src/errors.ts';
import { EngineFeed } from '../../../src/binary-split/engine-feed.ts';
import { NEVER } from '../../../src/async/abort.ts';

const STALL_MS = 200;
const STALLED = { name: 'LoaderError', code: 'engine_stalled' };
const CANCELLED = new LoaderError('unlock_cancelled', 'The unlock was cancelled.');
const PIECE = Buffer.alloc(64 * 1024, 't');
const GOOD = '{"stream":"Loaded image: x"}\n';

let folder = '';
const closing: (() => Promise<void>)[] = [];

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-feed-'));
});

afterEach(async () => {
  for (const close of closing.splice(0)) await close();
  await rm(folder, { recursive: true, force: true });
});

/** An engine that answers the ping, and loads as `listener` does. */
async function startEngine(listener: RequestListener): Promise<DockerEngine> {
  const socketPath = path.join(folder, 'docker.sock');
  const server = createServer((request, response) => {
    request.on('error', () => undefined); // Some tests break it off.
    if (request.url === '/_ping') response.writeHead(200, { 'api-version': '1.41' }).end('OK');
    else listener(request, response);
  });
  await new Promise<void>((resolve) => server.listen(socketPath, resolve));
  const engine = new DockerEngine({ host: { kind: 'unix', socketPath }, timeoutMs: 5000 });
  await engine.connect(NEVER);
  closing.push(async () => {
    await engine.close();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  return engine;
}

interface FeedTest {
  readonly engine: DockerEngine;
  readonly body: (feed: EngineFeed) => AsyncIterable<Buffer>;
  readonly length?: number;
  readonly signal?: AbortSignal;
  readonly stallTimeoutMs?: number;
}

/** Feeds an engine, and returns what it tells of layers. */
async function feed({
  engine,
  body,
  signal = NEVER,
  stallTimeoutMs = STALL_MS,
  length,
}: FeedTest): Promise<LayerProgress[]> {
  using feeding = new EngineFeed({ engine, stallTimeoutMs, signal });
  return await Array.fromAsync(feeding.send({ length, chunks: body(feeding) }));
}

async function* pieces(count: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < count; at++) yield await Promise.resolve(PIECE);
}

/** Waits as a body does for what is not the engine's business. */
async function pausing(feeding: EngineFeed, wait: Promise<unknown>): Promise<void> {
  using _pause = feeding.pause();
  await wait;
}

/** Replies when all has come. */
function reply(request: IncomingMessage, response: ServerResponse, text = GOOD): void {
  request.resume().once('end', () => response.end(text));
}

describe('feeding an engine', () => {
  it('ends when it has replied, and passes on what it tells of layers', async () => {
    const engine = await startEngine((request, response) => {
      reply(request, response, '{"id":"a","progressDetail":{"current":5}}\n');
    });
    assert.deepEqual(await feed({ engine, body: () => pieces(10) }), [{ layerId: 'a', current: 5 }]);
  });

  it('tells the engine the length, where it is known', async () => {
    let told: string | undefined;
    const engine = await startEngine((request, response) => {
      told = request.headers['content-length'];
      reply(request, response);
    });
    await feed({ engine, length: 2 * PIECE.length, body: () => pieces(2) });
    assert.equal(told, String(2 * PIECE.length));
  });

  it('fails with what the body threw, and with what the engine replied', async () => {
    const engine = await startEngine((request, response) => {
      reply(request, response, '{"error":"bad layer"}\n');
    });
    await assert.rejects(feed({ engine, body: () => pieces(1) }), { code: 'engine_error' });
    const failure = new LoaderError('archive_invalid', 'The image archive is broken.');
    const body = async function* () {
      yield await Promise.resolve(PIECE);
      throw failure;
    };
    await assert.rejects(feed({ engine, body }), failure);
  });

  for (const isRefused of [false, true]) {
    it(`tells the body when it is over, since it may wait for something (refused: ${isRefused})`, async () => {
      let told: AbortSignal | undefined;
      const engine = await startEngine((request, response) => {
        if (!isRefused) reply(request, response);
        else request.once('data', () => response.writeHead(500, { connection: 'close' }).end('{}'));
      });
      const body = async function* ({ signal }: EngineFeed) {
        told = signal;
        yield await Promise.resolve(PIECE);
        assert.equal(signal.aborted, false);
        if (isRefused) await once(signal, 'abort');
      };
      const fed = feed({ engine, body, stallTimeoutMs: 5000 });
      await (isRefused ? assert.rejects(fed, { code: 'engine_error' }) : fed);
      assert.equal(told?.aborted, true);
    });
  }
});

describe('an engine that stalls', () => {
  it('in taking is given up, and the body is told', async () => {
    const engine = await startEngine((request) => request.pause());
    let isLeft = false;
    const body = async function* () {
      try {
        yield* pieces(10_000);
      } finally {
        isLeft = true;
      }
    };
    await assert.rejects(feed({ engine, body }), {
      ...STALLED,
      message: new RegExp(`took nothing for ${STALL_MS} ms`),
    });
    await sleep(20);
    assert.ok(isLeft);
  });

  it('in replying is given up', async () => {
    const engine = await startEngine((request) => request.resume());
    await assert.rejects(feed({ engine, body: () => pieces(3) }), {
      ...STALLED,
      message: new RegExp(`said nothing for ${STALL_MS} ms`),
    });
  });

  it('after the first words of its reply is given up', async () => {
    const engine = await startEngine((request, response) => {
      request.resume().once('end', () => response.write('{"id":"a","progressDetail":{"current":5}}\n'));
    });
    await assert.rejects(feed({ engine, body: () => pieces(3) }), STALLED);
  });

  it('is none while it takes something now and then', async () => {
    // A socket takes nothing more until most of what it holds was read: so this is in small steps.
    const stallTimeoutMs = 400;
    const engine = await startEngine((request, response) => {
      const next = () => {
        if (request.read() !== null) setTimeout(next, 15);
        else request.once('readable', next);
      };
      request.once('readable', next).once('end', () => response.end(GOOD));
    });
    const start = performance.now();
    await feed({ engine, body: () => pieces(20), stallTimeoutMs });
    assert.ok(performance.now() - start > stallTimeoutMs, 'it was too fast to prove anything');
  });

  it('is none while it replies in its time, however long the body took for its end', async () => {
    const stallTimeoutMs = 400;
    const engine = await startEngine((request, response) =>
      request.resume().once('end', () => setTimeout(() => response.end(GOOD), 0.6 * stallTimeoutMs)),
    );
    const body = async function* () {
      yield PIECE;
      await sleep(0.6 * stallTimeoutMs);
    };
    await feed({ engine, body, stallTimeoutMs });
  });

  it('is none while it tells of layers now and then', async () => {
    const engine = await startEngine((request, response) => {
      request.resume().once('end', () => {
        let told = 0;
        const timer = setInterval(() => {
          response.write(`{"id":"a","progressDetail":{"current":${told++}}}\n`);
          if (told < 10) return;
          clearInterval(timer);
          response.end(GOOD);
        }, STALL_MS / 5);
      });
    });
    await feed({ engine, body: () => pieces(3) });
  });
});

describe('a pause of the body', () => {
  it('is not counted against the engine', async () => {
    const engine = await startEngine(reply);
    const body = async function* (feeding: EngineFeed) {
      yield PIECE;
      await pausing(feeding, sleep(2 * STALL_MS));
      yield PIECE;
    };
    await feed({ engine, body });
  });

  it('gives the engine its whole time afterwards, and no more', async () => {
    const engine = await startEngine((request) => request.resume());
    let pausedUntil = 0;
    const body = async function* (feeding: EngineFeed) {
      yield PIECE;
      await pausing(feeding, sleep(2 * STALL_MS));
      pausedUntil = performance.now();
    };
    await assert.rejects(feed({ engine, body }), STALLED);
    assert.ok(performance.now() - pausedUntil >= STALL_MS - 5);
  });

  it('that fails is the failure of the load', async () => {
    const engine = await startEngine(reply);
    const failure = new LoaderError('engine_disk_full', 'The disk of the Docker engine is full.');
    const body = async function* (feeding: EngineFeed) {
      yield PIECE;
      await pausing(feeding, Promise.reject(failure));
    };
    await assert.rejects(feed({ engine, body }), failure);
  });

  it('is one also while the engine tells something', async () => {
    const engine = await startEngine((request, response) => {
      request.once('data', () => response.write('{"id":"a","progressDetail":{"current":5}}\n'));
      reply(request, response);
    });
    const body = async function* (feeding: EngineFeed) {
      yield PIECE;
      await pausing(feeding, sleep(2 * STALL_MS));
      yield PIECE;
    };
    await feed({ engine, body });
  });
});

describe('a load that is cancelled', () => {
  it('before it begins does not begin', async () => {
    let loads = 0;
    const engine = await startEngine(() => loads++);
    let isTaken = false;
    const body = async function* () {
      isTaken = true;
      yield* pieces(1);
    };
    await assert.rejects(feed({ engine, body, signal: AbortSignal.abort(CANCELLED) }), CANCELLED);
    assert.deepEqual([isTaken, loads], [false, 0]);
  });

  it('before its body commits does not commit', async () => {
    const abort = new AbortController();
    const engine = await startEngine((request) => request.resume());
    const body = async function* (feeding: EngineFeed) {
      yield PIECE;
      abort.abort(CANCELLED);
      assert.throws(() => feeding.commit(), CANCELLED);
      await sleep(10);
      yield PIECE;
    };
    await assert.rejects(feed({ engine, body, signal: abort.signal }), CANCELLED);
  });

  it('when its body has committed is not broken off before the end is sent', async () => {
    const abort = new AbortController();
    const engine = await startEngine(reply);
    const body = async function* (feeding: EngineFeed) {
      yield PIECE;
      feeding.commit();
      abort.abort(CANCELLED);
      await sleep(10);
      assert.equal(feeding.signal.aborted, false);
      yield PIECE;
    };
    await feed({ engine, body, signal: abort.signal });
  });

  it('while it is sent is broken off, so that the engine does not take it for whole', async () => {
    const abort = new AbortController();
    let ended: boolean | undefined;
    const engine = await startEngine((request) => request.resume().once('close', () => (ended = request.complete)));
    const body = async function* ({ signal }: EngineFeed) {
      yield* pieces(5);
      abort.abort(CANCELLED);
      assert.equal(signal.aborted, true);
      await sleep(10);
      yield PIECE;
    };
    await assert.rejects(feed({ engine, body, signal: abort.signal }), CANCELLED);
    await sleep(20);
    assert.equal(ended, false);
  });

  it('while it is paused is broken off', async () => {
    const abort = new AbortController();
    const engine = await startEngine((request) => request.resume());
    const body = async function* (feeding: EngineFeed) {
      yield PIECE;
      setTimeout(() => abort.abort(CANCELLED), 10);
      await pausing(feeding, sleep(60_000, undefined, { signal: feeding.signal }));
    };
    await assert.rejects(feed({ engine, body, signal: abort.signal }), CANCELLED);
  });

  it('when it was sent whole is not broken off: its reply is awaited', async () => {
    const abort = new AbortController();
    const engine = await startEngine((request, response) => {
      request.resume().once('end', () => {
        abort.abort(CANCELLED);
        setTimeout(() => response.end(GOOD), 30);
      });
    });
    await feed({ engine, body: () => pieces(3), signal: abort.signal });
    assert.ok(abort.signal.aborted);
  });

  it('when it was sent whole is given up all the same when the engine stalls', async () => {
    const abort = new AbortController();
    const engine = await startEngine((request) => {
      request.resume().once('end', () => abort.abort(CANCELLED));
    });
    await assert.rejects(feed({ engine, body: () => pieces(3), signal: abort.signal }), STALLED);
  });

  it('leaves no timer that keeps the process, however it ended', async () => {
    const engine = await startEngine((request, response) => {
      request.once('data', () => response.writeHead(500, { connection: 'close' }).end('{}'));
    });
    const before = timers();
    const body = async function* ({ signal }: EngineFeed) {
      yield PIECE;
      await once(signal, 'abort');
      yield PIECE; // Nobody asked whether it is over, as between two layers.
    };
    await assert.rejects(feed({ engine, body, stallTimeoutMs: 3000 }), { code: 'engine_error' });
    await sleep(20);
    await engine.close();
    assert.ok(timers() <= before, process.getActiveResourcesInfo().join());
  });
});

function timers(): number {
  return process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;
}
