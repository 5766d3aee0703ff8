import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, renameSync, statSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { LoaderProcess } from '../../../lab/loader-process.ts';
import { shippedFolder, shippedMain } from '../../../lab/shipped-folder.ts';
import { ScriptedApi } from '../../support/scripted-api.ts';
import { eventually } from '../../../lab/waiting.ts';

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-environment-'));
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

async function startLoader(env: Readonly<Record<string, string>>): Promise<LoaderProcess> {
  return await LoaderProcess.start({
    env: {
      PATH: process.env['PATH'],
      PORT: '0',
      STATE_DIR: path.join(folder, 'state'),
      MODEL_CACHE_DIR: path.join(folder, 'models'),
      ...env,
    },
    logPath: path.join(folder, 'loader.log'),
  });
}

describe('the environment of the Loader', () => {
  it('reaches the programs that it starts without secrets, and without what looks like one', async () => {
    const dump = path.join(folder, 'dump');
    // Both are asked for the hardware string.
    for (const program of ['lspci', 'lscpu']) {
      const script = `#!/bin/sh\n/usr/bin/env >>${dump}\necho done >>${dump}\n`;
      await writeFile(path.join(folder, program), script, { mode: 0o755 });
    }
    await using api = await ScriptedApi.start();
    const token = ['{"alg":"none"}', '{"email":"a@b.c","role":"Operator"}'].map((part) =>
      Buffer.from(part).toString('base64url'),
    );
    api.answer = () => ({ body: JSON.stringify({ token: `${token.join('.')}.` }) });
    const loader = await startLoader({
      PATH: `${folder}:${process.env['PATH'] ?? ''}`,
      RESOURCE_API_URL: api.url,
      RESOURCE_KEY: 'hush-resource-key',
      API_KEY: 'hush-api-key',
      API_KEYS: 'hush-mistaken',
      OTHER: 'stays',
    });
    try {
      // Nothing waits for the answer: the Loader may end before it.
      fetch(`${loader.url}/login`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', authorization: 'Bearer hush-api-key' },
        body: JSON.stringify({ email: 'a@b.c', password: 'hush-password' }),
      }).catch(() => undefined);
      await eventually(() => existsSync(dump) && readFileSync(dump, 'utf8').includes('done'));
      const dumped = readFileSync(dump, 'utf8');
      assert.match(dumped, /^OTHER=stays$/m);
      assert.doesNotMatch(dumped, /hush/);
      assert.match(loader.log(), /The variable API_KEYS is not known, and has no effect\. Did you mean API_KEY\?/);
      assert.doesNotMatch(loader.log(), /hush/);
    } finally {
      loader.kill();
    }
  });
});

describe('LOG_FILE', () => {
  it('is opened anew at SIGHUP, which ends nothing, and only its owner can read it', async () => {
    const file = path.join(folder, 'logs/loader.log');
    const loader = await startLoader({ LOG_FILE: file });
    try {
      await fetch(`${loader.url}/first`);
      await eventually(() => readFileSync(file, 'utf8').includes('404'));
      renameSync(file, `${file}.1`);
      loader.signal('SIGHUP');
      await eventually(() => existsSync(file));
      await fetch(`${loader.url}/unlock/status`);
      await eventually(() => readFileSync(file, 'utf8').includes('"route":"/unlock/status"'));
      assert.doesNotMatch(readFileSync(`${file}.1`, 'utf8'), /unlock/);
      assert.deepEqual(
        [file, `${file}.1`].map((name) => statSync(name).mode & 0o777),
        [0o600, 0o600],
      );
      assert.equal(await loader.stop(), 0);
    } finally {
      loader.kill();
    }
  });
});

describe('what ships', () => {
  // The machine's own Node is often an older one: npm runs with it.
  const oldNodes = ['/usr/bin/node', '/usr/local/bin/node'].filter(
    (node) => existsSync(node) && Number(spawnSync(node, ['--version'], { encoding: 'utf8' }).stdout.slice(1, 3)) < 26,
  );

  it('tells an old Node, where the machine has one, in one sentence what it needs', async () => {
    const oldNode: string | undefined = oldNodes[0];
    if (oldNode === undefined) return;
    const shipped = await shippedFolder();
    for (const file of [shippedMain(shipped), path.join(shipped, 'dist/cli/loader.js')]) assertRefuses(oldNode, file);
  });

  it('prints its variables with --help', async () => {
    const { status, stdout } = spawnSync(process.execPath, [shippedMain(await shippedFolder()), '--help'], {
      encoding: 'utf8',
    });
    assert.equal(status, 0);
    assert.match(stdout, /^ {2}RESOURCE_API_URL \(default: https:\/\/api\.azaion\.com\)$/m);
  });
});

function assertRefuses(node: string, file: string): void {
  const { status, stderr } = spawnSync(node, [file], { encoding: 'utf8' });
  assert.equal(status, 1);
  assert.match(stderr, /^The Loader needs Node 26 or newer, but this is Node \d+[^\n]*\n$/);
}
