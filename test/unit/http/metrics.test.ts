import assert from 'node:assert/strict';
import type { AddressInfo } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { makeTestApp, type TestApp } from '../../support/test-app.ts';

const API_KEY = 'key-of-this-device';

describe('GET /metrics', () => {
  let made: TestApp;

  before(async () => {
    made = await makeTestApp({ apiKeys: [API_KEY] });
    await made.app.listen({ host: '127.0.0.1', port: 0 });
  });

  after(async () => {
    await made.app.close();
    assert.deepEqual(made.misfits, []);
  });

  async function ask(path: string, init: RequestInit = {}): Promise<Response> {
    const { port } = made.app.server.address() as AddressInfo;
    return await fetch(`http://127.0.0.1:${port}${path}`, init);
  }

  async function scrape(): Promise<string> {
    const response = await ask('/metrics');
    assert.equal(response.status, 200);
    assert.match(response.headers.get('content-type') ?? '', /^text\/plain; version=0\.0\.4/);
    return await response.text();
  }

  it('needs no key, and counts requests by the routes of the code', async () => {
    const headers = { authorization: `Bearer ${API_KEY}`, 'content-type': 'application/json' };
    await (await ask('/health')).text();
    const body = JSON.stringify({ filename: 'secret-name', folder: 'secret-name' });
    await (await ask('/load/secret-name', { method: 'POST', headers, body })).text();
    await (await ask('/secret-name')).text();
    const page = await scrape();
    assert.match(page, /^loader_http_request_duration_seconds_count\{method="GET",route="\/health",status="200"\} 1$/m);
    assert.match(page, /^loader_http_request_failures_total\{route="\/load\/:filename",code="not_authenticated"\} 1$/m);
    assert.match(page, /^loader_http_request_duration_seconds_count\{method="GET",route="\(none\)",status="404"\} 1$/m);
    assert.doesNotMatch(page, /secret-name/);
  });

  it('shows the whole device', async () => {
    const page = await scrape();
    assert.match(page, /^loader_ready 0$/m);
    assert.match(page, /^loader_logged_in 0$/m);
    assert.match(page, /^loader_unlock_state\{state="idle"\} 1$/m);
    assert.match(page, /^loader_tasks_running\{provider="prefetch"\} 0$/m);
    assert.match(page, /^loader_work_memory_held_bytes 0$/m);
  });
});
