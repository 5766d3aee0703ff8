import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { bodyOf } from '../../../lab/json-answer.ts';
import { CertificateAuthority } from '../../../lab/links/certificate-authority.ts';
import { TlsFront } from '../../../lab/links/tls-front.ts';
import { noteSecrets } from '../../../lab/test-environment.ts';
import { DEMO_BUCKET, DEMO_USER, Origin } from '../../../lab/upstream/origin.ts';
import { eventually } from '../../../lab/waiting.ts';
import { TestLoader } from '../../support/test-loader.ts';
import { TestProxy } from '../../support/test-proxy.ts';

const authority = new CertificateAuthority();
const MODEL = randomBytes(12_000_000);
const PROXY_PASSWORD = `proxy-${randomBytes(8).toString('hex')}`;

let folder: string;
let origin: Origin;
let api: TlsFront;
let cdn: TlsFront;
let proxy: TestProxy;
let loader: TestLoader;
/** Handshakes with API and CDN. */
let handshakes = 0;
let http2Handshakes = 0;

async function startFront(target: string): Promise<TlsFront> {
  const onHandshake = ({ isHttp2 }: { isHttp2: boolean }) => {
    handshakes++;
    if (isHttp2) http2Handshakes++;
  };
  return await TlsFront.start({ target, ...authority.issue(), offersHttp2: true, onHandshake });
}

before(async () => {
  noteSecrets(PROXY_PASSWORD);
  folder = await mkdtemp(path.join(tmpdir(), 'loader-way-out-'));
  await writeFile(path.join(folder, 'ca.pem'), authority.certificate);
  origin = await Origin.start({ folder: path.join(folder, 'origin') });
  api = await startFront(origin.api.url);
  cdn = await startFront(origin.s3Endpoint);
  await origin.publishCdnConfig({
    host: cdn.url,
    bucket: DEMO_BUCKET,
    downloader_access_key: 'DEMOACCESSKEY',
    downloader_access_secret: 'demo-access-secret',
    uploader_access_key: 'DEMOACCESSKEY',
    uploader_access_secret: 'demo-access-secret',
    resource_key: origin.resourceKey,
  });
});

after(async () => {
  await Promise.all([api.stop(), cdn.stop(), origin.stop()]);
  await rm(folder, { recursive: true, force: true });
});

beforeEach(async () => {
  proxy = await TestProxy.start();
  proxy.refusal = { status: 407 };
});

afterEach(async () => {
  await loader.stop('SIGKILL');
  await proxy[Symbol.asyncDispose]();
});

async function start(env: Readonly<Record<string, string>> = {}): Promise<void> {
  const url = proxy.url.replace('//', `//me:${PROXY_PASSWORD}@`);
  loader = await TestLoader.start({
    env: {
      RESOURCE_API_URL: api.url,
      MODEL_CACHE_DIR: path.join(folder, 'models'),
      STATE_DIR: path.join(folder, 'state'),
      UPSTREAM_CA_FILE: path.join(folder, 'ca.pem'),
      HTTPS_PROXY: url,
      http_proxy: url,
      ...env,
    },
  });
}

const login = async () => bodyOf(await loader.login(DEMO_USER.email, DEMO_USER.password));

/** A load from the CDN. */
async function loadAnew(): Promise<void> {
  await eventually(() => loader.openFilesUnder(folder).length === 0);
  await rm(path.join(folder, 'models'), { recursive: true, force: true, maxRetries: 20, retryDelay: 5 });
  const answer = await loader.load('m');
  assert.equal(answer.status, 200);
  assert.ok(Buffer.from(await answer.arrayBuffer()).equals(MODEL));
}

describe('the way to API and CDN', () => {
  it('has a CA of its own, takes HTTP/1.1, and needs no new connection after another login', async () => {
    await start();
    await login();
    bodyOf(await loader.upload('m', MODEL));
    await loadAnew();
    assert.ok(handshakes >= 3 && handshakes <= 20, `${handshakes} handshakes`);
    const before = handshakes;
    await login();
    await loadAnew();
    assert.equal(handshakes, before);
    assert.equal(http2Handshakes, 0);
    // Both are on loopback.
    assert.deepEqual(proxy.asked, []);
    const status = (await loader.getOk('/status')) as { clock_offset_ms: number };
    assert.ok(Math.abs(status.clock_offset_ms) < 10_000, JSON.stringify(status));
  });

  it('tells a CA that is not known, and what to set', async () => {
    await start({ UPSTREAM_CA_FILE: '' });
    const { status, body } = await loader.login(DEMO_USER.email, DEMO_USER.password);
    assert.equal(status, 401);
    assert.equal(body.code, 'tls_ca_unknown');
    assert.match(String(body.detail), new RegExp(`Resource API at 127\\.0\\.0\\.1:${api.port} .*UPSTREAM_CA_FILE`));
  });

  it('trusts the CAs that Node is told of', async () => {
    await start({ UPSTREAM_CA_FILE: '', NODE_EXTRA_CA_CERTS: path.join(folder, 'ca.pem') });
    await login();
    await loadAnew();
  });

  it('goes through the proxy, whose refusal is told without its password', async () => {
    await start({ RESOURCE_API_URL: 'https://api.example.com' });
    const { body } = await loader.login(DEMO_USER.email, DEMO_USER.password);
    assert.equal(body.code, 'proxy_refused');
    assert.match(String(body.detail), new RegExp(`through the proxy ${proxy.host}: .*407.*HTTPS_PROXY`));
    assert.deepEqual(proxy.asked, ['CONNECT api.example.com:443']);
    assert.doesNotMatch(loader.log(), new RegExp(PROXY_PASSWORD));
  });
});
