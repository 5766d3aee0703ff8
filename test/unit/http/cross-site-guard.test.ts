import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { registeredRoutes } from '../../support/registered-routes.ts';
import { rawRequest } from '../../support/raw-request.ts';
import { makeTestApp, type TestApp } from '../../support/test-app.ts';

const HOST = 'loader.local:8080';

/** What browsers send, and whether the page is one of the Loader. */
const BROWSERS: readonly (readonly [what: string, headers: Readonly<Record<string, string>>, isOwn: boolean])[] = [
  ['a page of the Loader', { 'sec-fetch-site': 'same-origin', origin: `http://${HOST}` }, true],
  ['a page of the Loader behind TLS', { 'sec-fetch-site': 'same-origin', origin: 'https://loader.example.com' }, true],
  ['an act of the user', { 'sec-fetch-site': 'none' }, true],
  ['another site', { 'sec-fetch-site': 'cross-site', origin: 'https://evil.example' }, false],
  ['another site that hides its origin', { 'sec-fetch-site': 'cross-site' }, false],
  ['another port of the host', { 'sec-fetch-site': 'same-site', origin: 'http://loader.local:3000' }, false],
  ['a word that there is not', { 'sec-fetch-site': 'same-origin, cross-site' }, false],
  ['an older browser, a page of the Loader', { origin: `http://${HOST}` }, true],
  ['an older browser, in upper case', { origin: 'HTTP://LOADER.LOCAL:8080' }, true],
  ['an older browser, another site', { origin: 'http://evil.example' }, false],
  ['an older browser, another port', { origin: 'http://loader.local' }, false],
  ['an older browser, a name that begins alike', { origin: `http://${HOST}.evil.example` }, false],
  ['an older browser, a name before an @', { origin: `http://${HOST}@evil.example` }, false],
  ['an older browser, a file or a sandbox', { origin: 'null' }, false],
  ['an older browser, an empty origin', { origin: '' }, false],
];

describe('a request that may change something', () => {
  let loader: TestApp;
  before(async () => {
    loader = await makeTestApp();
    await loader.app.listen({ host: '127.0.0.1', port: 0 });
  });
  after(async () => {
    await loader.app.close();
    await loader.services.close();
    assert.deepEqual(loader.misfits, []);
  });

  for (const [what, headers, isOwn] of BROWSERS) {
    it(`of ${what} is ${isOwn ? 'let through' : 'refused'}`, async () => {
      const answer = await rawRequest(loader.app, 'DELETE', '/unlock', { host: HOST, ...headers });
      if (isOwn) assert.equal(answer.status, 200);
      else assert.deepEqual([answer.status, answer.body.code], [403, 'cross_site']);
    });
  }

  it('of curl, Python requests or a neighbour is let through', async () => {
    for (const agent of ['curl/8.5.0', 'python-requests/2.32.0', 'neighbour']) {
      const headers = { host: 'loader:8080', 'user-agent': agent, accept: '*/*' };
      assert.equal((await rawRequest(loader.app, 'DELETE', '/unlock', headers)).status, 200, agent);
    }
  });

  it('is refused on every route that another site could send it to', async () => {
    const headers = { host: HOST, origin: 'https://evil.example' };
    for (const { method, path } of registeredRoutes(loader.app)) {
      if (['GET', 'HEAD', 'OPTIONS', 'CONNECT'].includes(method)) continue;
      const answer = await rawRequest(loader.app, method, path.replaceAll(/:\w+/g, 'x'), headers);
      assert.equal(answer.status, 403, `${method} ${path}`);
    }
  });

  it('a page of another site may still link to the pages of the Loader', async () => {
    const headers = { host: HOST, 'sec-fetch-site': 'cross-site' };
    assert.equal((await rawRequest(loader.app, 'GET', '/status', headers)).status, 200);
  });
});
