import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  deriveAesKey,
  deriveApiKey,
  deriveArchiveAesKey,
  deriveHardwareHash,
  digest,
} from '../../../src/security/key-derivation.ts';

describe('key templates', () => {
  const values = { email: 'a@b.c', password: 'pass', hardwareHash: 'HASH' };

  it('of a fleet of its own are filled in as they are', () => {
    const apiKey = deriveApiKey('{hardware_hash}:{password}-{email}', values);
    assert.equal(apiKey, digest('HASH:pass-a@b.c'));
    assert.equal(deriveHardwareHash('hw={hardware};', 'CPU: x'), digest('hw=CPU: x;'));
  });

  it('are filled in at every place of a placeholder', () => {
    assert.equal(deriveApiKey('{email}{email}{password}{hardware_hash}', values), digest('a@b.ca@b.cpassHASH'));
  });

  it('are filled in in one pass: a password with placeholders stays as it is', () => {
    const password = '{email}{hardware_hash}{password}';
    const apiKey = deriveApiKey('{password}/{email}/{hardware_hash}', { ...values, password });
    assert.equal(apiKey, digest(`${password}/a@b.c/HASH`));
  });

  it('are filled in in one pass: an email with placeholders stays as it is', () => {
    const apiKey = deriveApiKey('{email}/{password}/{hardware_hash}', { ...values, email: '{password}' });
    assert.equal(apiKey, digest('{password}/pass/HASH'));
  });

  it('take values literally, with the signs that mean something to String.replace', () => {
    for (const password of ['$&', '$1', '$$', "$'", '$`', '\\1']) {
      assert.equal(deriveApiKey('{password}.', { ...values, password }), digest(`${password}.`));
    }
  });

  it('keep braces that are no placeholder', () => {
    assert.equal(deriveHardwareHash('{unknown}{ hardware }{}{hardware}}', 'x'), digest('{unknown}{ hardware }{}x}'));
  });
});

describe('AES keys', () => {
  it('are of the text of a digest, not of the bytes that it stands for', () => {
    const key = digest('x');
    assert.notDeepEqual(deriveAesKey(key), deriveArchiveAesKey(Buffer.from(key, 'base64')));
    assert.deepEqual(deriveAesKey(key), deriveArchiveAesKey(Buffer.from(key, 'ascii')));
  });

  it('of archives are of the fragment as received, line breaks and bytes that are no UTF-8 included', () => {
    const fragment = Buffer.from('fragment');
    assert.notDeepEqual(deriveArchiveAesKey(fragment), deriveArchiveAesKey(Buffer.from('fragment\n')));
    const [first, second] = [Buffer.from([0xff]), Buffer.from([0xfe])]; // Both decode to U+FFFD.
    assert.notDeepEqual(deriveArchiveAesKey(first), deriveArchiveAesKey(second));
  });

  it('have 32 bytes', () => assert.equal(deriveAesKey('').length, 32));
});

it('digests text as UTF-8, to 64 characters', () => {
  assert.equal(digest('ü').length, 64);
  assert.notEqual(digest('ü'), digest('u\u0308'));
});
