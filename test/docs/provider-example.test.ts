import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { cpSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { Document, ROOT } from './documents.ts';

/** The example of docs/providers.md, pasted into a copy of the sources where the page says. */

const FILES = ['src/providers/survey-provider.ts', 'test/unit/providers/survey-provider.test.ts'];

describe('the example of a provider', () => {
  let folder: string;

  before(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'loader-example-'));
    const page = new Document('docs/providers.md');
    const blocks = page.blocks('ts');
    assert.equal(blocks.length, FILES.length);
    for (const file of FILES) assert.ok(page.inlineCode.includes(file), `the page names ${file}`);
    cpSync(path.join(ROOT, 'src'), path.join(folder, 'src'), { recursive: true });
    symlinkSync(path.join(ROOT, 'node_modules'), path.join(folder, 'node_modules'));
    for (const name of ['package.json', 'tsconfig.json']) cpSync(path.join(ROOT, name), path.join(folder, name));
    mkdirSync(path.join(folder, 'test/unit/providers'), { recursive: true });
    for (const [index, file] of FILES.entries()) writeFileSync(path.join(folder, file), blocks[index] ?? '');
    writeFileSync(
      path.join(folder, 'tsconfig.example.json'),
      JSON.stringify({ extends: './tsconfig.json', compilerOptions: { noEmit: true }, include: [], files: FILES }),
    );
  });

  after(async () => {
    await rm(folder, { recursive: true, force: true });
  });

  it('passes the type checker', async () => {
    await run([path.join(ROOT, 'node_modules/typescript/bin/tsc'), '-p', 'tsconfig.example.json']);
  });

  it('passes its own test', async () => {
    const output = await run(['--test', '--test-reporter=tap', FILES[1] ?? '']);
    assert.match(output, /^# pass 2$/m);
  });

  /** Runs Node in the copy, and returns what it prints. @throws Error with that, when it fails */
  async function run(args: readonly string[]): Promise<string> {
    // With the context of this test, the other would report to its runner.
    const env = { ...process.env, NODE_TEST_CONTEXT: undefined };
    try {
      return (await promisify(execFile)(process.execPath, args, { cwd: folder, env })).stdout;
    } catch (error) {
      throw new Error((error as { readonly stdout?: string }).stdout, { cause: error });
    }
  }
});
