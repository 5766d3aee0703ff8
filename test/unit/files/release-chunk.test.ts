import assert from 'node:assert/strict';
import { createCipheriv } from 'node:crypto';
import { it } from 'node:test';
import { releaseChunk } from '../../../src/files/release-chunk.ts';

it('a chunk with a buffer of its own is empty after its release', () => {
  const chunk = createCipheriv('aes-256-cbc', Buffer.alloc(32), Buffer.alloc(16)).update(Buffer.alloc(100_000));
  assert.ok(chunk.length > 0);
  releaseChunk(chunk);
  assert.equal(chunk.length, 0);
  releaseChunk(chunk);
});

it('a chunk that is a part of a larger buffer stays as it is', () => {
  const whole = Buffer.alloc(100_000, 7);
  releaseChunk(whole.subarray(0, 50_000));
  assert.equal(whole.length, 100_000);
  const pooled = Buffer.from('from the pool');
  releaseChunk(pooled);
  assert.equal(pooled.toString(), 'from the pool');
});
