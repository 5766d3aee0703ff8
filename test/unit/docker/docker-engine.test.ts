import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type RequestListener, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { createServer as createNetServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { DockerEngine } from '../../../src/docker/docker-engine.ts';
import type { DockerHost } from '../../../src/docker/docker-host.ts';
import { NEVER } from '../../../src/async/abort.ts';

const INVALID_RESPONSE = { name: 'LoaderError', code: 'engine_invalid_response' };
const UNREACHABLE = { name: 'LoaderError', code: 'engine_unreachable' };
const REFUSED = { name: 'LoaderError', code: 'engine_error' };

let folder = '';
let socketPath = '';
const engines: DockerEngine[] = [];
const closing: (() => Promise<void>)[] = [];

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-engine-'));
  socketPath = path.join(folder, 'docker.sock');
});

afterEach(async () => {
  for (const engine of engines.splice(0)) await engine.close();
  for (const close of closing.splice(0)) await close();
  await rm(folder, { recursive: true, force: true });
});

async function listen(server: Server, where: string | { host: string; port: number }): Promise<void> {
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => sockets.add(socket.on('error', () => undefined)));
  await new Promise<void>((resolve) => {
    if (typeof where === 'string') server.listen(where, resolve);
    else server.listen(where, resolve);
  });
  closing.push(async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  });
}

function connectTo(host: DockerHost, timeoutMs = 5000): DockerEngine {
  const engine = new DockerEngine({ host, timeoutMs });
  engines.push(engine);
  return engine;
}

function answerJson(response: ServerResponse, value: unknown, status = 200): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value));
}

/** An engine at the socket that answers the ping, and all else with `listener`. */
async function startEngine(
  listener: RequestListener,
  options: { readonly version?: string; readonly timeoutMs?: number; readonly onPing?: () => void } = {},
): Promise<DockerEngine> {
  const server = createServer((request, response) => {
    if (request.url === '/_ping') {
      options.onPing?.();
      response.writeHead(200, { 'api-version': options.version ?? '1.41' }).end('OK');
    } else {
      listener(request, response);
    }
  });
  await listen(server, socketPath);
  return connectTo({ kind: 'unix', socketPath }, options.timeoutMs);
}

describe('the ping', () => {
  for (const [version, prefix] of [
    ['1.24', '/v1.24'],
    ['1.41', '/v1.41'],
    ['1.51', '/v1.51'],
    ['1.52', '/v1.51'],
    ['1.100', '/v1.51'],
  ] as const) {
    it(`agrees with an engine of API ${version} on ${prefix}, once`, async () => {
      const urls: string[] = [];
      const listener: RequestListener = (request, response) => {
        urls.push(request.url ?? '');
        answerJson(response, []);
      };
      let pings = 0;
      const engine = await startEngine(listener, { version, onPing: () => pings++ });
      await engine.listImages(NEVER);
      await engine.listImages(NEVER);
      assert.deepEqual(urls, [`${prefix}/images/json`, `${prefix}/images/json`]);
      assert.equal(pings, 1);
    });
  }

  for (const version of ['1.23', '1.0', '1.9']) {
    it(`refuses an engine of API ${version}: it is too old`, async () => {
      const engine = await startEngine(() => undefined, { version });
      await assert.rejects(engine.connect(NEVER), {
        ...REFUSED,
        message: /speaks API 1\.\d+, but the Loader needs 1\.24 or later/,
      });
      await assert.rejects(engine.listImages(NEVER), REFUSED);
    });
  }

  for (const [what, status, headers] of [
    ['no version', 200, {}],
    ['a version that is none', 200, { 'api-version': 'x1.41' }],
    ['another major version', 200, { 'api-version': '2.41' }],
    ['a failure', 500, { 'api-version': '1.41' }],
    ['what nobody asked for', 404, {}],
  ] as const) {
    it(`takes what answers with ${what} for no engine`, async () => {
      await listen(
        createServer((_, response) => response.writeHead(status, headers).end('OK')),
        socketPath,
      );
      const engine = connectTo({ kind: 'unix', socketPath });
      await assert.rejects(engine.connect(NEVER), { ...INVALID_RESPONSE, message: /is not a Docker engine/ });
    });
  }

  it('takes what speaks no HTTP for no engine', async () => {
    await listen(
      createNetServer((socket) => socket.end('220 mail.example.com ESMTP\r\n')),
      socketPath,
    );
    await assert.rejects(connectTo({ kind: 'unix', socketPath }).connect(NEVER), INVALID_RESPONSE);
  });

  it('fails with engine_unreachable where there is no socket, and where nobody listens at it', async () => {
    const engine = connectTo({ kind: 'unix', socketPath });
    await assert.rejects(engine.connect(NEVER), { ...UNREACHABLE, message: /No Docker engine listens.*ENOENT/ });
    await writeFile(socketPath, '');
    await assert.rejects(engine.connect(NEVER), { ...UNREACHABLE, message: /docker\.sock \(ECONNREFUSED\)/ });
  });

  it('fails with engine_unreachable when the connection is closed without an answer', async () => {
    await listen(
      createNetServer((socket) => socket.destroy()),
      socketPath,
    );
    await assert.rejects(connectTo({ kind: 'unix', socketPath }).connect(NEVER), {
      ...UNREACHABLE,
      message: /connection to the Docker engine at .* failed/,
    });
  });

  it('fails with engine_stalled when nobody answers, and with the reason of the signal when that comes first', async () => {
    await listen(
      createServer(() => undefined),
      socketPath,
    );
    const engine = connectTo({ kind: 'unix', socketPath }, 50);
    await assert.rejects(engine.connect(NEVER), { code: 'engine_stalled', message: /within 50 ms/ });
    const reason = new Error('cancelled');
    await assert.rejects(engine.connect(AbortSignal.abort(reason)), reason);
    const abort = new AbortController();
    const connecting = connectTo({ kind: 'unix', socketPath }).connect(abort.signal);
    setTimeout(() => abort.abort(reason), 20);
    await assert.rejects(connecting, reason);
  });

  it('fails with engine_stalled when the answer does not end', async () => {
    const engine = await startEngine((_, response) => response.writeHead(200).write('[{'), { timeoutMs: 50 });
    await assert.rejects(engine.listImages(NEVER), { code: 'engine_stalled' });
  });
});

describe('the traits of an engine', () => {
  const plain = { needsEveryLayer: false, identifiesByManifest: false };
  const podman = { needsEveryLayer: true, identifiesByManifest: false };
  const containerd = { needsEveryLayer: true, identifiesByManifest: true };
  for (const [what, info, version, traits] of [
    ['Docker', { DriverStatus: [['Backing Filesystem', 'extfs']] }, { Components: [{ Name: 'Engine' }] }, plain],
    ['Docker with no word about itself', {}, {}, plain],
    ['Docker with null for its parts', { DriverStatus: null }, { Components: null }, plain],
    ['what answers no objects', null, [], plain],
    ['Podman', {}, { Components: [{ Name: 'Podman Engine' }, { Name: 'Conmon' }] }, podman],
    ['Podman in small letters', {}, { Components: [null, { Name: 'podman' }] }, podman],
    ['a containerd store', { DriverStatus: [['driver-type', 'io.containerd.snapshotter.v1']] }, {}, containerd],
  ] as const) {
    it(`are those of ${what}`, async () => {
      const engine = await startEngine((request, response) =>
        answerJson(response, request.url?.endsWith('/info') === true ? info : version),
      );
      assert.deepEqual(await engine.traits(NEVER), traits);
    });
  }
});

describe('the images of an engine', () => {
  it('are listed by ID, all or those without a tag that have a label', async () => {
    const urls: string[] = [];
    const engine = await startEngine((request, response) => {
      urls.push(decodeURIComponent(request.url ?? ''));
      answerJson(response, [{ Id: 'sha256:a' }, { Id: 'sha256:b', RepoTags: null }]);
    });
    assert.deepEqual(await engine.listImages(NEVER), ['sha256:a', 'sha256:b']);
    await engine.listImages(NEVER, 'com.example=x&y');
    assert.deepEqual(urls, [
      '/v1.41/images/json',
      '/v1.41/images/json?filters={"label":["com.example=x&y"],"dangling":["true"]}',
    ]);
  });

  for (const answer of [null, {}, 'text']) {
    it(`are none of a Docker engine's when they are no list: ${JSON.stringify(answer)}`, async () => {
      const engine = await startEngine((_, response) => answerJson(response, answer));
      await assert.rejects(engine.listImages(NEVER), INVALID_RESPONSE);
    });
  }

  it('are at most 10,000', async () => {
    let count = 10_000;
    const engine = await startEngine((_, response) =>
      answerJson(response, Array<object>(count).fill({ Id: 'sha256:a' })),
    );
    assert.equal((await engine.listImages(NEVER)).length, count);
    count++;
    await assert.rejects(engine.listImages(NEVER), INVALID_RESPONSE);
  });

  it('come in an answer of 16 MiB at most', async () => {
    const list = JSON.stringify([{ Id: 'sha256:a' }]);
    let length = 16 * 1024 * 1024;
    const engine = await startEngine((_, response) => response.end(list.padEnd(length)));
    assert.deepEqual(await engine.listImages(NEVER), ['sha256:a']);
    length++;
    await assert.rejects(engine.listImages(NEVER), INVALID_RESPONSE);
  });

  it('are refused when the list is endless', async () => {
    const engine = await startEngine((_, response) => {
      const more = () => {
        while (!response.destroyed && response.write(Buffer.alloc(64 * 1024, ' ')));
      };
      response.on('drain', more);
      more();
    });
    await assert.rejects(engine.listImages(NEVER), { ...INVALID_RESPONSE, message: /longer than any/ });
  });

  for (const [name, url] of [
    ['sha256:abc', 'sha256:abc'],
    ['azaion/api:1.2', 'azaion/api:1.2'],
    ['localhost:5000/azaion/api:1', 'localhost:5000/azaion/api:1'],
    ['a b?c#d%e', 'a%20b%3Fc%23d%25e'],
  ] as const) {
    it(`are inspected by name: ${name}`, async () => {
      let seen: string | undefined;
      const engine = await startEngine((request, response) => {
        seen = request.url;
        answerJson(response, { Id: 'sha256:abc', RootFS: { Type: 'layers', Layers: ['sha256:1', 'sha256:2'] } });
      });
      assert.deepEqual(await engine.inspectImage(name, NEVER), {
        id: 'sha256:abc',
        diffIds: ['sha256:1', 'sha256:2'],
        config: {},
      });
      assert.equal(seen, `/v1.41/images/${url}/json`);
    });
  }

  it('may have no layers', async () => {
    for (const RootFS of [undefined, null, {}, { Layers: null }]) {
      const engine = await startEngine((_, response) => {
        answerJson(response, { Id: 'x', RootFS });
      });
      assert.deepEqual(await engine.inspectImage('x', NEVER), { id: 'x', diffIds: [], config: {} });
      for (const close of closing.splice(0)) await close();
    }
  });

  it('are not there when the engine says 404, or 400 to their name, and refused when it says another failure', async () => {
    let status = 404;
    const engine = await startEngine((_, response) => {
      answerJson(response, { message: 'the words of the engine' }, status);
    });
    assert.equal(await engine.inspectImage('x', NEVER), undefined);
    await engine.removeImage('x', NEVER);
    await assert.rejects(engine.listImages(NEVER), REFUSED);
    for (status of [300, 400, 409, 500]) {
      const expected = { ...REFUSED, message: 'The Docker engine refused: the words of the engine' };
      if (status === 400) assert.equal(await engine.inspectImage('azAion/x', NEVER), undefined);
      else await assert.rejects(engine.inspectImage('x', NEVER), expected);
      await assert.rejects(engine.removeImage('x', NEVER), expected);
    }
  });

  it('are none of a Docker engine when they have no ID, or layers that are no list', async () => {
    for (const answer of [{}, { Id: 5 }, { Id: 'x', RootFS: { Layers: {} } }, 'text']) {
      const engine = await startEngine((_, response) => answerJson(response, answer));
      await assert.rejects(engine.inspectImage('x', NEVER), INVALID_RESPONSE);
      for (const close of closing.splice(0)) await close();
    }
  });

  it('are removed by ID, and the images below them are kept', async () => {
    const seen: string[] = [];
    const engine = await startEngine((request, response) => {
      seen.push(`${request.method} ${request.url}`);
      answerJson(response, []);
    });
    await engine.removeImage('sha256:abc', NEVER);
    assert.deepEqual(seen, ['DELETE /v1.41/images/sha256:abc?noprune=true']);
  });

  it('are refused with the status where the engine has no words, and with few of many words', async () => {
    let text = 'no JSON';
    const engine = await startEngine((_, response) => response.writeHead(500).end(text));
    await assert.rejects(engine.listImages(NEVER), { message: 'The Docker engine refused: status 500' });
    text = JSON.stringify({ message: 'x'.repeat(5000) });
    await assert.rejects(engine.listImages(NEVER), { message: `The Docker engine refused: ${'x'.repeat(500)}` });
  });
});

describe('an engine at an address', () => {
  const listener: RequestListener = (_, response) => response.writeHead(200, { 'api-version': '1.41' }).end('OK');

  it('is reached', async () => {
    const server = createServer(listener);
    await listen(server, { host: '127.0.0.1', port: 0 });
    const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
    await connectTo({ kind: 'tcp', host, tls: undefined }).connect(NEVER);
    for (const close of closing.splice(0)) await close();
    await assert.rejects(connectTo({ kind: 'tcp', host, tls: undefined }).connect(NEVER), {
      ...UNREACHABLE,
      message: `No Docker engine listens at tcp://${host} (ECONNREFUSED): start it, or set DOCKER_HOST to where it listens.`,
    });
  });

  it('is reached with TLS, when both know each other', async () => {
    const [ours, others] = await Promise.all([makeCertificates('ours'), makeCertificates('others')]);
    const server = createTlsServer({ ...ours, requestCert: true, rejectUnauthorized: true }, listener);
    await listen(server, { host: '127.0.0.1', port: 0 });
    const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
    await connectTo({ kind: 'tcp', host, tls: ours }).connect(NEVER);
    for (const tls of [others, { ...ours, ca: others.ca }, { ...others, ca: ours.ca }, undefined]) {
      await assert.rejects(connectTo({ kind: 'tcp', host, tls }).connect(NEVER), { name: 'LoaderError' });
    }
  });
});

/** An authority, and a certificate of it for 127.0.0.1, which server and client may share. */
async function makeCertificates(name: string): Promise<{ ca: string; cert: string; key: string }> {
  const file = (end: string) => path.join(folder, `${name}-${end}`);
  const openssl = async (...args: readonly string[]) => {
    await promisify(execFile)('openssl', args);
  };
  const fresh = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  await openssl('req', '-x509', ...fresh, '-subj', `/CN=${name}`, '-keyout', file('ca.key'), '-out', file('ca.pem'));
  await openssl('req', ...fresh, '-subj', '/CN=engine', '-keyout', file('key.pem'), '-out', file('request.pem'));
  await writeFile(file('extensions'), 'subjectAltName=IP:127.0.0.1\n');
  const authority = [
    '-CA',
    file('ca.pem'),
    '-CAkey',
    file('ca.key'),
    '-CAcreateserial',
    '-extfile',
    file('extensions'),
  ];
  await openssl('x509', '-req', '-in', file('request.pem'), ...authority, '-out', file('cert.pem'));
  const read = async (end: string) => await readFile(file(end), 'utf8');
  return { ca: await read('ca.pem'), cert: await read('cert.pem'), key: await read('key.pem') };
}

describe('an image that is looked for', () => {
  const BY_CONFIG = { needsEveryLayer: false, identifiesByManifest: false };
  const BY_MANIFEST = { needsEveryLayer: true, identifiesByManifest: true };
  const SOUGHT = { id: 'sha256:a', tags: ['x:1', 'x:2'], diffIds: ['sha256:1', 'sha256:2'] };

  /** An engine with images of these IDs and layers under these names. */
  async function startWith(
    images: Readonly<Record<string, { id: string; layers: readonly string[]; config?: unknown }>>,
  ) {
    return await startEngine((request, response) => {
      const name = /^\/v1\.41\/images\/(.*)\/json$/.exec(request.url ?? '')?.[1];
      if (name === undefined) {
        answerJson(
          response,
          [...new Set(Object.values(images).map(({ id }) => id)), 'sha256:gone'].map((Id) => ({ Id })),
        );
        return;
      }
      const image = images[name] ?? Object.values(images).find(({ id }) => id === name);
      if (image === undefined) answerJson(response, { message: 'no such image' }, 404);
      else answerJson(response, { Id: image.id, RootFS: { Layers: image.layers }, Config: image.config });
    });
  }

  const A = { id: 'sha256:a', layers: SOUGHT.diffIds };
  const SAME_LAYERS = { id: 'sha256:m', layers: SOUGHT.diffIds };
  const OTHER = { id: 'sha256:b', layers: ['sha256:1'] };

  it('is there when the engine has its ID under each of its tags', async () => {
    const engine = await startWith({ 'x:1': A, 'x:2': A });
    assert.equal(await engine.findImage(SOUGHT, BY_CONFIG, NEVER), 'sha256:a');
  });

  it('is not there when a tag is missing, or is that of another image', async () => {
    const engine = await startWith({ 'x:1': A, 'x:3': OTHER });
    assert.equal(await engine.findImage(SOUGHT, BY_CONFIG, NEVER), undefined);
    assert.equal(await engine.findImage({ ...SOUGHT, tags: ['x:1', 'x:3'] }, BY_CONFIG, NEVER), undefined);
  });

  it('without a tag is looked for by its ID', async () => {
    const engine = await startWith({ 'x:1': A });
    assert.equal(await engine.findImage({ ...SOUGHT, tags: [] }, BY_CONFIG, NEVER), 'sha256:a');
    assert.equal(await engine.findImage({ ...SOUGHT, id: 'sha256:c', tags: [] }, BY_CONFIG, NEVER), undefined);
  });

  it('counts by its layers only where the engine identifies images by a manifest of its own', async () => {
    const engine = await startWith({ 'x:1': SAME_LAYERS, 'x:2': SAME_LAYERS, 'x:3': OTHER });
    assert.equal(await engine.findImage(SOUGHT, BY_CONFIG, NEVER), undefined);
    assert.equal(await engine.findImage(SOUGHT, BY_MANIFEST, NEVER), 'sha256:m');
    assert.equal(await engine.findImage({ ...SOUGHT, tags: ['x:3'] }, BY_MANIFEST, NEVER), undefined);
  });

  it('does not count there by its layers when containers get another config', async () => {
    const told = { Hostname: '', Cmd: ['api'], Env: null, Labels: {}, User: '', OnBuild: null };
    const engine = await startWith({
      'x:1': { ...SAME_LAYERS, config: told },
      'x:2': { ...SAME_LAYERS, config: told },
    });
    const find = async (config: object) =>
      await engine.findImage({ ...SOUGHT, config: { ...config } }, BY_MANIFEST, NEVER);
    assert.equal(await find({ Cmd: ['api'] }), 'sha256:m');
    assert.equal(await find({ Cmd: ['api'], Env: [], Labels: null }), 'sha256:m');
    for (const other of [{}, { Cmd: ['ui'] }, { Cmd: ['api'], Env: ['A=1'] }, { Cmd: ['api'], User: 'nobody' }]) {
      assert.equal(await find(other), undefined, JSON.stringify(other));
    }
  });

  it('is there under each ID that it may have, and needs no layers to be told then', async () => {
    const engine = await startWith({ 'x:1': { ...OTHER, id: 'sha256:m2' }, 'x:2': { ...OTHER, id: 'sha256:m2' } });
    const sought = { ...SOUGHT, manifestIds: ['sha256:m1', 'sha256:m2'] };
    for (const traits of [BY_CONFIG, BY_MANIFEST]) {
      assert.equal(await engine.findImage(sought, traits, NEVER), 'sha256:m2');
      assert.equal(await engine.findImage({ ...sought, tags: [] }, traits, NEVER), 'sha256:m2');
      assert.equal(await engine.findImage({ ...sought, manifestIds: ['sha256:m1'] }, traits, NEVER), undefined);
    }
  });

  it('without a tag is there, for such an engine, when any image has its layers', async () => {
    const engine = await startWith({ 'y:1': OTHER, 'y:2': SAME_LAYERS });
    assert.equal(await engine.findImage({ ...SOUGHT, tags: [] }, BY_MANIFEST, NEVER), 'sha256:m');
    assert.equal(await engine.findImage({ ...SOUGHT, tags: [], diffIds: ['sha256:2'] }, BY_MANIFEST, NEVER), undefined);
  });
});

it('all images are inspected, a few at a time, without those that are removed meanwhile', async () => {
  let [open, peak] = [0, 0];
  const ids = Array.from({ length: 30 }, (_, at) => `i${at}`);
  const engine = await startEngine((request, response) => {
    const id = /images\/(.*)\/json/.exec(request.url ?? '')?.[1];
    if (id === undefined) {
      answerJson(
        response,
        [...ids, 'gone'].map((Id) => ({ Id })),
      );
      return;
    }
    peak = Math.max(peak, ++open);
    setTimeout(() => {
      open--;
      if (id === 'gone') answerJson(response, { message: 'no such image' }, 404);
      else answerJson(response, { Id: id, RootFS: { Layers: [] } });
    }, 5);
  });
  assert.deepEqual(
    (await engine.inspectImages(NEVER)).map(({ id }) => id),
    ids,
  );
  assert.ok(peak > 1 && peak <= 8, `${peak} at a time`);
});
