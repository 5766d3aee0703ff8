import assert from 'node:assert/strict';
import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Readable } from 'node:stream';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { DemoEngine } from '../../../demo/demo-engine.ts';
import { makeImage, makeLayer, saveImages } from '../../../lab/images/image-maker.ts';
import { DockerCli } from '../../../lab/services/docker-cli.ts';
import { startDockerd, stopDockerd } from '../../../lab/services/services.ts';
import { DOCKER_SKIP } from '../../../lab/test-environment.ts';

const DEMO = path.resolve(import.meta.dirname, '../../../demo/demo.ts');
/** The demo's Loader removes images that only Loaders make, which the shared engine may have of other tests. */
const ENGINE = 'dockerd-of-demo';

/** All that a demo writes is in here: it must be empty in the end. */
let folder = '';

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-demo-test-'));
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

class Demo {
  text = '';
  readonly #child: ChildProcessByStdio<null, Readable, Readable>;
  readonly #closed: Promise<number | null>;

  constructor(dockerHost: string, ...args: string[]) {
    this.#child = spawn(process.execPath, [DEMO, ...args], {
      env: { PATH: process.env['PATH'], TMPDIR: folder, DOCKER_HOST: dockerHost },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#closed = once(this.#child, 'close').then(([code]) => code as number | null);
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream.on('data', (data: Buffer) => (this.text += data.toString()));
    }
  }

  /** Waits until it has said so. */
  async said(words: string): Promise<void> {
    let isClosed = false;
    void this.#closed.then(() => (isClosed = true));
    while (!this.text.includes(words)) {
      assert.ok(!isClosed, this.text);
      await sleep(10);
    }
  }

  interrupt(): void {
    this.#child.kill('SIGINT');
  }

  /** Waits for its end: with this exit code, and without a file or a process that is left. */
  async assertEnded(expected: number): Promise<void> {
    assert.equal(await this.#closed, expected, this.text);
    assert.deepEqual(await readdir(folder), []);
    assert.deepEqual(await processesOf(folder), []);
  }
}

/** Those whose environment names the folder: Loaders and commands of the demo do. */
async function processesOf(name: string): Promise<string[]> {
  const pids = (await readdir('/proc')).filter((pid) => /^\d+$/.test(pid));
  const environments = pids.map((pid) => readFile(`/proc/${pid}/environ`, 'utf8').catch(() => ''));
  return (await Promise.all(environments)).filter((environment) => environment.includes(name));
}

describe('the demo, with a Docker engine', { skip: DOCKER_SKIP }, () => {
  let docker: DockerCli;
  let host = '';

  before(async () => {
    ({ host } = await startDockerd(ENGINE));
    docker = new DockerCli(host);
  });

  after(async () => {
    await docker.close();
    await stopDockerd(ENGINE);
  });

  it('packs images and unlocks them, stays up with --keep, tells what to try, and removes them again', async () => {
    const demo = new Demo(host, '--keep');
    await demo.said('Ctrl-C');
    assert.match(demo.text, /✓ Compare SHA-256/);
    assert.match(demo.text, /✓ Evict all from the cache .* 1 file removed, 0 bytes left/);
    assert.match(demo.text, /✓ Prefetch the model .* from the CDN into the cache/);
    assert.match(demo.text, /✓ Verify the cache .* no copy is bad/);
    assert.match(demo.text, /"state":"error","error":"The Resource API refused the email and password\."/);
    assert.match(demo.text, /✓ Unlock .* the engine has all three; the layer that they share was sent once/);
    assert.match(demo.text, /decrypting > loading_images > ready/);
    assert.match(demo.text, /✓ Unlock once more .* \d+ ms: finished stays finished/);
    assert.doesNotMatch(demo.text, /[\r\u001b]/, 'nothing is redrawn where there is no terminal');
    assert.equal((await docker.imageIds()).length, 3);
    const key = `-H 'Authorization: (Bearer demo-key)'`;
    const [, authorization = '', url = ''] =
      new RegExp(`^curl ${key} (\\S+)/unlock/status$`, 'm').exec(demo.text) ?? [];
    assert.match(demo.text, new RegExp(`^curl --no-buffer ${key} ${url}/unlock/events$`, 'm'));
    const answer = await fetch(`${url}/unlock/status`, { headers: { authorization } });
    const status = (await answer.json()) as { state: string };
    assert.equal(status.state, 'ready');
    demo.interrupt();
    await demo.assertEnded(0);
    assert.deepEqual(await docker.imageIds(), []);
  });

  for (const words of ['Prefetch the model', 'Unlock with a wrong password']) {
    it(`leaves nothing when it is interrupted after: ${words}`, async () => {
      const demo = new Demo(host);
      await demo.said(words);
      demo.interrupt();
      await demo.assertEnded(130);
      assert.deepEqual(await docker.imageIds(), []);
    });
  }

  it('leaves images alone that it has not made, even under its own tags', async () => {
    const other = makeImage({ tags: ['azaion-demo/ui:1'], layers: [makeLayer({ file: 'not of the demo' })] });
    await docker.load(saveImages([other]));
    const demo = new Demo(host);
    await demo.assertEnded(0);
    assert.match(demo.text, /No images are unlocked\. The Docker engine at \S+ has azaion-demo\/ui:1 already/);
    assert.deepEqual(await docker.imageIds(), [other.id]);
    await docker.remove(other.id);
  });
});

describe('the demo, without a Docker engine', () => {
  it('says in one line how to get one, and shows the rest', async () => {
    const demo = new Demo('unix:///nonexistent/docker.sock');
    await demo.assertEnded(0);
    assert.match(
      demo.text,
      /^ {2}No images are unlocked\. No Docker engine at \/nonexistent\/docker\.sock: get one with apt-get install docker\.io, or set DOCKER_HOST\.$/m,
    );
    assert.match(demo.text, /✓ Compare SHA-256/);
  });

  it('says in one line what is wrong with DOCKER_HOST', async () => {
    const before = process.env['DOCKER_HOST'];
    process.env['DOCKER_HOST'] = 'ssh://user@example.com';
    try {
      const found = await DemoEngine.find(AbortSignal.timeout(5000));
      assert.ok(typeof found === 'string');
      assert.match(found, /^DOCKER_HOST must be unix:[^\n]+\.$/);
    } finally {
      if (before === undefined) delete process.env['DOCKER_HOST'];
      else process.env['DOCKER_HOST'] = before;
    }
  });
});
