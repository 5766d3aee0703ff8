import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { runTool } from '../../../src/hardware/read-hardware.ts';

let folder: string;
const { PATH, LC_ALL } = process.env;

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-tool-'));
  process.env['PATH'] = folder;
  process.env['LC_ALL'] = 'fr_FR.UTF-8';
});

afterEach(async () => {
  process.env['PATH'] = PATH;
  if (LC_ALL === undefined) delete process.env['LC_ALL'];
  else process.env['LC_ALL'] = LC_ALL;
  await rm(folder, { recursive: true, force: true });
});

async function install(script: string): Promise<void> {
  await writeFile(path.join(folder, 'lscpu'), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
}

describe('a program that tells about the hardware', () => {
  it('is run with its options, and in the language that is parsed', async () => {
    await install('echo "$LC_ALL: $*"');
    assert.equal(await runTool('lscpu', '-a -b'), 'C: -a -b\n');
  });

  it('that is not there is told with its package', async () => {
    const error = { name: 'UntoldError', message: 'lscpu is not installed: install the package util-linux' };
    await assert.rejects(runTool('lscpu'), error);
    await assert.rejects(runTool('lspci'), { message: /package pciutils$/ });
  });

  it('that fails is told, also when it has printed something', async () => {
    await install('echo "Model name: half"; exit 1');
    await assert.rejects(runTool('lscpu'), { name: 'UntoldError', message: /^lscpu failed: run it in a shell/ });
  });

  it('that prints without an end is ended', async () => {
    await install('while :; do echo "Model name: AMD EPYC 7R13, for ever and ever"; done');
    await assert.rejects(runTool('lscpu'), { name: 'UntoldError', message: /^lscpu failed/ });
  });

  it('that hangs is ended, even if what it has started holds its output', async (context) => {
    await install('/bin/sleep 1000 & echo $! >"${0%/*}/pid"; wait');
    const timeout = AbortSignal.timeout.bind(AbortSignal);
    context.mock.method(AbortSignal, 'timeout', () => timeout(300));
    await assert.rejects(runTool('lscpu'), { name: 'UntoldError', message: /^lscpu did not end within 10 s/ });
    process.kill(Number(await readFile(path.join(folder, 'pid'), 'utf8')));
  });
});
