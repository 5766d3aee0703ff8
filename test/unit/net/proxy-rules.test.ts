import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { hostAndPort, parseProxyServer, ProxyRules, targetOf } from '../../../src/net/proxy-rules.ts';

const http = parseProxyServer('http://plain.proxy:3128');
const https = parseProxyServer('http://tunnel.proxy:3128');

function proxyOf(url: string, ...exceptions: string[]) {
  return new ProxyRules({ http, https, exceptions }).proxyFor(targetOf(new URL(url)));
}

describe('the proxy of a connection', () => {
  it('is that of its protocol', () => {
    assert.equal(proxyOf('http://api.example.com'), http);
    assert.equal(proxyOf('https://api.example.com'), https);
    const rules = new ProxyRules({ http, https: undefined, exceptions: [] });
    assert.equal(rules.proxyFor(targetOf(new URL('https://api.example.com'))), undefined);
  });

  for (const host of [
    'localhost',
    'api.localhost',
    'LOCALHOST.',
    '127.0.0.1',
    '127.9.9.9',
    '[::1]',
    '[::ffff:127.0.0.1]',
  ]) {
    it(`is none for this machine itself, as ${host}`, () => {
      assert.equal(proxyOf(`https://${host}:8443`), undefined);
      assert.equal(proxyOf(`http://${host}:8080`), undefined);
    });
  }

  for (const [host, exception, isExcepted] of [
    ['api.example.com', 'example.com', true],
    ['example.com', 'example.com', true],
    ['API.Example.com', 'api.EXAMPLE.com', true],
    ['api.example.com.', 'example.com', true],
    ['badexample.com', 'example.com', false],
    ['example.com.evil.org', 'example.com', false],
    ['example.com', '.example.com', true],
    ['api.example.com', '.example.com', true],
    ['api.example.com', '*.example.com', true],
    ['example.com', '*.example.com', false],
    ['api.example.com', '*', true],
    ['api.example.com:8443', 'example.com:8443', true],
    ['api.example.com', 'example.com:8443', false],
    ['api.example.com', 'example.com:443', true],
    ['10.1.2.3', '10.1.2.3', true],
    ['10.1.2.3', '10.0.0.0/8', true],
    ['11.1.2.3', '10.0.0.0/8', false],
    ['10.example.com', '10.0.0.0/8', false],
    ['[fd00::1]', 'fd00::1', true],
    ['[fd00::1]', '[fd00::1]:443', true],
    ['[fd00::1]', 'fd00::/8', true],
    ['[fe00::1]', 'fd00::/8', false],
    ['10.1.2.3', '10.0.0.0/99', false],
    ['1.10.1.2.3.example.com', '3.example.com', true],
    ['10.1.2.3', '2.3', false],
  ] as const) {
    it(`is ${isExcepted ? 'none' : 'there'} for ${host} where the exceptions have ${exception}`, () => {
      assert.equal(proxyOf(`https://${host}`, 'other.org', exception), isExcepted ? undefined : https);
    });
  }
});

describe('the URL of a proxy', () => {
  it('has a host, and a port that its protocol may give', () => {
    assert.deepEqual(parseProxyServer('http://proxy:3128/'), {
      isTls: false,
      hostname: 'proxy',
      port: 3128,
      authorization: undefined,
    });
    assert.deepEqual(parseProxyServer('proxy:3128'), parseProxyServer('http://proxy:3128'));
    assert.equal(hostAndPort(parseProxyServer('https://proxy')), 'proxy:443');
    assert.equal(hostAndPort(parseProxyServer('http://[fd00::1]')), '[fd00::1]:80');
    assert.ok(parseProxyServer('https://proxy').isTls);
  });

  it('may have a user and a password, with escapes or without', () => {
    const authorizationOf = (url: string) => parseProxyServer(url).authorization;
    const basic = (pair: string) => `Basic ${Buffer.from(pair).toString('base64')}`;
    assert.equal(authorizationOf('http://me:p%40ss@proxy:1'), basic('me:p@ss'));
    assert.equal(authorizationOf('http://me:50%@proxy:1'), basic('me:50%'));
    assert.equal(authorizationOf('me:pass@proxy:1'), basic('me:pass'));
    assert.equal(authorizationOf('http://me@proxy:1'), basic('me:'));
  });

  for (const url of [
    'socks5://proxy:1',
    'http://',
    'http://a b',
    'http://proxy/path',
    'http://u:secret@proxy:99999',
    'http://proxy?x',
  ]) {
    it(`is refused without a word of it: ${url}`, () => {
      assert.throws(() => parseProxyServer(url), /^Error: must be http:\/\/host:port or https/);
    });
  }
});

describe('a target that is the proxy of plain requests', () => {
  const rules = new ProxyRules({ http, https, exceptions: [] });
  for (const [url, isProxy] of [
    ['http://plain.proxy:3128', true],
    ['https://plain.proxy:3128', false],
    ['http://plain.proxy:3129', false],
    ['http://tunnel.proxy:3128', false],
  ] as const) {
    it(`is ${isProxy ? '' : 'not '}${url}`, () => assert.equal(rules.isHttpProxy(targetOf(new URL(url))), isProxy));
  }

  it('is none without a proxy', () => {
    assert.equal(new ProxyRules().isHttpProxy(targetOf(new URL('http://plain.proxy:3128'))), false);
  });
});
