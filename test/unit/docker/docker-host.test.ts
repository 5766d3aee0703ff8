import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { describeDockerHost, parseDockerHost } from '../../../src/docker/docker-host.ts';

const TLS = { ca: 'ca', cert: 'cert', key: 'key' };

describe('DOCKER_HOST', () => {
  for (const [text, socketPath] of [
    ['unix:///var/run/docker.sock', '/var/run/docker.sock'],
    ['unix:///run/user/1000/podman/podman.sock', '/run/user/1000/podman/podman.sock'],
    ['unix:///with space/docker.sock', '/with space/docker.sock'],
    ['unix:////twice', '//twice'],
  ] as const) {
    it(`names a socket: ${text}`, () => {
      const host = parseDockerHost(text, undefined);
      assert.deepEqual(host, { kind: 'unix', socketPath });
      assert.equal(describeDockerHost(host), socketPath);
    });
  }

  it('needs no certificates for a socket, and ignores them', () => {
    assert.deepEqual(parseDockerHost('unix:///s', TLS), { kind: 'unix', socketPath: '/s' });
  });

  for (const [text, plain, secured] of [
    ['tcp://engine', 'engine:2375', 'engine:2376'],
    ['tcp://engine:1234', 'engine:1234', 'engine:1234'],
    ['tcp://engine:1234/', 'engine:1234', 'engine:1234'],
    ['tcp://engine/', 'engine:2375', 'engine:2376'],
    ['tcp://192.168.0.1:2375', '192.168.0.1:2375', '192.168.0.1:2375'],
    ['tcp://[::1]', '[::1]:2375', '[::1]:2376'],
    ['tcp://[fe80::1]:99', '[fe80::1]:99', '[fe80::1]:99'],
    ['tcp://engine.example.com:443', 'engine.example.com:443', 'engine.example.com:443'],
    ['tcp://engine:80', 'engine:80', 'engine:80'],
  ] as const) {
    it(`names an address, and its port without and with TLS: ${text}`, () => {
      assert.deepEqual(parseDockerHost(text, undefined), { kind: 'tcp', host: plain, tls: undefined });
      const host = parseDockerHost(text, TLS);
      assert.deepEqual(host, { kind: 'tcp', host: secured, tls: TLS });
      assert.equal(describeDockerHost(host), `tcp://${secured}`);
    });
  }

  for (const text of ['unix://', 'unix://docker.sock', 'unix://./docker.sock', 'unix://~/docker.sock']) {
    it(`must name a socket by its absolute path: ${text}`, () => {
      assert.throws(() => parseDockerHost(text, undefined), { message: /^must name a socket by its absolute path/ });
    });
  }

  for (const text of [
    '',
    '/var/run/docker.sock',
    'unix:/var/run/docker.sock',
    'UNIX:///var/run/docker.sock',
    'engine:2375',
    'http://engine:2375',
    'https://engine:2376',
    'ssh://engine',
    'npipe:////./pipe/docker_engine',
    'fd://',
    'tcp:',
    'tcp://',
    'tcp:///',
    'tcp://:2375',
    'tcp:engine',
    'tcp://engine:port',
    'tcp://engine:65536',
    'tcp://engine:-1',
    'tcp://engine/path',
    'tcp://engine:2375/v1.40',
    'tcp://engine?x',
    'tcp://engine#x',
    'tcp://user:password@engine',
    'tcp://engine :2375',
    ' tcp://engine',
    'tcp://engine\n',
    'tcp://[::1',
  ]) {
    it(`must be a socket or an address: ${JSON.stringify(text)}`, () => {
      assert.throws(() => parseDockerHost(text, undefined), {
        message: `must be unix:///path or tcp://host:port, not "${text}"`,
      });
    });
  }
});
