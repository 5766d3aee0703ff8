import assert from 'node:assert/strict';
import { mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { releaseChunk } from '../../../src/files/release-chunk.ts';
import type { ArchiveLayer } from '../../../src/archive/archive-index.ts';
import { compressionOf } from '../../../src/archive/compression.ts';
import { LayerVerifier, readLayer } from '../../../src/archive/layer-verifier.ts';
import { encryptBuffer } from '../../../src/security/envelope-cipher.ts';
import { EnvelopeReader } from '../../../src/security/envelope-reader.ts';
import { makeLayer, seededBytes } from '../../../lab/images/image-maker.ts';
import { sha256 } from '../../../lab/sha256.ts';

const KEY = Buffer.alloc(32, 'k');
const INVALID = { name: 'LoaderError', code: 'archive_invalid' };
const plain = makeLayer({ 'model.bin': seededBytes('model', 300_000), zeros: Buffer.alloc(200_000) });

const KINDS = [
  { name: 'plain', file: plain, isBlob: false },
  { name: 'gzip', file: gzipSync(plain), isBlob: false },
  { name: 'zstd', file: zstdCompressSync(plain), isBlob: false },
  { name: 'plain, as a blob', file: plain, isBlob: true },
  { name: 'gzip, as a blob', file: gzipSync(plain), isBlob: true },
  { name: 'zstd, as a blob', file: zstdCompressSync(plain), isBlob: true },
] as const;
const DECOMPRESSED = KINDS.filter(({ file, isBlob }) => !isBlob && file !== plain);

function layerOf({ file, isBlob }: { readonly file: Buffer; readonly isBlob: boolean }): ArchiveLayer {
  const diffId = `sha256:${sha256(plain)}`;
  return {
    diffId,
    chainId: diffId,
    file: { start: 0, length: file.length },
    compression: compressionOf(file),
    sha256: isBlob ? sha256(file) : undefined,
  };
}

/** Gives the verifier copies of these bytes and releases each once it was taken, as those who send them do. */
async function verify(layer: ArchiveLayer, bytes: Buffer, chunkLength = 40_000): Promise<void> {
  using verifier = new LayerVerifier(layer);
  for (let start = 0; start < bytes.length; start += chunkLength) {
    const chunk = Buffer.from(new Uint8Array(bytes.subarray(start, start + chunkLength)).buffer);
    await verifier.take(chunk);
    releaseChunk(chunk);
  }
  await verifier.end();
}

function flipped(bytes: Buffer, bit: number): Buffer {
  const copy = Buffer.from(bytes);
  copy.writeUInt8(copy.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
  return copy;
}

describe('a layer', () => {
  for (const kind of KINDS) {
    const layer = layerOf(kind);

    for (const chunkLength of [1000, 40_000, 128 * 1024, kind.file.length]) {
      it(`that is right passes in chunks of ${chunkLength} bytes (${kind.name})`, () =>
        verify(layer, kind.file, chunkLength));
    }

    it(`is refused with a flipped bit anywhere (${kind.name})`, async () => {
      const bits = 8 * kind.file.length;
      for (let bit = 3; bit < bits; bit += Math.floor(bits / 25)) {
        // The time, the operating system and the like in the head of a gzip file are no content.
        if (!kind.isBlob && layer.compression === 'gzip' && bit >> 3 >= 4 && bit >> 3 < 10) continue;
        await assert.rejects(verify(layer, flipped(kind.file, bit)), INVALID, `bit ${bit}`);
      }
      for (let bit = bits - 64; bit < bits; bit++) {
        await assert.rejects(verify(layer, flipped(kind.file, bit)), INVALID, `bit ${bit}`);
      }
    });

    it(`is refused when it is cut (${kind.name})`, async () => {
      const { length } = kind.file;
      for (const left of [0, 1, 3, 10, 1000, 40_000, Math.floor(length / 2), length - 9, length - 8, length - 1]) {
        await assert.rejects(verify(layer, kind.file.subarray(0, left)), INVALID, `${left} bytes`);
      }
    });

    it(`is refused when it is another one (${kind.name})`, async () => {
      const other = makeLayer({ other: 'layer' });
      const file = { none: other, gzip: gzipSync(other), zstd: zstdCompressSync(other) }[layer.compression];
      await assert.rejects(verify(layer, file), { ...INVALID, message: /does not match its digest/ });
    });
  }

  it('is refused by name, with the cause where there is one', async () => {
    const layer = layerOf(KINDS[1]);
    await assert.rejects(verify(layer, KINDS[1].file.subarray(0, 1000)), (error: Error) => {
      assert.ok(error.message.includes(`the layer ${layer.diffId} can't be decompressed`));
      assert.ok(error.cause instanceof Error);
      return true;
    });
  });

  it('as a blob is right by the digest of the blob: what is in it is for the engine', async () => {
    const garbage = seededBytes('garbage', 5000);
    await verify({ ...layerOf(KINDS[1]), sha256: sha256(garbage) }, garbage);
    await assert.rejects(verify({ ...layerOf(KINDS[0]), sha256: sha256(garbage) }, plain), INVALID);
  });

  it('may be empty', async () => {
    const diffId = `sha256:${sha256(Buffer.alloc(0))}`;
    await verify({ ...layerOf(KINDS[0]), diffId }, Buffer.alloc(0));
  });

  it('may be of several gzip members', async () => {
    const file = Buffer.concat([gzipSync(plain.subarray(0, 1000)), gzipSync(plain.subarray(1000))]);
    await verify(layerOf({ file, isBlob: false }), file);
  });
});

describe('a verifier that decompresses', () => {
  for (const kind of DECOMPRESSED) {
    it(`does not hang when it is disposed of early (${kind.name})`, async () => {
      const layer = layerOf(kind);
      new LayerVerifier(layer)[Symbol.dispose]();
      const verifier = new LayerVerifier(layer);
      await verifier.take(kind.file.subarray(0, 50_000));
      verifier[Symbol.dispose]();
      await verifier.take(kind.file.subarray(50_000));
      await assert.rejects(verifier.end(), INVALID);
      verifier[Symbol.dispose]();
    });

    it(`does not hang when it is disposed of while it takes bytes (${kind.name})`, async () => {
      const verifier = new LayerVerifier(layerOf(kind));
      const taking = verifier.take(Buffer.from(kind.file));
      verifier[Symbol.dispose]();
      await taking;
    });

    it(`takes everything that follows a fault, and tells of the fault at the end (${kind.name})`, async () => {
      const verifier = new LayerVerifier(layerOf(kind));
      await verifier.take(flipped(kind.file.subarray(0, 1000), 8));
      for (let at = 0; at < 5; at++) await verifier.take(Buffer.from(kind.file.subarray(1000, 2000)));
      await assert.rejects(verifier.end(), { ...INVALID, message: /can't be decompressed/ });
      verifier[Symbol.dispose]();
    });

    it(`takes many chunks and warns of nothing (${kind.name})`, async () => {
      const warnings: string[] = [];
      const onWarning = ({ name }: Error) => warnings.push(name);
      process.on('warning', onWarning);
      await verify(layerOf(kind), kind.file, 1000);
      await new Promise((resolve) => setTimeout(resolve, 10));
      process.off('warning', onWarning);
      assert.deepEqual(warnings, []);
    });
  }
});

describe('the file of a layer', () => {
  let folder = '';
  before(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'loader-layer-'));
  });
  after(async () => {
    await rm(folder, { recursive: true, force: true });
  });

  /** What is read of a layer until its end or failure, in an archive that holds `file` and `offset` bytes before it. */
  async function read(layer: ArchiveLayer, file: Buffer): Promise<{ bytes: Buffer; error: unknown }> {
    const offset = 1000;
    const plaintext = Buffer.concat([Buffer.alloc(offset), file]);
    await writeFile(path.join(folder, 'archive'), encryptBuffer(plaintext, KEY));
    await using handle = await open(path.join(folder, 'archive'));
    const chunks: Buffer[] = [];
    try {
      const placed = { ...layer, file: { start: offset, length: layer.file.length } };
      for await (const chunk of readLayer(new EnvelopeReader(handle, offset + layer.file.length, KEY), placed)) {
        chunks.push(Buffer.from(chunk));
        releaseChunk(chunk);
      }
      return { bytes: Buffer.concat(chunks), error: undefined };
    } catch (error) {
      return { bytes: Buffer.concat(chunks), error };
    }
  }

  for (const kind of KINDS) {
    it(`is read as it is, and may be released chunk by chunk (${kind.name})`, async () => {
      const { bytes, error } = await read(layerOf(kind), kind.file);
      assert.equal(error, undefined);
      assert.ok(bytes.equals(kind.file));
    });

    it(`ends with a failure when it is wrong (${kind.name})`, async () => {
      const { error } = await read(layerOf(kind), flipped(kind.file, 8 * kind.file.length - 1));
      assert.equal((error as { code?: string }).code, 'archive_invalid');
    });

    it(`ends with a failure when the archive's file ends early (${kind.name})`, async () => {
      const { error } = await read(layerOf(kind), kind.file.subarray(0, -1000));
      assert.equal((error as Error).name, 'EndOfFileError');
    });
  }
});
