import assert from 'node:assert/strict';
import { statSync } from 'node:fs';
import path from 'node:path';
import { describe, it } from 'node:test';
import { codeOf, Document, readProjectFile, ROOT } from './documents.ts';

const README = new Document('README.md');
const TEST_LINE = 'npm ci && npm test';
const DEMO_LINE = 'npm ci && npm run demo';
const MAX_WORDS = 1500;

interface Package {
  readonly dependencies: Readonly<Record<string, string>>;
  readonly devDependencies: Readonly<Record<string, string>>;
  readonly engines: { readonly node: string };
}

describe('README', () => {
  const packageJson = JSON.parse(readProjectFile('package.json')) as Package;

  it(`has at most ${MAX_WORDS} words`, () => {
    const words = README.text.split(/\s+/).filter((word) => word !== '').length;
    assert.ok(words > 500 && words <= MAX_WORDS, `it has ${words}`);
  });

  it('has the two lines near its top, and .ci/run calls that of the tests', () => {
    const top = README.text.split('\n').slice(0, 30);
    assert.ok(top.includes(DEMO_LINE));
    assert.ok(top.includes(TEST_LINE));
    assert.ok(readProjectFile('.ci/run').split('\n').includes(TEST_LINE));
    assert.notEqual(statSync(path.join(ROOT, '.ci/run')).mode & 0o111, 0, '.ci/run is executable');
  });

  it('shows the warning that npm prints for the engines of package.json', () => {
    const { text } = README.section("npm's warnings about engines");
    assert.ok(text.includes(`required: { node: '${packageJson.engines.node}' }`), packageJson.engines.node);
  });

  it('lists every dependency, tells whether it is in the image, and gives the reason', () => {
    const rows = README.section('Dependencies').table;
    const expected = [
      ...Object.keys(packageJson.dependencies).map((name) => [name, 'yes']),
      ...Object.keys(packageJson.devDependencies).map((name) => [name, 'no']),
    ];
    assert.deepEqual(
      rows.map(([name, isInImage]) => [codeOf(name), isInImage]),
      expected,
    );
    for (const [name, , reason = ''] of rows) assert.ok(reason.length > 10, `${name ?? ''} has a reason`);
  });
});
