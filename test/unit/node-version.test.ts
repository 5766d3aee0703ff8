import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, it } from 'node:test';

const ROOT = path.resolve(import.meta.dirname, '../..');
const CHECK = path.join(ROOT, 'src/node-version.js');

/** Runs the check in a Node that calls itself `version`. */
function check(version: string) {
  const pretend = `Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '${version}' } });`;
  const script = `${pretend} await import(${JSON.stringify(CHECK)}); process.stdout.write('went on');`;
  return spawnSync(process.execPath, ['--input-type=module', '--eval', script], { encoding: 'utf8' });
}

function neededVersion(): string {
  const packageJson = JSON.parse(readFileSync(path.join(ROOT, 'package.json'), 'utf8')) as {
    engines: { node: string };
  };
  return /^>=(\d+)$/.exec(packageJson.engines.node)?.[1] ?? assert.fail('engines name no major version');
}

describe('the check of the version of Node', () => {
  for (const version of ['18.20.8', '20.20.2', '24.18.0', `${Number(neededVersion()) - 1}.99.99`]) {
    it(`ends the process in one sentence that says what is needed and what to do: ${version}`, () => {
      const { status, stdout, stderr } = check(version);
      assert.deepEqual([status, stdout], [1, '']);
      assert.match(
        stderr,
        new RegExp(`^The Loader needs Node ${neededVersion()} or newer, but this is Node ${version}: .*npm ci.*\\.\n$`),
      );
    });
  }

  for (const version of [`${neededVersion()}.0.0`, '30.1.0', '100.0.0']) {
    it(`lets the process go on: ${version}`, () => {
      const { status, stdout, stderr } = check(version);
      assert.deepEqual([status, stdout, stderr], [0, 'went on', '']);
    });
  }

  it('is made of syntax that Node 14 can read, and comes before everything else in the entry files', () => {
    assert.doesNotMatch(readFileSync(CHECK, 'utf8'), /\?\?|\?\.|\busing\b|\bimport\b|\bawait\b|#\w/);
    for (const entry of ['src/main.ts', 'src/cli/loader.ts']) {
      const imports = [...readFileSync(path.join(ROOT, entry), 'utf8').matchAll(/\bimport\b.*?'(.+)'/g)];
      assert.match(imports[0]?.[1] ?? '', /node-version\.js$/, entry);
      // The rest must be imported by a call: what is imported by a statement is read before the check runs.
      assert.ok(
        imports.slice(1).every(([text]) => text.startsWith('import(')),
        entry,
      );
    }
  });

  it('runs before `npm start` and `npm run loader` read TypeScript', () => {
    const { scripts } = JSON.parse(readFileSync(path.join(ROOT, 'package.json'), 'utf8')) as {
      scripts: Record<string, string>;
    };
    for (const name of ['start', 'loader']) {
      assert.match(scripts[name] ?? '', /^node --import \.\/src\/node-version\.js src\//, name);
    }
  });

  it('asks for the version that the image has', () => {
    const dockerfile = readFileSync(path.join(ROOT, 'Dockerfile'), 'utf8');
    assert.equal(/^ARG BASE=node:(\d+)/m.exec(dockerfile)?.[1], neededVersion());
    const bases = [...dockerfile.matchAll(/^FROM (\S+)/gm)].map(([, base]) => base);
    assert.deepEqual([...new Set(bases)], ['${BASE}']);
  });
});
