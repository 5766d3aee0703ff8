import assert from 'node:assert/strict';
import type { AddressInfo } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { BOUNDARY, FORM_END, partHead, RawConnection } from '../../../lab/faults/raw-http.ts';
import type { UploadItem } from '../../../src/resources/upload-service.ts';
import { makeTestApp, type TestApp } from '../../support/test-app.ts';

/** Takes an upload without an upstream. */
async function readAll(_name: string, items: AsyncIterable<UploadItem>): Promise<void> {
  for await (const item of items) if (item.kind === 'data') await Array.fromAsync(item.chunks);
}

/** Each limit is crossed by one, and kept to exactly: a load that keeps to it is refused only later, for want of a login. */
describe('the limits of a request', () => {
  let loader: TestApp;
  let port = 0;
  before(async () => {
    loader = await makeTestApp();
    Object.assign(loader.services.apiClient, { upload: readAll });
    await loader.app.listen({ host: '127.0.0.1', port: 0 });
    ({ port } = loader.app.server.address() as AddressInfo);
  });
  after(async () => {
    await loader.app.close();
    await loader.services.close();
  });

  async function codeOf(route: string, contentType: string, body: string): Promise<readonly [number, unknown]> {
    const response = await fetch(`http://127.0.0.1:${port}${route}`, {
      method: 'POST',
      headers: { 'content-type': contentType },
      body,
    });
    return [response.status, ((await response.json()) as { code?: unknown }).code] as const;
  }
  const codeOfForm = async (...parts: readonly string[]) =>
    await codeOf('/upload/m', `multipart/form-data; boundary=${BOUNDARY}`, parts.join('\r\n') + FORM_END);
  const codeOfLoad = async (body: object) =>
    await codeOf('/load/m', 'application/json', JSON.stringify({ filename: 'm', folder: 'models', ...body }));

  const field = (name: string, value = 'x') => partHead(name) + value;
  const file = (name: string) => `${partHead(name, 'm')}abc`;
  const folderOf = (...lengths: readonly number[]) => lengths.map((length) => 'x'.repeat(length)).join('/');
  const TAKEN = [200, undefined];
  const FITS = [500, 'not_authenticated'];
  const INVALID = [422, 'validation_failed'];
  const TOO_LARGE = [413, 'body_too_large'];

  it('are 60 s for the headers, of which a slow client is told', async () => {
    const { app, services } = await makeTestApp();
    assert.equal(app.server.headersTimeout, 60_000);
    // Node looks at the interval when the server begins to listen.
    Object.assign(app.server, { headersTimeout: 100, connectionsCheckingInterval: 20 });
    await app.listen({ host: '127.0.0.1', port: 0 });
    const connection = await RawConnection.open((app.server.address() as AddressInfo).port);
    await connection.send('GET /health HTTP/1.1\r\nHost: loader\r\n');
    const answer = await connection.answer();
    assert.deepEqual([answer.status, answer.body.code], [408, 'request_timeout']);
    connection.close();
    await app.close();
    await services.close();
  });

  it('are 16 fields of a form', async () => {
    const fields = Array.from({ length: 16 }, (_, index) => field(`f${index}`));
    assert.deepEqual(await codeOfForm(...fields, file('data')), TAKEN);
    assert.deepEqual(await codeOfForm(...fields, field('f16'), file('data')), INVALID);
  });

  it('are one file of a form', async () => {
    assert.deepEqual(await codeOfForm(file('data')), TAKEN);
    assert.deepEqual(await codeOfForm(file('data'), file('data')), INVALID);
  });

  it('are 16 KiB for a field of a form', async () => {
    assert.deepEqual(await codeOfForm(field('noise', 'x'.repeat(16 * 1024)), file('data')), TAKEN);
    assert.deepEqual(await codeOfForm(field('noise', 'x'.repeat(16 * 1024 + 1)), file('data')), TOO_LARGE);
  });

  it('are 1 MiB for a JSON body', async () => {
    const frame = JSON.stringify({ filename: 'm', folder: 'models', noise: '' }).length;
    const noise = 'x'.repeat(1024 * 1024 - frame);
    assert.notDeepEqual(await codeOfLoad({ noise }), TOO_LARGE);
    assert.deepEqual(await codeOfLoad({ noise: `${noise}x` }), TOO_LARGE);
  });

  it('are 249 bytes for a file name', async () => {
    assert.deepEqual(await codeOfLoad({ filename: 'x'.repeat(249) }), FITS);
    assert.deepEqual(await codeOfLoad({ filename: 'x'.repeat(250) }), INVALID);
  });

  it('are 8 names of 255 bytes for a folder', async () => {
    assert.deepEqual(await codeOfLoad({ folder: folderOf(1, 1, 1, 1, 1, 1, 1, 255) }), FITS);
    assert.deepEqual(await codeOfLoad({ folder: folderOf(1, 1, 1, 1, 1, 1, 1, 256) }), INVALID);
    assert.deepEqual(await codeOfLoad({ folder: folderOf(1, 1, 1, 1, 1, 1, 1, 1, 1) }), INVALID);
  });

  it('are 1,014 bytes for folder and file name together', async () => {
    // 3 * 255 and 245 bytes, three slashes within the folder, and a name of one: the slash before it does not count.
    const [fits, tooLong] = [folderOf(255, 255, 255, 245), folderOf(255, 255, 255, 246)];
    assert.equal(Buffer.byteLength(`${fits}m`), 1_014);
    assert.deepEqual(await codeOfLoad({ folder: fits }), FITS);
    assert.deepEqual(await codeOfLoad({ folder: tooLong }), INVALID);
  });
});
