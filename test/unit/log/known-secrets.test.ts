import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { KnownSecrets } from '../../../src/log/known-secrets.ts';

describe('a text', () => {
  it('loses every secret of the configuration and of a login', () => {
    const secrets = new KnownSecrets(['fleet-key']);
    secrets.add('hunter2', undefined);
    assert.equal(
      secrets.redact('fleet-key, hunter2 and fleet-key again'),
      '[redacted], [redacted] and [redacted] again',
    );
  });

  it('loses a secret as it stands in a URL', () => {
    const secrets = new KnownSecrets(['a b/ü&']);
    assert.equal(secrets.redact('https://host/?key=a%20b%2F%C3%BC%26'), 'https://host/?key=[redacted]');
  });

  it('loses the longer one of two secrets whole, where one is a part of the other', () => {
    assert.equal(new KnownSecrets(['hush', 'hush-hush']).redact('hush-hush'), '[redacted]');
    assert.equal(new KnownSecrets(['hush-hush', 'hush']).redact('hush-hush'), '[redacted]');
  });

  it('keeps what a secret of less than four characters would hit', () => {
    assert.equal(new KnownSecrets(['abc', '']).redact('abc abcd'), 'abc abcd');
  });
});

describe('a line of JSON', () => {
  const line = (value: unknown) => `${JSON.stringify(value)}\n`;

  it('stays as it is without a secret', () => {
    const text = '{ "a":1,   "b":"x" }\n';
    assert.equal(new KnownSecrets(['hush']).redactLine(text), text);
  });

  it('loses secrets at every depth, and keeps names, numbers and its shape', () => {
    const secrets = new KnownSecrets(['hush', '1234']);
    const value = { hush: 1234, list: ['hush', { deep: 'not hush' }], none: null, yes: true };
    assert.deepEqual(JSON.parse(secrets.redactLine(line(value))), {
      hush: 1234,
      list: ['[redacted]', { deep: 'not [redacted]' }],
      none: null,
      yes: true,
    });
  });

  for (const secret of ['qu"ote', 'back\\slash', 'two\nlines', 'never', 'schlüssel', '$& $1']) {
    it(`stays one line of JSON: ${JSON.stringify(secret)}`, () => {
      const redacted = new KnownSecrets([secret]).redactLine(line({ msg: `\never ${secret} after` }));
      assert.deepEqual(JSON.parse(redacted), { msg: `\never [redacted] after` });
      assert.match(redacted, /^[^\n]+\n$/);
    });
  }

  it('that is no JSON loses them too', () => {
    assert.equal(new KnownSecrets(['hush']).redactLine('not { hush'), 'not { [redacted]');
  });
});

describe('the secrets of logins', () => {
  it('are kept to the newest 200, and never push out those of the configuration', () => {
    const secrets = new KnownSecrets(['fleet-key']);
    for (let i = 0; i < 201; i++) secrets.add(`password-${i}.`);
    assert.equal(
      secrets.redact('fleet-key password-0. password-1. password-200.'),
      '[redacted] password-0. [redacted] [redacted]',
    );
  });

  it('count as new each time they are used', () => {
    const secrets = new KnownSecrets();
    secrets.add('first-password');
    for (let i = 0; i < 199; i++) secrets.add(`password-${i}.`);
    secrets.add('first-password', 'the one too many');
    assert.equal(secrets.redact('first-password password-0.'), '[redacted] password-0.');
  });
});
