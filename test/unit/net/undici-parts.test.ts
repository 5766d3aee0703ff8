import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { describe, it } from 'node:test';
import '../../../src/binary-split/unlock-thread.ts';
import '../../../src/start.ts';

describe('undici', () => {
  it('is read in parts, by the start and by the thread of an unlock', () => {
    const files = Object.keys(createRequire(import.meta.url).cache);
    const ofUndici = files.filter((file) => file.includes('/node_modules/undici/'));
    assert.ok(ofUndici.some((file) => file.endsWith('/lib/dispatcher/agent.js')));
    assert.deepEqual(
      ofUndici.filter((file) => file.endsWith('/undici/index.js') || file.includes('/lib/web/')),
      [],
    );
  });
});
