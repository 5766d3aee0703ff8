import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { DEMO_API_KEY } from '../../demo/demo-stage.ts';
import { Origin } from '../../lab/upstream/origin.ts';
import { Document, DOCUMENTS } from './documents.ts';
import { TestLoader } from '../support/test-loader.ts';

/** Runs every shell block of the documents that has curl, against a Loader with the demo's stand-ins. */

const README = new Document('README.md');
const FIRST_MINUTES = README.section('The first five minutes');
const TIMEOUT_MS = 30_000;

describe('curl lines', { skip: hasCurl() ? false : 'curl is not installed' }, () => {
  let folder: string;
  let origin: Origin;
  let loader: TestLoader;
  /** The variables that the README sets, which the other documents use. */
  let variables: string;

  before(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'loader-docs-'));
    origin = await Origin.start({ folder: path.join(folder, 'origin') });
    const archivePath = path.join(folder, 'images.enc');
    // An archive under another key, so that the unlock begins, and ends without an engine.
    await writeFile(archivePath, randomBytes(64 * 1024));
    loader = await TestLoader.start({
      env: {
        API_KEY: DEMO_API_KEY,
        RESOURCE_API_URL: origin.api.url,
        MODEL_CACHE_DIR: path.join(folder, 'models'),
        STATE_DIR: path.join(folder, 'state'),
        IMAGES_PATH: archivePath,
        DOCKER_HOST: `unix://${folder}/no-engine.sock`,
      },
    });
    const lines = curlBlocks(FIRST_MINUTES)[0]?.split('\n') ?? [];
    variables = atLoader(lines.slice(0, lines.indexOf('')).join('\n'));
    assert.deepEqual(variables.match(/^\w+(?==)/gm), ['LOADER', 'KEY', 'JSON']);
  });

  after(async () => {
    await loader.stop();
    await origin.stop();
    await rm(folder, { recursive: true, force: true });
  });

  it('of the README do what it says', async () => {
    const [block = '', ...others] = curlBlocks(FIRST_MINUTES);
    assert.deepEqual(others, []);
    const output = await run(block);
    assert.match(
      output,
      /^\{"status":"healthy"\}\{"status":"ok"\}\{"status":"ok"\}\{"uid":"[^}]+,"provider":"verify"\}/,
    );
    assert.match(output, /\{"tasks":\[\{"uid":.+"provider":"verify".+\}\],"next_cursor":null\}$/);
  });

  it('of the API page load what they upload', async () => {
    const blocks = curlBlocks(page('docs/http-api.md'));
    assert.equal(blocks.length, 3);
    for (const block of blocks) {
      // The second one goes on with a file that was cut.
      if (block.includes('-C -')) await truncate(path.join(folder, 'detector.onnx'), 10_000);
      assert.match(await run(block), /^(\{"status":"ok"\})?$/);
    }
  });

  it('of the page of tasks follow one to its end, and schedule another', async () => {
    const [task = '', schedule = '', ...others] = curlBlocks(page('docs/tasks.md'));
    assert.deepEqual(others, []);
    const output = await run(task);
    assert.match(output, /^event: \w+\nid: [^]*\nevent: end\n/);
    assert.match(output, /"status":"complete"[^]*\{"lines":\[.*\]\}\{"uid"/);
    assert.match(await run(schedule), /^\{"id":".+"provider":"evict".+\}\{"schedules":\[.+\]\}$/);
  });

  it('of the page of the unlock begin one and follow it to its end', async () => {
    const [block = '', ...others] = curlBlocks(page('docs/unlocking.md'));
    assert.deepEqual(others, []);
    const output = await run(block);
    assert.match(output, /^\{"state":"authenticating"\}event: status\n[^]*\{"state":"error".+"code":"archive_/);
  });

  it('stand in no other document', () => {
    const tested = ['README.md', 'docs/http-api.md', 'docs/tasks.md', 'docs/unlocking.md'];
    const others = DOCUMENTS.filter(({ name }) => !tested.includes(name));
    assert.deepEqual(
      others.filter((document) => curlBlocks(document).length > 0).map(({ name }) => name),
      [],
    );
  });

  function page(name: string): Document {
    const document = new Document(name);
    assert.ok(document.links.includes('../README.md#the-first-five-minutes'), 'it tells where its variables come from');
    return document;
  }

  /** What the block prints. @throws Error when one of its commands fails, or curl receives an error it was to report */
  async function run(block: string): Promise<string> {
    const script = `set -euo pipefail\n${variables}\n${atLoader(block)}`;
    const { stdout } = await promisify(execFile)('bash', ['-c', script], { cwd: folder, timeout: TIMEOUT_MS });
    return stdout;
  }

  function atLoader(block: string): string {
    return block.replace(/^LOADER=.*$/m, `LOADER=${loader.url}`);
  }
});

function curlBlocks(document: Document): readonly string[] {
  return document.blocks('sh').filter((block) => block.includes('curl '));
}

function hasCurl(): boolean {
  try {
    execFileSync('curl', ['--version']);
    return true;
  } catch {
    return false;
  }
}
