import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { constants, gzipSync, zstdCompressSync } from 'node:zlib';
import { encryptBuffer } from '../../../src/security/envelope-cipher.ts';
import { ArchiveStream } from '../../../src/archive/archive-stream.ts';
import { openArchive, type OpenArchive } from '../../../src/archive/open-archive.ts';
import { archiveEntries, makeImage, makeLayer, saveImages, seededBytes } from '../../../lab/images/image-maker.ts';
import { TAR_END, tarArchive } from '../../../lab/images/tar-entry.ts';
import { NEVER } from '../../../src/async/abort.ts';

const KEY = Buffer.alloc(32, 'k');
/** What is decompressed at once. */
const CHUNK_LENGTH = 128 * 1024;
const INVALID = { name: 'LoaderError', code: 'archive_invalid' };

const COMPRESSORS = [
  ['gzip', (bytes: Buffer) => gzipSync(bytes, { level: 1 })],
  ['zstd', (bytes: Buffer) => zstdCompressSync(bytes, { params: { [constants.ZSTD_c_checksumFlag]: 1 } })],
] as const;

const layer = makeLayer({ 'model.bin': seededBytes('model', 700_000), zeros: Buffer.alloc(300_000) });
const images = [
  makeImage({ tags: ['azaion/api:1'], layers: [layer, makeLayer({ x: 'X' })] }),
  makeImage({ layers: [layer] }),
];
const tar = saveImages(images, { layout: 'oci' });

let folder = '';
let archive: OpenArchive | undefined;

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-compressed-'));
});

afterEach(async () => {
  await archive?.[Symbol.asyncDispose]();
  archive = undefined;
  await rm(folder, { recursive: true, force: true });
});

async function seal(compressed: Buffer): Promise<OpenArchive> {
  const name = path.join(folder, 'images.enc');
  await writeFile(name, encryptBuffer(compressed, KEY));
  await archive?.[Symbol.asyncDispose]();
  archive = await openArchive(name, KEY);
  return archive;
}

/** An archive without its end mark, which a block of zeros fills to whole chunks. */
function alignedEntries(): Buffer {
  const entries = archiveEntries([makeImage({ layers: [makeLayer({ x: 'X' })] })]);
  const { length } = tarArchive(entries, { hasEndMark: false });
  const content = 'x'.repeat(2 * CHUNK_LENGTH - length - 2 * 512);
  return tarArchive([...entries, { name: 'filling', content }], { hasEndMark: false });
}

interface Taken {
  /** What the engine would get. */
  readonly tar: Buffer;
  readonly error: (Error & { code?: string }) | undefined;
  readonly whole: ArchiveStream;
}

async function take(compressed: Buffer, signal = NEVER, onChunk: () => void = () => undefined): Promise<Taken> {
  const whole = new ArchiveStream(await seal(compressed));
  const chunks: Buffer[] = [];
  let error: Error | undefined;
  try {
    for await (const chunk of whole.body(signal)) {
      chunks.push(Buffer.from(chunk));
      onChunk();
    }
  } catch (thrown) {
    error = thrown as Error;
  }
  return { tar: Buffer.concat([...chunks, ...whole.end]), error, whole };
}

/** It failed as a broken archive, and an engine that got this much knows that it is not whole. */
function assertWithheld({ tar: taken, error, whole }: Taken, original: Buffer, about = ''): void {
  assert.deepEqual([error?.name, error?.code], [INVALID.name, INVALID.code], `${about} ${String(error?.stack)}`);
  const end = original.length - TAR_END.length;
  assert.ok(taken.length <= end + 511, `${about}: a block of the end mark was sent`);
  assert.deepEqual([whole.images, whole.end], [[], []]);
}

describe('an archive that is compressed as a whole', () => {
  for (const [name, compress] of COMPRESSORS) {
    it(`streams by as the tar that it is, and then tells its images (${name})`, async () => {
      const compressed = compress(tar);
      const { tar: taken, error, whole } = await take(compressed);
      assert.equal(error, undefined);
      assert.ok(taken.equals(tar));
      assert.equal(whole.bytesRead, compressed.length);
      assert.deepEqual(
        whole.images,
        images.map(({ id, tags, diffIds }) => ({ id, tags, diffIds })),
      );
    });

    it(`tells neither its images nor its end before all of it has streamed by (${name})`, async () => {
      const whole = new ArchiveStream(await seal(compress(tar)));
      let length = 0;
      for await (const chunk of whole.body(NEVER)) {
        length += chunk.length;
        assert.deepEqual([whole.images, whole.end], [[], []]);
      }
      assert.ok(length > 0 && length <= tar.length - TAR_END.length);
      assert.equal(whole.images.length, images.length);
      assert.equal(length + whole.end.reduce((sum, chunk) => sum + chunk.length, 0), tar.length);
    });

    it(`may be padded behind its end mark, of which not more is sent on than a bit (${name})`, async () => {
      const padded = Buffer.concat([tar, Buffer.alloc(10_240)]);
      const little = await take(compress(padded));
      assert.equal(little.error, undefined);
      assert.ok(little.tar.equals(padded.subarray(0, little.tar.length)) && little.tar.length >= tar.length);
      const huge = await take(compress(Buffer.concat([tar, Buffer.alloc(50_000_000)])));
      assert.equal(huge.error, undefined);
      assert.ok(huge.tar.subarray(0, tar.length).equals(tar));
      assert.ok(huge.tar.length < tar.length + 1_000_000, `${huge.tar.length} bytes`);
    });

    it(`may have a block of zeros before its last entries (${name})`, async () => {
      const odd = Buffer.concat([
        tarArchive(archiveEntries(images), { hasEndMark: false }),
        Buffer.alloc(512),
        tarArchive([{ name: 'last', content: seededBytes('last', 300_000) }]),
      ]);
      const { tar: taken, error } = await take(compress(odd));
      assert.equal(error, undefined);
      assert.ok(taken.equals(odd));
    });

    it(`is whole when a chunk ends within its end mark, or after what looks like one (${name})`, async () => {
      const aligned = Buffer.concat([alignedEntries(), Buffer.alloc(512)]);
      assert.equal(aligned.length % CHUNK_LENGTH, 0);
      const ended = Buffer.concat([aligned, Buffer.alloc(512)]);
      const continued = Buffer.concat([aligned, tarArchive([{ name: 'last', content: 'x'.repeat(3 * CHUNK_LENGTH) }])]);
      for (const odd of [ended, continued]) {
        const { tar: taken, error } = await take(compress(odd));
        assert.equal(error, undefined);
        assert.ok(taken.equals(odd));
      }
    });

    it(`is refused wherever it is cut, without its end mark (${name})`, async () => {
      const compressed = compress(tar);
      const cuts = [5, 20, 1000, 100_000, Math.floor(compressed.length / 2), compressed.length - 2000];
      for (const length of [...cuts, compressed.length - 9, compressed.length - 4, compressed.length - 1]) {
        assertWithheld(await take(compressed.subarray(0, length)), tar, `${length} bytes`);
      }
    });

    it(`is refused when its checksum is wrong, without its end mark (${name})`, async () => {
      const bad = compress(tar);
      // Of gzip the CRC is followed by the length; of zstd it is the last.
      const at = bad.length - (name === 'gzip' ? 8 : 1);
      bad.writeUInt8(bad.readUInt8(at) ^ 1, at);
      assertWithheld(await take(bad), tar);
    });

    it(`is refused when what it decompresses to has no end mark (${name})`, async () => {
      const none = tarArchive(archiveEntries(images), { hasEndMark: false });
      const taken = await take(compress(none));
      assert.deepEqual([taken.error?.code, taken.whole.images], ['archive_invalid', []]);
      const half = Buffer.concat([none, TAR_END.subarray(512)]);
      assertWithheld(await take(compress(half)), Buffer.concat([none, TAR_END]));
    });

    it(`is refused when a layer in it is wrong, without its end mark (${name})`, async () => {
      const bad = Buffer.from(tar);
      const at = bad.indexOf(layer.subarray(1000, 1100));
      bad.writeUInt8(bad.readUInt8(at) ^ 1, at);
      const taken = await take(compress(bad));
      assertWithheld(taken, bad);
      assert.match(taken.error?.message ?? '', /does not match its digest/);
    });

    it(`is refused when it has more than the manifest says, or less (${name})`, async () => {
      const without = tarArchive(archiveEntries(images).filter(({ content }) => content !== layer));
      assertWithheld(await take(compress(without)), without);
      assertWithheld(await take(compress(tarArchive([]))), tarArchive([]));
    });

    it(`is refused at once when it is no tar (${name})`, async () =>
      assertWithheld(await take(compress(Buffer.alloc(100_000, 'x'))), TAR_END));

    it(`stops with the reason of the signal, before and while it streams by (${name})`, async () => {
      const reason = new Error('cancelled');
      assert.equal((await take(compress(tar), AbortSignal.abort(reason))).error, reason);
      const abort = new AbortController();
      const taken = await take(compress(tar), abort.signal, () => abort.abort(reason));
      assert.equal(taken.error, reason);
      assert.ok(taken.tar.length < tar.length - TAR_END.length);
    });

    it(`may be left early, and its file can be closed then (${name})`, async () => {
      const open = await seal(compress(tar));
      const chunks = new ArchiveStream(open).body(NEVER);
      await chunks.next();
      await chunks.return();
      await open[Symbol.asyncDispose]();
      archive = undefined;
    });
  }

  it('fails with EndOfFileError when its file ends early', async () => {
    const open = await seal(gzipSync(tar));
    await writeFile(path.join(folder, 'images.enc'), '');
    const chunks = new ArchiveStream(open).body(NEVER);
    await assert.rejects(Array.fromAsync(chunks), { name: 'EndOfFileError' });
  });
});
