import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { readFile, truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { digestBody, sha256 } from '../../../lab/sha256.ts';
import { S3_SKIP } from '../../../lab/test-environment.ts';
import { Device } from '../../support/device.ts';

const run = promisify(execFile);
const CHUNK = 2 * 1024 * 1024;
const CONTENT = randomBytes(5 * CHUNK + 77);
const DIGEST = sha256(CONTENT);
const ETAG = `"${DIGEST}"`;
const FOLDER = 'models/vision';

describe('GET /resources', { skip: S3_SKIP }, () => {
  let device: Device;
  const url = (name: string, folder = FOLDER) => `${device.loader.url}/resources/${folder}/${name}`;
  const get = async (name: string, headers: Record<string, string> = {}, method = 'GET') =>
    await fetch(url(name), { headers, method });

  before(async () => {
    device = await Device.start();
    await device.login();
    await device.upload('m', CONTENT, FOLDER);
    await device.upload('empty', Buffer.alloc(0), FOLDER);
  });
  after(() => device.stop());

  it('sends what POST /load sends, with what tells its version', async () => {
    const response = await get('m');
    assert.equal(response.status, 200);
    const { headers } = response;
    assert.equal(headers.get('etag'), ETAG);
    assert.equal(headers.get('accept-ranges'), 'bytes');
    assert.equal(headers.get('repr-digest'), `sha-256=:${createHash('sha256').update(CONTENT).digest('base64')}:`);
    assert.ok(Math.abs(Date.parse(headers.get('last-modified') ?? '') - Date.now()) < 120_000);
    assert.deepEqual(await digestBody(response), { sha256: DIGEST, length: CONTENT.length });
    const loaded = await device.loader.load('m', FOLDER);
    assert.deepEqual(
      [loaded.headers.get('etag'), loaded.headers.get('repr-digest')],
      [ETAG, headers.get('repr-digest')],
    );
    assert.equal((await digestBody(loaded)).sha256, DIGEST);
  });

  it('answers HEAD with the same headers and no body', async () => {
    const response = await get('m', { range: 'bytes=0-1' }, 'HEAD');
    assert.deepEqual(
      [response.status, response.headers.get('content-length'), response.headers.get('etag')],
      [200, String(CONTENT.length), ETAG],
    );
    assert.equal((await response.arrayBuffer()).byteLength, 0);
  });

  it('sends any range, cold and from the cache, and reads no other chunk of the copy', async () => {
    for (const isCold of [true, false]) {
      for (const [start, end] of [
        [0, 1],
        [3055, 3058],
        [3056 + CHUNK - 1, 3056 + CHUNK + 1],
        [2 * CHUNK, 4 * CHUNK + 5],
        [CONTENT.length - 1, CONTENT.length],
      ] as const) {
        if (isCold) await device.clearCache();
        const response = await get('m', { range: `bytes=${start}-${end - 1}` });
        assert.equal(response.status, 206);
        assert.equal(response.headers.get('content-range'), `bytes ${start}-${end - 1}/${CONTENT.length}`);
        assert.ok(Buffer.from(await response.arrayBuffer()).equals(CONTENT.subarray(start, end)), `${start} to ${end}`);
      }
    }
  });

  it('answers 416 to a range that there is not, and sends the whole where several are asked for', async () => {
    for (const [name, range] of [
      ['m', `bytes=${CONTENT.length}-`],
      ['m', 'bytes=9-3'],
      ['empty', 'bytes=0-'],
    ] as const) {
      const response = await get(name, { range });
      const length = name === 'm' ? CONTENT.length : 0;
      assert.deepEqual([response.status, response.headers.get('content-range')], [416, `bytes */${length}`]);
    }
    const several = await get('m', { range: 'bytes=0-1,5-6' });
    assert.equal(several.status, 200);
    assert.equal((await digestBody(several)).length, CONTENT.length);
    assert.equal((await get('empty')).status, 200);
  });

  it('answers 304 to who has this version, and touches no byte of the copy', async () => {
    const big = path.join(device.cacheFolder, FOLDER, 'm.big');
    await digestBody(await get('m'));
    await device.settled();
    const stored = await readFile(big);
    await writeFile(big, Buffer.alloc(stored.length)); // Each chunk that is read would be told in the log.
    const logged = device.loader.log().length;
    for (const condition of [ETAG, `W/${ETAG}`, `"other", ${ETAG}`, '*']) {
      const response = await get('m', { 'if-none-match': condition });
      assert.deepEqual([response.status, response.headers.get('etag')], [304, ETAG]);
    }
    assert.ok(!device.loader.log().slice(logged).includes('is damaged'));
    const other = await get('m', { 'if-none-match': '"other"' });
    assert.deepEqual([other.status, (await digestBody(other)).sha256], [200, DIGEST]);
    assert.ok(device.loader.log().slice(logged).includes('is damaged'));
  });

  it('lets curl go on with a file that was cut', async () => {
    const file = path.join(device.folder, 'm');
    await run('curl', ['-sSf', '-o', file, url('m')]);
    assert.equal(sha256(await readFile(file)), DIGEST);
    await truncate(file, 3_000_000);
    await run('curl', ['-sSf', '-C', '-', '-o', file, url('m')]);
    assert.equal(sha256(await readFile(file)), DIGEST);
  });

  it('fails in the words of HTTP', async () => {
    const codeOf = async (response: Response) => [response.status, ((await response.json()) as { code: string }).code];
    assert.deepEqual(await codeOf(await get('absent')), [404, 'resource_not_in_api']);
    assert.deepEqual(await codeOf(await fetch(`${device.loader.url}/resources/m`)), [422, 'validation_failed']);
    assert.deepEqual(await codeOf(await fetch(url('..%2fm', 'a'))), [422, 'validation_failed']);
    device.apiProxy.fault = () => ({ kind: 'refuse' });
    const response = await get('m');
    assert.deepEqual(await codeOf(response), [503, 'api_unreachable']);
    assert.ok(Number(response.headers.get('retry-after')) > 0);
    device.heal();
    await device.restartLoader();
    assert.deepEqual(await codeOf(await get('m')), [401, 'not_authenticated']);
    await device.login();
  });

  it('lists what the cache has, page by page', async () => {
    await digestBody(await get('m'));
    await device.upload('a', randomBytes(1000), FOLDER);
    await device.settled();
    const list = async (query = '') =>
      (await (await fetch(`${device.loader.url}/resources${query}`)).json()) as {
        resources: Record<string, unknown>[];
        next_cursor: string | null;
      };
    const { resources, next_cursor: next } = await list();
    assert.equal(next, null);
    assert.deepEqual(
      resources.map(({ folder, name, bytes, verified }) => [folder, name, bytes, verified]),
      [
        [FOLDER, 'a', 1000, true],
        [FOLDER, 'm', CONTENT.length, true],
      ],
    );
    assert.ok(Number(resources[1]?.['revision']) > 1_700_000_000_000);
    const first = await list('?limit=1');
    assert.equal(first.next_cursor, `${FOLDER}/a`);
    const second = await list(`?limit=1&cursor=${encodeURIComponent(first.next_cursor)}`);
    assert.deepEqual([second.resources[0]?.['name'], second.next_cursor], ['m', null]);
    assert.deepEqual((await list('?folder=other')).resources, []);
    assert.equal((await fetch(`${device.loader.url}/resources?limit=0`)).status, 422);
  });
});
