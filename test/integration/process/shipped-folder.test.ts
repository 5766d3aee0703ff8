import assert from 'node:assert/strict';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { isBuiltin } from 'node:module';
import path from 'node:path';
import { before, describe, it } from 'node:test';
import { DOCS_FILES, docsFolder } from '../../../src/http/docs/docs-files.ts';
import { shippedFolder } from '../../../lab/shipped-folder.ts';

const ROOT = path.resolve(import.meta.dirname, '../../..');

/** Names of the packages that a module imports; its own files and those of Node are left out. */
function importedPackages(code: string): string[] {
  const specifiers = code.matchAll(
    /^(?:import|export)\b[^'"=;]*\bfrom\s*['"]([^'"]+)['"]|\bimport\s*\(?\s*['"]([^'"]+)['"]/gm,
  );
  return [...specifiers]
    .map((match) => match[1] ?? match[2] ?? '')
    .filter((specifier) => !specifier.startsWith('.') && !isBuiltin(specifier))
    .map((specifier) =>
      specifier.startsWith('@') ? specifier.split('/', 2).join('/') : (specifier.split('/')[0] ?? ''),
    );
}

/** The Loader's own modules, without the scripts of the pages of /docs. */
function moduleFiles(folder: string): string[] {
  const pages = docsFolder('dist');
  return globSync('dist/**/*.js', { cwd: folder }).filter((file) => !file.startsWith(pages));
}

describe('what ships', () => {
  let folder = '';
  before(async () => {
    folder = await shippedFolder();
  });

  it('has a module for each source, and no source', () => {
    const modules = moduleFiles(folder).map((file) => path.relative('dist', file));
    const sources = globSync('src/**/*.{ts,js}', { cwd: ROOT }).map((file) => path.relative('src', file));
    assert.ok(sources.includes('binary-split/unlock-thread.ts'));
    assert.deepEqual(modules.sort(), sources.map((file) => file.replace(/\.ts$/, '.js')).sort());
    assert.deepEqual(globSync('{src,dist}/**/*.ts', { cwd: folder }), []);
  });

  it('has every package that it imports: Node would find others in the folders above', () => {
    const { dependencies } = JSON.parse(readFileSync(path.join(folder, 'package.json'), 'utf8')) as {
      dependencies: Readonly<Record<string, string>>;
    };
    const imported = new Set(
      moduleFiles(folder).flatMap((file) => importedPackages(readFileSync(path.join(folder, file), 'utf8'))),
    );
    assert.ok(imported.has('fastify') && imported.has('@aws-sdk/client-s3'));
    for (const name of imported) {
      assert.ok(name in dependencies, `${name} is imported, but is no production dependency`);
      assert.ok(existsSync(path.join(folder, 'node_modules', name, 'package.json')), `${name} does not ship`);
    }
  });

  it('has the files of the pages of /docs, and no package for them', () => {
    for (const name of DOCS_FILES) {
      assert.ok(existsSync(path.join(docsFolder(path.join(folder, 'dist')), name)), name);
    }
    assert.equal(existsSync(path.join(folder, 'node_modules/@fastify/swagger-ui')), false);
  });

  it('has nothing that only development needs', () => {
    for (const name of ['typescript', 'eslint', 'node', 'fauxqs']) {
      assert.equal(existsSync(path.join(folder, 'node_modules', name)), false, name);
    }
  });
});
