import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { DEFAULT_KEY_TEMPLATES as templates } from '../../../src/config/variables.ts';
import { SecurityKeys } from '../../../src/security/security-keys.ts';
import vectors from '../../vectors/vectors.json' with { type: 'json' };

const { secret, resource_aes_key } = vectors.resource_key;

describe('the AES key of the API', () => {
  for (const { email, password, hardware, api_aes_key } of vectors.keys) {
    it(`is the known answer for ${email} on "${hardware}"`, () => {
      const keys = new SecurityKeys({ templates, resourceSecret: undefined });
      assert.equal(keys.apiAesKey({ email, password, hardware }).toString('hex'), api_aes_key);
    });
  }
});

describe('the AES key of the resources', () => {
  it('is that of the configured secret, and that of cdn.yaml where there is one', () => {
    const keys = new SecurityKeys({ templates, resourceSecret: secret });
    assert.equal(keys.resourceAesKey(undefined)?.toString('hex'), resource_aes_key);
    assert.notEqual(keys.resourceAesKey('another')?.toString('hex'), resource_aes_key);
    const others = new SecurityKeys({ templates, resourceSecret: 'another' });
    assert.equal(others.resourceAesKey(secret)?.toString('hex'), resource_aes_key);
  });

  it('is missing where there is no secret', () => {
    const keys = new SecurityKeys({ templates, resourceSecret: undefined });
    assert.equal(keys.resourceAesKey(undefined), undefined);
  });
});
