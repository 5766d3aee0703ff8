import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { manifestIds } from '../../../src/docker/manifest-ids.ts';

const CONFIG = { digest: `sha256:${'a'.repeat(64)}`, length: 540 };
const LAYER = { digest: `sha256:${'b'.repeat(64)}`, length: 1536, compression: 'none' as const };

describe('the IDs of an image in a containerd image store', () => {
  it('differ by config, layers, their order and their compression', () => {
    const higher = { ...LAYER, digest: `sha256:${'c'.repeat(64)}` };
    const all = [
      manifestIds(CONFIG, [LAYER, higher]),
      manifestIds({ ...CONFIG, digest: LAYER.digest }, [LAYER, higher]),
      manifestIds(CONFIG, [higher, LAYER]),
      manifestIds(CONFIG, [LAYER]),
      manifestIds(CONFIG, [LAYER, { ...higher, compression: 'gzip' }]),
      manifestIds(CONFIG, []),
    ].flat();
    assert.equal(new Set(all).size, all.length);
    for (const id of all) assert.match(id, /^sha256:[0-9a-f]{64}$/);
  });

  it('are those that Docker 26.1 gave', () => {
    const layers = [
      ['a1101da4c2a51d55767ad847b2085fc7fb023b398b0ec55618c3513114e647d8', 101_888],
      ['1d7bfef1a596ec555d8901e199414b122a79e6101bef6ed2b0599c305a419bb8', 51_712],
      ['4e55e3587b86bd7e442e32d6c301c7526718b5bdc61780dcd036f312255e1a8e', 51_712],
    ] as const;
    const config = { digest: 'sha256:a3ce78ae08a628300b588902370bb23d342cc4d8c4e9572b4001f0ca06e5e5d2', length: 540 };
    const files = layers.map(([hex, length]) => ({ digest: `sha256:${hex}`, length, compression: 'none' as const }));
    assert.deepEqual(manifestIds(config, files), [
      // Of an archive in the classic layout, and of the same in the OCI layout.
      'sha256:62ff7754c3f8c6b4d54511bf1b02e1380345ab26ad1c504622e39fae6b5d4cdd',
      'sha256:146a28f924878f3d16a48bac8d09ba0b40a520eb7ce971105f7ce3d206ba1d16',
    ]);
  });
});
