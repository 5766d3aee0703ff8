import { lstat } from 'node:fs/promises';
import { randomUUID } from 'node:crypto';
import path from 'node:path';
import { hasErrorCode, systemErrorCode } from '../errors.ts';
import { encryptEnvelope } from '../security/envelope-cipher.ts';
import { deriveArchiveAesKey } from '../security/key-derivation.ts';
import { DraftFile } from '../files/draft-file.ts';
import { releaseChunk } from '../files/release-chunk.ts';
import { CliError } from './cli-error.ts';
import { EngineSource } from './engine-source.ts';
import { fileError } from './file-error.ts';
import { InputFile } from './input-file.ts';
import type { PackArguments } from './pack-arguments.ts';
import { formatBytes, ProgressLine, type ProgressOutput } from './progress-line.ts';
import type { TarSource } from './tar-source.ts';
import { checkArchive, type CheckedArchive } from '../archive/check-archive.ts';

export interface PackOptions extends Pick<PackArguments, 'outputPath' | 'keyFragmentPath'> {
  /** Is called when all files are known to be usable. */
  readonly openSource: (signal: AbortSignal) => Promise<EngineSource | TarSource>;
  /** Gets progress and notes. */
  readonly output: ProgressOutput;
  readonly signal: AbortSignal;
}

/** The archive is encrypted, so the umask alone decides who may read it. */
const FILE_MODE = 0o666;
/** No server has a longer fragment, but a wrong file may be longer. */
const MAX_FRAGMENT_LENGTH = 1024 * 1024;
const LINE_FEED = 0x0a;

/**
 * Makes the encrypted image archive. It gets its name after it was read back and found whole. After a failure, nothing
 * of it is left.
 *
 * @throws CliError, LoaderError, or the reason of the signal
 */
export async function packArchive(options: PackOptions): Promise<CheckedArchive> {
  const { outputPath, output, signal } = options;
  await assertAbsent(outputPath);
  const keyFragment = await readKeyFragment(options.keyFragmentPath, signal);
  if (keyFragment.at(-1) === LINE_FEED) {
    output.write(
      'Note: the key fragment ends with a line break, which counts as a part of it. If the Resource API sends the fragment without it, no Loader can unlock the archive.\n',
    );
  }
  const aesKey = deriveArchiveAesKey(keyFragment);
  const source = await options.openSource(signal);
  const partPath = path.join(path.dirname(outputPath), `.loader-pack-${randomUUID()}.part`);
  await using file = await createFile(partPath, outputPath);
  await encryptInto(file, source, aesKey, options);
  const archive = await readBack(partPath, aesKey, options);
  if (source instanceof EngineSource) assertComplete(source, archive);
  signal.throwIfAborted();
  await publish(file, outputPath);
  return archive;
}

async function assertAbsent(outputPath: string): Promise<void> {
  try {
    await lstat(outputPath);
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return;
    throw fileError(`The archive ${outputPath} can't be written`, error);
  }
  throw alreadyThere(outputPath);
}

function alreadyThere(outputPath: string): CliError {
  return new CliError(`${outputPath} exists already and stays as it is: move it away, or choose another name.`);
}

async function readKeyFragment(keyFragmentPath: string, signal: AbortSignal): Promise<Buffer> {
  const file = await InputFile.at('The key fragment file', keyFragmentPath);
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of file.chunks(signal)) {
    chunks.push(chunk);
    length += chunk.length;
    if (length > MAX_FRAGMENT_LENGTH) break;
  }
  const keyFragment = Buffer.concat(chunks);
  if (keyFragment.length === 0) {
    throw new CliError(`The key fragment file ${keyFragmentPath} is empty: save the Resource API's answer to it.`);
  }
  if (keyFragment.length > MAX_FRAGMENT_LENGTH) {
    throw new CliError(`The key fragment file ${keyFragmentPath} has more than 1 MiB: name the right file.`);
  }
  return keyFragment;
}

async function createFile(partPath: string, outputPath: string): Promise<DraftFile> {
  try {
    return await DraftFile.create(partPath, FILE_MODE);
  } catch (error) {
    throw fileError(`The archive ${outputPath} can't be written`, error);
  }
}

async function encryptInto(
  file: DraftFile,
  source: EngineSource | TarSource,
  aesKey: Buffer,
  { outputPath, output, signal }: PackOptions,
): Promise<void> {
  const progress = new ProgressLine(output, 'Packing', source.length);
  const plaintext = async function* () {
    for await (const chunk of source.chunks(signal)) {
      progress.add(chunk.length);
      yield chunk;
    }
  };
  try {
    let position = 0;
    for await (const chunk of encryptEnvelope(plaintext(), aesKey)) {
      signal.throwIfAborted();
      const { length } = chunk;
      await write(() => file.write(chunk, position), outputPath);
      releaseChunk(chunk);
      position += length;
    }
    await write(() => file.sync(), outputPath);
  } finally {
    progress.end();
  }
}

async function write(work: () => Promise<void>, outputPath: string): Promise<void> {
  try {
    await work();
  } catch (error) {
    throw fileError(`The archive ${outputPath} can't be written`, error);
  }
}

async function readBack(partPath: string, aesKey: Buffer, { output, signal }: PackOptions): Promise<CheckedArchive> {
  const { size } = await lstat(partPath);
  const progress = new ProgressLine(output, 'Checking', size);
  try {
    const onBytes = (length: number) => progress.add(length);
    return await checkArchive(partPath, aesKey, { onBytes, signal });
  } catch (error) {
    // The key is right, since it was used a moment ago.
    if (hasErrorCode(error, 'archive_key_wrong')) {
      throw new CliError('The input is not a tar: pack what docker save writes. Nothing was written.');
    }
    if (hasErrorCode(error, 'archive_changed')) {
      throw new CliError('The new archive was changed while it was read back. Nothing was written: pack again.', {
        cause: error,
      });
    }
    if (hasErrorCode(error, 'archive_invalid')) {
      throw new CliError(`${error.message} Nothing was written: save the images once more.`, { cause: error });
    }
    throw error;
  } finally {
    progress.end();
  }
}

/** An engine that fails while it exports may leave images out. */
function assertComplete({ wanted }: EngineSource, { images }: CheckedArchive): void {
  const packed = new Set(images.map(({ diffIds }) => diffIds.join()));
  const missing = [...wanted].filter(([, diffIds]) => !packed.has(diffIds.join())).map(([name]) => name);
  if (missing.length === 0) return;
  throw new CliError(
    `The Docker engine sent ${missing.join(', ')} in another form than before, or not at all. Nothing was written: pack again while its images do not change.`,
  );
}

async function publish(file: DraftFile, outputPath: string): Promise<void> {
  try {
    await file.publishNew(outputPath);
  } catch (error) {
    if (systemErrorCode(error) === 'EEXIST') throw alreadyThere(outputPath);
    throw fileError(`The archive ${outputPath} can't be written`, error);
  }
}

/** What was packed, as lines for people. */
export function describeArchive(outputPath: string, { compression, length, images }: CheckedArchive): string[] {
  const rows = [
    ['IMAGE', 'ID', 'PLATFORM', 'LAYERS', 'SIZE'],
    ...images.flatMap(({ id, tags, diffIds, platform, bytes }) => {
      const columns = [
        id.slice('sha256:'.length, 'sha256:'.length + SHORT_ID_LENGTH),
        platform ?? '-',
        String(diffIds.length),
        bytes === undefined ? '-' : formatBytes(bytes),
      ];
      return (tags.length === 0 ? ['(no tag)'] : tags).map((tag) => [tag, ...columns]);
    }),
  ].map((row) => row.map(printable));
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0))) ?? [];
  const table = rows.map((row) => `  ${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('  ')}`);
  const count = `${images.length} ${images.length === 1 ? 'image' : 'images'}`;
  return [
    `${printable(outputPath)}: ${length} bytes, ${count}, whole and readable`,
    ...table.map((line) => line.trimEnd()),
    ...(compression === 'none'
      ? []
      : [`The tar is compressed (${compression}): a Loader streams all of it, even what a device has already.`]),
  ];
}

const SHORT_ID_LENGTH = 12;

/** Names in a tar may hold control characters, which must not reach the terminal. */
function printable(text: string): string {
  return text.replaceAll(/\p{Cc}/gu, '?');
}
