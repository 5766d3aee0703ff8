import assert from 'node:assert/strict';
import { execFileSync, spawn, type ChildProcessByStdio } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { appendFileSync, mkdirSync } from 'node:fs';
import fsPromises, { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { archiveEntries, makeImage, makeLayer, saveImages, seededBytes } from '../../../lab/images/image-maker.ts';
import { tarArchive } from '../../../lab/images/tar-entry.ts';
import { ProgressLine } from '../../../src/cli/progress-line.ts';
import { decryptBuffer } from '../../../src/security/envelope-cipher.ts';
import { deriveArchiveAesKey } from '../../../src/security/key-derivation.ts';
import { DraftFile } from '../../../src/files/draft-file.ts';
import { readArchiveIndex } from '../../../src/archive/archive-index.ts';
import { openArchive } from '../../../src/archive/open-archive.ts';
import { DockerCli } from '../../../lab/services/docker-cli.ts';
import { shippedCommand, shippedFolder } from '../../../lab/shipped-folder.ts';
import { DOCKER_HOST, DOCKER_SKIP, LOG_FOLDER, noteSecrets } from '../../../lab/test-environment.ts';

const COMMAND = shippedCommand(await shippedFolder());
const ROOT_SKIP = process.getuid?.() === 0 ? false : 'mounting a small disk needs root';

/** Text, so that it would be seen in an output. */
const FRAGMENT = Buffer.from(`fragment-${randomBytes(24).toString('hex')}`);
const AES_KEY = deriveArchiveAesKey(FRAGMENT);
const SECRETS = [FRAGMENT.toString(), FRAGMENT.toString('hex'), FRAGMENT.toString('base64'), AES_KEY.toString('hex')];

/** The engine may have images of other tests. */
const RUN = randomUUID();
const base = makeLayer({ 'base/model.bin': seededBytes(`${RUN} base`, 1_000_000) });
const one = makeImage({
  tags: [`pack/${RUN}-one:1`, `pack/${RUN}-one:latest`, `pack/${RUN}-one:never-packed`],
  layers: [base, makeLayer({ 'app/one': RUN })],
});
const two = makeImage({ tags: [`localhost:5000/pack/${RUN}/two:2`], layers: [base], architecture: 'arm64' });
const TAR = saveImages([one, two], { layout: 'oci' });

let folder = '';
let fragmentPath = '';
let outputPath = '';

before(() => {
  noteSecrets(...SECRETS);
});

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-pack-'));
  fragmentPath = path.join(folder, 'fragment');
  outputPath = path.join(folder, 'out', 'images.enc');
  await mkdir(path.dirname(outputPath));
  await writeFile(fragmentPath, FRAGMENT);
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

interface Run {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

type Child = ChildProcessByStdio<Writable, Readable, Readable>;

function start(args: readonly string[], env: Readonly<Record<string, string>> = {}): Child {
  return spawn(process.execPath, [COMMAND, ...args], {
    env: { PATH: process.env['PATH'], ...(DOCKER_HOST === undefined ? {} : { DOCKER_HOST }), ...env },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
}

/** Waits for its end. What it said is kept for the test that looks for secrets. */
async function ended(child: Child): Promise<Run> {
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (data: Buffer) => (stdout += data.toString()));
  child.stderr.on('data', (data: Buffer) => (stderr += data.toString()));
  const [code] = (await once(child, 'close')) as [number | null];
  mkdirSync(LOG_FOLDER, { recursive: true });
  appendFileSync(path.join(LOG_FOLDER, 'pack.log'), `${stdout}${stderr}`);
  for (const secret of SECRETS) assert.ok(!`${stdout}${stderr}`.includes(secret));
  assert.doesNotMatch(stderr, /^ {4}at /m, 'no stack');
  return { code, stdout, stderr };
}

async function loader(args: readonly string[], env?: Readonly<Record<string, string>>): Promise<Run> {
  const child = start(args, env);
  child.stdin.end();
  return await ended(child);
}

function packArgs(...what: string[]): string[] {
  return ['pack', ...what, '--output', outputPath, '--key-fragment-file', fragmentPath];
}

async function pack(...what: string[]): Promise<Run> {
  return await loader(packArgs(...what));
}

async function packTar(tar: Buffer): Promise<Run> {
  const tarPath = path.join(folder, 'images.tar');
  await writeFile(tarPath, tar);
  return await pack('--from-tar', tarPath);
}

/** It failed with these words, and nothing is left of it. */
async function assertFailed(run: Run, words: RegExp, code = 1): Promise<void> {
  assert.match(run.stderr, words);
  assert.deepEqual([run.code, run.stdout], [code, '']);
  assert.deepEqual(await outputs(), []);
}

async function outputs(): Promise<string[]> {
  return await readdir(path.dirname(outputPath));
}

/** Waits until the archive in the making has bytes. */
async function packing(): Promise<void> {
  for (;;) {
    const [name] = await outputs();
    if (name !== undefined && (await stat(path.join(path.dirname(outputPath), name))).size > 100_000) return;
    await sleep(10);
  }
}

async function readIndex() {
  const archive = await openArchive(outputPath, AES_KEY);
  try {
    return await readArchiveIndex(archive.reader, new AbortController().signal);
  } finally {
    await archive[Symbol.asyncDispose]();
  }
}

describe('loader pack, of images in a real engine', { skip: DOCKER_SKIP }, () => {
  let docker: DockerCli;
  before(async () => {
    docker = new DockerCli(DOCKER_HOST ?? '');
    await docker.load(TAR);
  });
  after(async () => {
    for (const { id } of [one, two]) await docker.remove(id);
    await docker.close();
  });

  it('makes an archive that opens, with the IDs and tags of the images', async () => {
    const [tagOne = '', tagLatest = ''] = one.tags;
    const [tagTwo = ''] = two.tags;
    const run = await pack(tagOne, tagTwo, tagLatest);
    assert.deepEqual([run.code, run.stderr], [0, '']);
    const images = new Map((await readIndex()).map((image) => [image.config.id, image]));
    assert.deepEqual([...images.keys()].sort(), [one.id, two.id].sort());
    assert.deepEqual([...(images.get(one.id)?.tags ?? [])].sort(), [tagOne, tagLatest].sort());
    assert.deepEqual(images.get(two.id)?.tags, [tagTwo]);
    assert.deepEqual(await outputs(), ['images.enc']);
  });

  it('prints what it made: tags, short IDs, platforms, layers, bytes', async () => {
    const [tagOne = ''] = one.tags;
    const [tagTwo = ''] = two.tags;
    const { stdout } = await pack(tagOne, tagTwo);
    const { size } = await stat(outputPath);
    assert.match(stdout, new RegExp(`^${outputPath}: ${size} bytes, 2 images, whole and readable\n`));
    const rows = stdout.split('\n').map((line) => line.trim().split(/ {2,}/));
    assert.ok(rows.some((row) => row.join() === `${tagOne},${one.id.slice(7, 19)},linux/amd64,2,1.0 MB`));
    assert.ok(rows.some((row) => row.join() === `${tagTwo},${two.id.slice(7, 19)},linux/arm64,1,1.0 MB`));
  });

  it('takes an image without a tag as its latest, and not all of its tags', async () => {
    assert.equal((await pack(`pack/${RUN}-one`)).code, 0);
    assert.deepEqual(
      (await readIndex()).map(({ tags }) => tags),
      [[`pack/${RUN}-one:latest`]],
    );
  });

  it('takes an ID, and says that the image has no tag then', async () => {
    const { code, stdout } = await pack(two.id.slice(7, 19));
    assert.equal(code, 0);
    assert.match(stdout, new RegExp(`\\(no tag\\) +${two.id.slice(7, 19)}`));
  });

  it('names all images that are missing, and makes nothing', async () => {
    const run = await pack(`pack/${RUN}-three:1`, one.tags[0] ?? '', `pack/${RUN}-four`);
    await assertFailed(
      run,
      new RegExp(`does not have pack/${RUN}-three:1, pack/${RUN}-four: pull or build them first`),
    );
  });

  it('does not mind variables of the Loader that it does not need', async () => {
    const run = await loader(packArgs(...two.tags), { PORT: 'eighty', RESOURCE_API_URL: 'nonsense' });
    assert.equal(run.code, 0);
  });
});

describe('loader pack, of a tar', () => {
  it('makes the same of a file and of stdin: an envelope of its bytes', async () => {
    assert.equal((await packTar(TAR)).code, 0);
    const fromFile = await readFile(outputPath);
    await rm(outputPath);
    const child = start(packArgs('--from-tar', '-'));
    child.stdin.end(TAR);
    assert.equal((await ended(child)).code, 0);
    const fromStdin = await readFile(outputPath);
    assert.ok(decryptBuffer(fromFile, AES_KEY).equals(TAR));
    assert.ok(decryptBuffer(fromStdin, AES_KEY).equals(TAR));
    assert.ok(!fromFile.subarray(0, 16).equals(fromStdin.subarray(0, 16)), 'each has an IV of its own');
  });

  it('takes both layouts, and needs no engine', async () => {
    for (const layout of ['classic', 'oci'] as const) {
      await writeFile(path.join(folder, 'images.tar'), saveImages([one, two], { layout, compression: 'gzip' }));
      const args = packArgs('--from-tar', path.join(folder, 'images.tar'));
      const run = await loader(args, { DOCKER_HOST: 'nonsense' });
      assert.equal(run.code, 0);
      assert.deepEqual((await readIndex()).map(({ config }) => config.id).sort(), [one.id, two.id].sort());
      await rm(outputPath);
    }
  });

  for (const [compression, compress] of Object.entries({ gzip: gzipSync, zstd: zstdCompressSync })) {
    it(`looks through one that is compressed (${compression}), and says that it will be streamed whole`, async () => {
      const { code, stdout } = await packTar(compress(TAR));
      assert.equal(code, 0);
      assert.match(stdout, new RegExp(`compressed \\(${compression}\\): a Loader streams all of it`));
      for (const { id } of [one, two]) assert.match(stdout, new RegExp(id.slice(7, 19)));
    });
  }

  const flipped = (tar: Buffer, position: number) => {
    const copy = Buffer.from(tar);
    copy.writeUInt8(copy.readUInt8(position) ^ 1, position);
    return copy;
  };
  const layerAt = TAR.indexOf(base.subarray(512, 1024)) + 600_000;
  const without = (name: string) =>
    archiveEntries([one, two], { layout: 'oci' }).filter((entry) => entry.name !== name);
  const broken: Readonly<Record<string, { tar: Buffer; words: RegExp }>> = {
    'is empty': { tar: Buffer.alloc(0), words: /The tar \S+ is empty: see whether docker save failed/ },
    'is no tar': { tar: randomBytes(5000), words: /is not a tar: pack what docker save writes/ },
    'is cut': { tar: TAR.subarray(0, 700_000), words: /it is cut or not complete.*Nothing was written/ },
    'has a flipped bit in a layer': { tar: flipped(TAR, layerAt), words: /does not match its digest/ },
    'has no manifest.json': { tar: tarArchive(without('manifest.json')), words: /no manifest\.json/ },
    'has an image without an operating system': {
      tar: saveImages([makeImage({ tags: ['a:1'], layers: [base], os: '' })]),
      words: /no valid architecture, os and rootfs/,
    },
    'is compressed and cut': { tar: gzipSync(TAR).subarray(0, 700_000), words: /can't be decompressed/ },
    'has a flipped bit in a layer, compressed': {
      tar: gzipSync(flipped(TAR, layerAt)),
      words: /does not match its digest/,
    },
  };
  for (const [what, { tar, words }] of Object.entries(broken)) {
    it(`refuses one that ${what}`, async () => {
      await assertFailed(await packTar(tar), words);
    });
  }

  it('lets no name in it command the terminal', async () => {
    const { code, stdout, stderr } = await packTar(
      saveImages([makeImage({ tags: ['evil\u001b[2J:1'], layers: [base] })]),
    );
    assert.equal(code, 1);
    assert.match(stderr, /a tag that Docker does not allow/);
    assert.ok(!`${stdout}${stderr}`.includes('\u001b'));
  });

  it('tells what is wrong with a file that is not there, or a folder', async () => {
    await assertFailed(await pack('--from-tar', path.join(folder, 'absent')), /can't be read \(ENOENT\)/);
    await assertFailed(await pack('--from-tar', folder), /can't be read \(EISDIR\)/);
    const child = start(packArgs('--from-tar', '-'));
    child.stdin.end();
    await assertFailed(await ended(child), /stdin is empty/);
  });
});

describe('the key fragment of loader pack', () => {
  it('is taken as it is, and said to end with a line break when it does', async () => {
    const fragment = Buffer.from(`${FRAGMENT.toString()}\n`);
    await writeFile(fragmentPath, fragment);
    const { code, stderr } = await packTar(TAR);
    assert.equal(code, 0);
    assert.match(stderr, /^Note: the key fragment ends with a line break/);
    assert.ok(decryptBuffer(await readFile(outputPath), deriveArchiveAesKey(fragment)).equals(TAR));
  });

  it('must not be empty, absent, or another file', async () => {
    await writeFile(fragmentPath, '');
    await assertFailed(await packTar(TAR), /The key fragment file \S+ is empty/);
    await writeFile(fragmentPath, Buffer.alloc(1024 * 1024 + 1));
    await assertFailed(await packTar(TAR), /has more than 1 MiB/);
    await rm(fragmentPath);
    await assertFailed(await packTar(TAR), /The key fragment file \S+ can't be read \(ENOENT\)/);
  });
});

describe('the output of loader pack', () => {
  it('is never overwritten', async () => {
    await writeFile(outputPath, 'earlier');
    const run = await packTar(TAR);
    assert.deepEqual([run.code, run.stdout], [1, '']);
    assert.match(run.stderr, /exists already and stays as it is/);
    assert.equal(await readFile(outputPath, 'utf8'), 'earlier');
    assert.deepEqual(await outputs(), ['images.enc']);
  });

  it('is not overwritten when it appears in the meantime either', async () => {
    const child = start(packArgs('--from-tar', '-'));
    child.stdin.write(TAR.subarray(0, 500_000));
    await packing();
    await writeFile(outputPath, 'meanwhile');
    child.stdin.end(TAR.subarray(500_000));
    const run = await ended(child);
    assert.deepEqual([run.code, run.stdout], [1, '']);
    assert.match(run.stderr, /exists already and stays as it is/);
    assert.equal(await readFile(outputPath, 'utf8'), 'meanwhile');
    assert.deepEqual(await outputs(), ['images.enc']);
  });

  it('has the permissions of any new file', async () => {
    assert.equal((await packTar(TAR)).code, 0);
    assert.equal((await stat(outputPath)).mode, (await stat(fragmentPath)).mode);
  });

  it('is not made on a full disk', { skip: ROOT_SKIP }, async () => {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=512k', 'tmpfs', path.dirname(outputPath)]);
    try {
      await assertFailed(await packTar(TAR), /images\.enc can't be written \(ENOSPC\): the disk is full: make room/);
    } finally {
      execFileSync('umount', [path.dirname(outputPath)]);
    }
  });

  it('is not made in a folder that is not there', async () => {
    await rm(path.dirname(outputPath), { recursive: true });
    const { code, stderr } = await packTar(TAR);
    assert.equal(code, 1);
    assert.match(stderr, /can't be written \(ENOENT\)/);
  });

  for (const [signal, code] of [['SIGINT', 130] as const, ['SIGTERM', 143] as const]) {
    it(`is not made after ${signal} in the middle: exit code ${code}`, async () => {
      const child = start(packArgs('--from-tar', '-'));
      child.stdin.on('error', () => undefined);
      child.stdin.write(TAR.subarray(0, 500_000));
      await packing();
      child.kill(signal);
      await assertFailed(await ended(child), /^Interrupted; nothing was written\.$/m, code);
    });
  }
});

describe('loader pack, with an engine on a bad day', () => {
  const answers = {
    ping: (response: ServerResponse) => response.setHeader('api-version', '1.41').end('OK'),
    image: (response: ServerResponse) => {
      response.end(JSON.stringify({ Id: two.id, RootFS: { Layers: two.diffIds } }));
    },
  };
  let server: Server;
  let host = '';
  let onExport: (response: ServerResponse) => void;

  beforeEach(async () => {
    const socketPath = path.join(folder, 'docker.sock');
    host = `unix://${socketPath}`;
    server = createServer((request: IncomingMessage, response) => {
      if (request.url === '/_ping') answers.ping(response);
      else if (request.url?.startsWith('/v1.41/images/get?names=') === true) onExport(response);
      else answers.image(response);
    });
    server.listen(socketPath);
    await once(server, 'listening');
  });

  afterEach(() => {
    server.closeAllConnections();
    server.close();
  });

  async function packFrom(env: Readonly<Record<string, string>> = {}): Promise<Run> {
    return await loader(packArgs('x:1'), { DOCKER_HOST: host, ENGINE_STALL_TIMEOUT_MS: '150', ...env });
  }

  it('gives up when it falls silent in the middle', async () => {
    onExport = (response) => response.write(TAR.subarray(0, 300_000));
    await assertFailed(await packFrom(), /sent nothing for 150 ms: restart it; .* ENGINE_STALL_TIMEOUT_MS/);
  });

  it('gives up when it never begins, after ten times as long', async () => {
    onExport = () => undefined;
    await assertFailed(await packFrom(), /sent nothing for 1500 ms/);
  });

  it('waits longer for the first byte than for the next: engines prepare the tar before', async () => {
    const tar = saveImages([two]);
    onExport = (response) => setTimeout(() => response.end(tar), 600);
    assert.equal((await packFrom()).code, 0);
    assert.ok(decryptBuffer(await readFile(outputPath), AES_KEY).equals(tar));
  });

  it('tells what it says', async () => {
    onExport = (response) => response.writeHead(500).end('{"message":"write /layer.tar: no space left on device"}');
    await assertFailed(await packFrom(), /The disk of the Docker engine is full: make room there/);
  });

  it('notices a connection that breaks', async () => {
    onExport = (response) => response.write(TAR.subarray(0, 300_000), () => response.destroy());
    await assertFailed(await packFrom(), /The connection to the Docker engine at \S+ failed/);
  });

  it('notices an error that stands in the tar, where a failing engine puts it', async () => {
    onExport = (response) => response.end(Buffer.concat([TAR.subarray(0, 300_000), Buffer.from('{"message":"x"}')]));
    await assertFailed(await packFrom(), /The image archive is broken: .*Nothing was written/);
  });

  it('notices an image that is not in the tar', async () => {
    onExport = (response) => response.end(saveImages([one]));
    await assertFailed(await packFrom(), /The Docker engine sent x:1 in another form than before, or not at all/);
  });

  it('is told to stop at Ctrl-C while the engine prepares', async () => {
    const asked = Promise.withResolvers<undefined>();
    onExport = () => asked.resolve(undefined);
    const child = start(packArgs('x:1'), { DOCKER_HOST: host });
    const end = ended(child);
    await asked.promise;
    child.kill('SIGINT');
    await assertFailed(await end, /^Interrupted/, 130);
  });

  it('tells that nobody listens, and that DOCKER_HOST is wrong', async () => {
    await assertFailed(
      await packFrom({ DOCKER_HOST: 'unix:///nonexistent/docker.sock' }),
      /No Docker engine listens at/,
    );
    await assertFailed(await packFrom({ DOCKER_HOST: 'docker.sock' }), /DOCKER_HOST must be unix:/);
  });
});

describe('the loader command', () => {
  it('has help', async () => {
    assert.match((await loader(['--help'])).stdout, /^Usage: loader COMMAND/);
    const { code, stdout, stderr } = await loader(['pack', '--help']);
    assert.match(stdout, /^Usage:\n {2}loader pack IMAGE\.\.\. --output FILE/);
    assert.deepEqual([code, stderr], [0, '']);
  });

  const wrong: Readonly<Record<string, { args: string[]; words: RegExp }>> = {
    'without a command': { args: [], words: /^A command is missing\.\n\nUsage: loader COMMAND/ },
    'with an unknown command': { args: ['unpack'], words: /^There is no command unpack\.\n\nUsage: loader COMMAND/ },
    'without images': {
      args: ['pack', '-o', 'a', '-k', 'b'],
      words: /^Name the images, or use --from-tar\.\n\nUsage:/,
    },
    'with images and a tar': {
      args: ['pack', 'x', '--from-tar', 'y', '-o', 'a', '-k', 'b'],
      words: /^Name images or use --from-tar, not both\./,
    },
    'without --output': { args: ['pack', 'x', '-k', 'b'], words: /^--output is missing\./ },
    'without --key-fragment-file': { args: ['pack', 'x', '-o', 'a'], words: /^--key-fragment-file is missing\./ },
    'with an empty name': { args: ['pack', '', '-o', 'a', '-k', 'b'], words: /^An argument is empty\./ },
    'with an unknown option': { args: ['pack', 'x', '--ouput', 'a'], words: /^Unknown option '--ouput'\.\n\nUsage:/ },
  };
  for (const [what, { args, words }] of Object.entries(wrong)) {
    it(`exits with 2 and its usage ${what}`, async () => {
      const run = await loader(args);
      assert.match(run.stderr, words);
      assert.deepEqual([run.code, run.stdout], [2, '']);
    });
  }
});

describe('the progress of a command', () => {
  function show(isTTY: boolean, tick: (ms: number) => void): string {
    let text = '';
    const progress = new ProgressLine({ isTTY, write: (part) => (text += part) }, 'Packing', 4_000_000);
    progress.add(1_000_000);
    tick(12_000);
    progress.end();
    tick(12_000);
    return text;
  }

  it('is one line every five seconds where there is no terminal', (t) => {
    t.mock.timers.enable({ apis: ['setInterval'] });
    const text = show(false, (ms) => t.mock.timers.tick(ms));
    assert.match(text, /^(Packing: 1\.0 MB of 4\.0 MB, .*\/s, 0 s\n){2}$/);
  });

  it('is one line that is redrawn, and goes away, on a terminal', (t) => {
    t.mock.timers.enable({ apis: ['setInterval'] });
    const text = show(true, (ms) => t.mock.timers.tick(ms));
    assert.doesNotMatch(text, /\n/);
    assert.match(text, /^\r\u001b\[KPacking: nothing yet, 0 s\r/);
    assert.equal(text.match(/\r\u001b\[KPacking: 1\.0 MB of 4\.0 MB/g)?.length, 60);
    assert.ok(text.endsWith('\r\u001b[K'));
  });
});

describe('a file in the making that must not take the place of another', () => {
  async function publishNew(): Promise<DraftFile> {
    const file = await DraftFile.create(path.join(folder, 'x.part'));
    await file.write(Buffer.from('content'), 0);
    try {
      await file.publishNew(outputPath);
    } finally {
      await file.close();
      await file.discard();
    }
    return file;
  }

  for (const code of ['with hard links', 'ENOTSUP', 'EPERM']) {
    it(`is published where there is none, and nowhere else: ${code}`, async (t) => {
      if (code.startsWith('E')) {
        const refused = () => Promise.reject(Object.assign(new Error('no links'), { code }));
        t.mock.method(fsPromises, 'link', refused);
        syncBuiltinESMExports();
      }
      try {
        await publishNew();
        assert.equal(await readFile(outputPath, 'utf8'), 'content');
        await writeFile(outputPath, 'earlier');
        await assert.rejects(publishNew(), { code: 'EEXIST' });
      } finally {
        t.mock.restoreAll();
        syncBuiltinESMExports();
      }
      assert.equal(await readFile(outputPath, 'utf8'), 'earlier');
      assert.deepEqual((await readdir(folder)).sort(), ['fragment', 'out']);
      assert.deepEqual(await outputs(), ['images.enc']);
    });
  }
});
