import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { DEFAULT_KEY_TEMPLATES } from '../../../src/config/variables.ts';
import { LoaderProcess } from '../../../lab/loader-process.ts';
import { encryptBuffer } from '../../../src/security/envelope-cipher.ts';
import { SecurityKeys } from '../../../src/security/security-keys.ts';
import { ScriptedApi } from '../../support/scripted-api.ts';

const FAULTY_MAIN = path.resolve(import.meta.dirname, '../../support/faulty-loader.ts');
const EMAIL = 'operator@example.com';
const PASSWORD = 'password-of-the-login';
const RESOURCE_KEY = 'resource-key-of-the-fleet';
const HARDWARE = 'test-hardware';
const CDN_YAML = `host: http://127.0.0.1:9
bucket: b
downloader_access_key: a
downloader_access_secret: down-secret
uploader_access_key: c
uploader_access_secret: up-secret
`;

let folder: string;
let api: ScriptedApi;

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-faults-'));
  api = await ScriptedApi.start();
  const keys = new SecurityKeys({ templates: DEFAULT_KEY_TEMPLATES, resourceSecret: undefined });
  const key = keys.apiAesKey({ email: EMAIL, password: PASSWORD, hardware: HARDWARE });
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const token = `${part({ alg: 'none' })}.${part({ email: EMAIL, role: 'Operator' })}.`;
  api.answer = ({ path: route }) => ({
    body: route === '/login' ? JSON.stringify({ token }) : encryptBuffer(Buffer.from(CDN_YAML), key),
  });
});

afterEach(async () => {
  await api[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

async function startLoader(main?: string): Promise<LoaderProcess> {
  return await LoaderProcess.start({
    ...(main === undefined ? {} : { main }),
    env: {
      PATH: process.env['PATH'],
      PORT: '0',
      HARDWARE_ID: HARDWARE,
      RESOURCE_API_URL: api.url,
      RESOURCE_KEY,
      STATE_DIR: path.join(folder, 'state'),
      MODEL_CACHE_DIR: path.join(folder, 'models'),
      SHUTDOWN_TIMEOUT_MS: '3000',
      LOG_FILE: path.join(folder, 'logs/loader.log'),
    },
    logPath: path.join(folder, 'loader.log'),
  });
}

async function post(loader: LoaderProcess, route: string, body: unknown): Promise<number> {
  const { status } = await fetch(loader.url + route, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  return status;
}

interface FatalLine {
  readonly level: string;
  readonly code?: string;
  readonly err?: {
    readonly message: string;
    readonly code?: string;
    readonly suppressed?: { readonly message: string };
  };
}

function fatalLines(loader: LoaderProcess): FatalLine[] {
  return loader
    .log()
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as FatalLine)
    .filter(({ level }) => level === 'fatal');
}

describe('a warning of Node', () => {
  it('is a line of the log without secrets, and ends nothing', async () => {
    const loader = await startLoader(FAULTY_MAIN);
    try {
      assert.equal(await post(loader, '/faults/warning', { text: RESOURCE_KEY }), 200);
      assert.equal(await loader.stop(), 0);
      assert.match(loader.log(), /"message":"the text was \[redacted\]"[^\n]*"msg":"Node warns"/);
      assert.ok(!loader.log().includes(RESOURCE_KEY));
    } finally {
      loader.kill();
    }
  });
});

describe('a fault that nothing catches', () => {
  for (const name of ['route-callback', 'timer', 'worker-message', 'disposer', 'rejection']) {
    it(`is logged once without secrets, and ends the Loader with exit code 1: ${name}`, async () => {
      const loader = await startLoader(FAULTY_MAIN);
      try {
        assert.equal(await post(loader, '/login', { email: EMAIL, password: PASSWORD }), 200);
        const startedAt = performance.now();
        assert.equal(await post(loader, `/faults/${name}`, { text: `${PASSWORD} ${RESOURCE_KEY} down-secret` }), 200);
        assert.equal(await loader.exited(), 1);
        assert.ok(performance.now() - startedAt < 3_000);
        const lines = fatalLines(loader);
        const [line] = lines;
        assert.ok(line !== undefined && lines.length === 1, loader.log());
        assert.equal(line.code, 'internal_error');
        assert.match(JSON.stringify(line.err), /the text was \[redacted\] \[redacted\] \[redacted\]/);
        assert.match(JSON.stringify(line.err), /EFAULT/);
        if (name === 'disposer') assert.equal(line.err?.suppressed?.message, 'what the disposal hides');
        for (const secret of [PASSWORD, RESOURCE_KEY, 'down-secret']) assert.ok(!loader.log().includes(secret), secret);
        assert.match(loader.log(), /"msg":"Stopped"/);
        assert.equal(readFileSync(path.join(folder, 'logs/loader.log'), 'utf8'), loader.log());
      } finally {
        loader.kill();
      }
    });
  }

  it('ends the Loader in time although a request is under way, and the next start finds whole files', async () => {
    const loader = await startLoader(FAULTY_MAIN);
    try {
      const socket = connect(loader.port, '127.0.0.1');
      socket.on('error', () => undefined);
      socket.write('POST /login HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{');
      const startedAt = performance.now();
      assert.equal(await post(loader, '/faults/timer', { text: 'x' }), 200);
      assert.equal(await loader.exited(), 1);
      assert.ok(performance.now() - startedAt < 3_500);
      socket.destroy();
    } finally {
      loader.kill();
    }
    const file = path.join(folder, 'state/tasks.db');
    const database = new DatabaseSync(file);
    assert.deepEqual({ ...database.prepare('PRAGMA quick_check').get() }, { quick_check: 'ok' });
    database.close();
    const next = await startLoader();
    try {
      assert.equal(await post(next, '/login', { email: EMAIL, password: PASSWORD }), 200);
      assert.deepEqual(await readdir(path.join(folder, 'models/.parts')).catch(() => []), []);
      assert.ok((await stat(file)).size > 0);
      assert.equal(await next.stop(), 0);
    } finally {
      next.kill();
    }
  });
});
