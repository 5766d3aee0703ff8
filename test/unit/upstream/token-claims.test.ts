import assert from 'node:assert/strict';
import { createHmac, generateKeyPairSync } from 'node:crypto';
import { describe, it } from 'node:test';
import jwt from 'jsonwebtoken';
import { readClaims } from '../../../src/upstream/token-claims.ts';
import { LoaderError } from '../../../src/errors.ts';

const SECRET = 'a secret that the API shares with its clients';
const CLAIMS = { nameid: '7', role: 'Operator' };
const NO_KEYS = { publicKeyPem: undefined, secret: undefined };
const WITH_SECRET = { publicKeyPem: undefined, secret: SECRET };

const pem = {
  publicKeyEncoding: { type: 'spki', format: 'pem' },
  privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
} as const;
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048, ...pem });
const otherRsa = generateKeyPairSync('rsa', { modulusLength: 2048, ...pem });
const ec = generateKeyPairSync('ec', { namedCurve: 'P-256', ...pem });
const WITH_RSA = { publicKeyPem: rsa.publicKey, secret: undefined };
const WITH_EC = { publicKeyPem: ec.publicKey, secret: undefined };

describe('without a key', () => {
  it('claims are read, whoever signed them', () => {
    const claims = readClaims(jwt.sign(CLAIMS, 'whoever'), NO_KEYS);
    assert.equal(claims['nameid'], '7');
    assert.equal(readClaims(unsigned(CLAIMS), NO_KEYS)['role'], 'Operator');
  });

  it('an expired token is read: the API judges its time', () => {
    assert.equal(readClaims(jwt.sign({ ...CLAIMS, exp: 1000 }, SECRET), NO_KEYS)['exp'], 1000);
  });

  for (const token of [
    '',
    'no token',
    'a.b',
    'a.b.c',
    '..',
    `${base64('{}')}.${base64('{}')}`,
    `${base64('[')}.${base64('{}')}.x`,
  ]) {
    it(`refuses "${token}", which is no JWT`, () => assertRefused(() => readClaims(token, NO_KEYS)));
  }

  for (const payload of ['"a text"', 'null']) {
    it(`refuses a token whose claims are ${payload}`, () => {
      assertRefused(() => readClaims(`${base64('{"alg":"HS256","typ":"JWT"}')}.${base64(payload)}.AAAA`, NO_KEYS));
    });
  }
});

describe('with a shared secret', () => {
  for (const algorithm of ['HS256', 'HS384', 'HS512'] as const) {
    it(`takes a token signed with it by ${algorithm}`, () => {
      assert.equal(readClaims(jwt.sign(CLAIMS, SECRET, { algorithm }), WITH_SECRET)['nameid'], '7');
    });
  }

  it('takes an expired token, and one that is not yet valid: a clock may be wrong', () => {
    assert.equal(readClaims(jwt.sign({ ...CLAIMS, exp: 1000 }, SECRET), WITH_SECRET)['exp'], 1000);
    assert.equal(readClaims(jwt.sign({ ...CLAIMS, nbf: 4_000_000_000 }, SECRET), WITH_SECRET)['nameid'], '7');
  });

  it('refuses a token signed with another', () =>
    assertRefused(() => readClaims(jwt.sign(CLAIMS, 'another'), WITH_SECRET)));

  it('refuses a token whose claims were changed', () => {
    const [head, , signature] = jwt.sign(CLAIMS, SECRET).split('.');
    const claims = base64(JSON.stringify({ ...CLAIMS, role: 'ApiAdmin' }));
    assertRefused(() => readClaims([head, claims, signature].join('.'), WITH_SECRET));
  });

  it('refuses a token that is signed with the algorithm none', () => {
    assertRefused(() => readClaims(unsigned(CLAIMS), WITH_SECRET));
    assertRefused(() => readClaims(`${unsigned(CLAIMS)}AAAA`, WITH_SECRET));
  });

  it('refuses a token whose signature was taken away', () => {
    const [head, claims] = jwt.sign(CLAIMS, SECRET).split('.');
    assertRefused(() => readClaims(`${head ?? ''}.${claims ?? ''}.`, WITH_SECRET));
  });

  it('refuses a token that an RSA key signed', () => {
    assertRefused(() => readClaims(jwt.sign(CLAIMS, rsa.privateKey, { algorithm: 'RS256' }), WITH_SECRET));
  });

  it('refuses a token whose claims are a text', () =>
    assertRefused(() => readClaims(jwt.sign('a text', SECRET), WITH_SECRET)));

  it('refuses what is no JWT', () => {
    for (const token of ['', 'no token', 'a.b.c']) assertRefused(() => readClaims(token, WITH_SECRET));
  });

  it('refuses claims that are no object, without quoting them', () => {
    for (const payload of ['hush', '7', '[1]', 'null']) {
      const token = `${base64('{"alg":"HS256","typ":"JWT"}')}.${base64(payload)}.AAAA`;
      assert.throws(
        () => readClaims(token, { publicKeyPem: undefined, secret: undefined }),
        (error: Error) => 'code' in error && error.code === 'token_invalid' && error.cause === undefined,
      );
    }
  });
});

describe('with a public key', () => {
  for (const algorithm of ['RS256', 'RS384', 'RS512', 'PS256'] as const) {
    it(`takes a token that its RSA key signed by ${algorithm}`, () => {
      assert.equal(readClaims(jwt.sign(CLAIMS, rsa.privateKey, { algorithm }), WITH_RSA)['nameid'], '7');
    });
  }

  it('takes a token that its EC key signed', () => {
    assert.equal(readClaims(jwt.sign(CLAIMS, ec.privateKey, { algorithm: 'ES256' }), WITH_EC)['nameid'], '7');
  });

  it('takes an expired token', () => {
    const token = jwt.sign({ ...CLAIMS, exp: 1000 }, rsa.privateKey, { algorithm: 'RS256' });
    assert.equal(readClaims(token, WITH_RSA)['exp'], 1000);
  });

  it('refuses a token that another key signed', () => {
    assertRefused(() => readClaims(jwt.sign(CLAIMS, otherRsa.privateKey, { algorithm: 'RS256' }), WITH_RSA));
    assertRefused(() => readClaims(jwt.sign(CLAIMS, rsa.privateKey, { algorithm: 'RS256' }), WITH_EC));
  });

  for (const algorithm of ['HS256', 'HS384', 'HS512'] as const) {
    it(`refuses a token signed by ${algorithm} with the text of the public key as its secret`, () => {
      // jsonwebtoken itself refuses to sign this, so that an attacker's own code must.
      const head = base64(JSON.stringify({ alg: algorithm, typ: 'JWT' }));
      for (const keys of [WITH_RSA, WITH_EC]) {
        const signed = `${head}.${base64(JSON.stringify(CLAIMS))}`;
        const hmac = createHmac(algorithm.replace('HS', 'sha'), keys.publicKeyPem).update(signed).digest('base64url');
        assert.throws(() => jwt.verify(`${signed}.${hmac}`, keys.publicKeyPem)); // As the library itself does.
        assertRefused(() => readClaims(`${signed}.${hmac}`, keys));
      }
    });
  }

  it('refuses a token that is signed with the algorithm none', () =>
    assertRefused(() => readClaims(unsigned(CLAIMS), WITH_RSA)));

  it('counts rather than a secret, when both are set', () => {
    const both = { publicKeyPem: rsa.publicKey, secret: SECRET };
    assertRefused(() => readClaims(jwt.sign(CLAIMS, SECRET), both));
  });
});

function assertRefused(read: () => unknown): void {
  assert.throws(read, (error) => {
    assert.ok(error instanceof LoaderError, String(error));
    assert.equal(error.code, 'token_invalid');
    // Neither the token nor the keys.
    assert.doesNotMatch(error.message, /eyJ|BEGIN|a secret that/);
    return true;
  });
}

function unsigned(claims: object): string {
  return `${base64('{"alg":"none","typ":"JWT"}')}.${base64(JSON.stringify(claims))}.`;
}

function base64(text: string): string {
  return Buffer.from(text).toString('base64url');
}
