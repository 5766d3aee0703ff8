import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { NEVER } from '../../../src/async/abort.ts';
import { S3CdnManager } from '../../../src/cdn/s3-cdn-manager.ts';
import { DEFAULT_KEY_TEMPLATES } from '../../../src/config/variables.ts';
import { KnownSecrets } from '../../../src/log/known-secrets.ts';
import { createLogger } from '../../../src/log/logger.ts';
import { encryptBuffer } from '../../../src/security/envelope-cipher.ts';
import { SecurityKeys } from '../../../src/security/security-keys.ts';
import { Upstream } from '../../../src/upstream/upstream.ts';
import { ScriptedApi } from '../../support/scripted-api.ts';

const HARDWARE = 'hardware';
const CDN_YAML = `host: http://127.0.0.1:9
bucket: b
downloader_access_key: a
downloader_access_secret: down-secret
uploader_access_key: c
uploader_access_secret: up-secret
`;

let api: ScriptedApi;
/** What cdn.yaml holds beside the access keys. */
let extraLine: string;
/** The hardware strings that the API has accepted. */
let accepted: string[];
/** Called before each answer of the API. */
let beforeAnswer: (body: string) => Promise<void>;

beforeEach(async () => {
  api = await ScriptedApi.start();
  extraLine = '';
  accepted = [];
  beforeAnswer = () => Promise.resolve();
  api.answer = async ({ path, body }) => {
    await beforeAnswer(body);
    const { email = '', password = '' } = JSON.parse(body) as { email?: string; password?: string };
    if (path === '/login') return { body: JSON.stringify({ token: tokenOf(email) }) };
    const key = keys().apiAesKey({ email: `${password}@example.com`, password, hardware: HARDWARE });
    return { body: encryptBuffer(Buffer.from(CDN_YAML + extraLine), key) };
  };
});

afterEach(async () => {
  await api[Symbol.asyncDispose]();
});

/** A token without a signature. */
function tokenOf(email: string): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  return `${part({ alg: 'none' })}.${part({ email, role: 'Operator' })}.`;
}

function keys(resourceSecret?: string): SecurityKeys {
  return new SecurityKeys({ templates: DEFAULT_KEY_TEMPLATES, resourceSecret });
}

function upstreamWith(resourceSecret?: string, secrets = new KnownSecrets()): Upstream {
  return new Upstream({
    api: api.link(),
    fingerprint: {
      hardwareString: () => Promise.resolve(HARDWARE),
      accept: (hardware) => {
        accepted.push(hardware);
        return Promise.resolve();
      },
    },
    keys: keys(resourceSecret),
    tokenKeys: { publicKeyPem: undefined, secret: undefined },
    loadCdn: () => Promise.resolve((config) => new S3CdnManager(config, api.links.cdn(1_000))),
    secrets,
    logger: createLogger({ level: 'silent' }),
  });
}

/** The password of a user is the name before the @: that makes the tests' users unlike each other. */
const login = (upstream: Upstream, name: string) => upstream.login(`${name}@example.com`, name, NEVER);

describe('the user that is logged in', () => {
  it('is none before the first login, for which callers can wait', async () => {
    const upstream = upstreamWith();
    assert.ok(!upstream.isAuthenticated);
    assert.throws(() => upstream.currentSession(), { code: 'not_authenticated' });
    await assert.rejects(upstream.authenticated(AbortSignal.abort(new Error('told to'))), /told to/);
    const waiting = upstream.authenticated(NEVER);
    await login(upstream, 'first');
    await waiting;
    assert.ok(upstream.isAuthenticated);
    assert.equal(upstream.currentSession().user.email, 'first@example.com');
  });

  it('stays when a later login fails', async () => {
    const upstream = upstreamWith();
    await login(upstream, 'first');
    extraLine = 'host: [';
    await assert.rejects(login(upstream, 'second'), { code: 'cdn_config_invalid' });
    assert.equal(upstream.currentSession().user.email, 'first@example.com');
  });

  it('is that of the later one of two logins, whichever is ready first', async () => {
    const upstream = upstreamWith();
    const gate = Promise.withResolvers<undefined>();
    beforeAnswer = async (body) => {
      if (body.includes('first')) await gate.promise;
    };
    const first = login(upstream, 'first');
    await login(upstream, 'second');
    gate.resolve(undefined);
    assert.equal((await first).user.email, 'first@example.com');
    assert.equal(upstream.currentSession().user.email, 'second@example.com');
  });
});

describe('a session that is asked for', () => {
  it('is waited for while the first login is under way', async () => {
    const upstream = upstreamWith();
    const gate = Promise.withResolvers<undefined>();
    beforeAnswer = async () => {
      await gate.promise;
    };
    const logging = login(upstream, 'first');
    const waiting = upstream.session(NEVER);
    const leaving = upstream.session(AbortSignal.abort(new Error('the client has left')));
    await assert.rejects(leaving, /the client has left/);
    gate.resolve(undefined);
    assert.equal(await waiting, await logging);
  });

  it('is waited for up to the deadline of a call', async () => {
    const upstream = upstreamWith();
    const gate = Promise.withResolvers<undefined>();
    beforeAnswer = async () => {
      await gate.promise;
    };
    const logging = login(upstream, 'first');
    await assert.rejects(upstream.session(NEVER), { code: 'not_authenticated' });
    gate.resolve(undefined);
    await assert.rejects(logging, { code: 'api_timeout' });
  });

  it('fails with the reason when the login that was under way fails', async () => {
    const upstream = upstreamWith();
    extraLine = 'host: [';
    const logging = assert.rejects(login(upstream, 'first'), { code: 'cdn_config_invalid' });
    await assert.rejects(upstream.session(NEVER), {
      code: 'not_authenticated',
      message: /^No user is logged in: the last login failed\. .*cdn\.yaml/,
    });
    await logging;
    assert.equal(upstream.loginStatus.failure?.code, 'cdn_config_invalid');
    extraLine = '';
    await login(upstream, 'first');
    const { user, since, failure } = upstream.loginStatus;
    assert.deepEqual([user?.email, typeof since?.getTime(), failure], ['first@example.com', 'number', undefined]);
  });

  it('is the present one while another login is under way', async () => {
    const upstream = upstreamWith();
    const present = await login(upstream, 'first');
    const gate = Promise.withResolvers<undefined>();
    beforeAnswer = async () => {
      await gate.promise;
    };
    const logging = login(upstream, 'second');
    assert.equal(await upstream.session(NEVER), present);
    gate.resolve(undefined);
    await logging;
  });
});

describe('the hardware string of a login', () => {
  it('counts as accepted when cdn.yaml could be decrypted and makes sense, not before', async () => {
    const upstream = upstreamWith();
    extraLine = 'host: [';
    await assert.rejects(login(upstream, 'first'), { code: 'cdn_config_invalid' });
    assert.deepEqual(accepted, []);
    extraLine = '';
    await login(upstream, 'first');
    assert.deepEqual(accepted, [HARDWARE]);
  });
});

describe('the resource key of a session', () => {
  it('comes from cdn.yaml, or from the configuration where that has none', async () => {
    const upstream = upstreamWith('of-the-configuration');
    const configured = (await login(upstream, 'first')).resourceAesKey();
    assert.deepEqual(configured, keys().resourceAesKey('of-the-configuration'));
    extraLine = 'resource_key: of-cdn-yaml';
    assert.deepEqual((await login(upstream, 'first')).resourceAesKey(), keys().resourceAesKey('of-cdn-yaml'));
  });

  it('is missed by loads and uploads only: the login succeeds without it', async () => {
    const upstream = upstreamWith();
    const session = await login(upstream, 'first');
    assert.throws(() => session.resourceAesKey(), { code: 'resource_key_missing', message: /set RESOURCE_KEY/ });
  });
});

describe('the secrets of a login', () => {
  it('are left out of the log from then on: password, token, and what cdn.yaml holds', async () => {
    const secrets = new KnownSecrets();
    const upstream = upstreamWith(undefined, secrets);
    extraLine = 'resource_key: of-cdn-yaml';
    await login(upstream, 'first-password');
    const text = `first-password ${tokenOf('first-password@example.com')} of-cdn-yaml down-secret up-secret`;
    assert.equal(secrets.redact(text), '[redacted] [redacted] [redacted] [redacted] [redacted]');
  });

  it('include a password that was refused', async () => {
    const secrets = new KnownSecrets();
    api.answer = () => ({ status: 401, body: '{}' });
    await assert.rejects(login(upstreamWith(undefined, secrets), 'almost-right'), { code: 'wrong_credentials' });
    assert.equal(secrets.redact('almost-right'), '[redacted]');
  });
});
