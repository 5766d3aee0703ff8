import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, it } from 'node:test';

const ROOT = path.resolve(import.meta.dirname, '../..');
const MAX_LINES = 400;

/**
 * The floors of the house, from the highest to the lowest; a room is a folder of src, or a file that lies in src itself.
 * Imports point downwards, or stay within a room.
 */
const FLOORS: readonly (readonly string[])[] = [
  ['main', 'cli'],
  ['services', 'shutdown'],
  ['config', 'http'],
  ['api-client', 'providers'],
  ['unlock', 'resources'],
  ['binary-split', 'upstream'],
  ['archive'],
  ['tasks', 'docker', 'cdn', 'hardware', 'security', 'cache'],
  // The ground floor knows nothing of the product.
  ['net', 'files'],
  ['async'],
  ['logger'],
  ['resource-name', 'json'],
  ['errors'],
];

/** They are run, and nobody imports them. */
const ENTRY_FILES: readonly string[] = ['src/cli/loader.ts', 'src/main.ts'];
const THREAD_FILES: readonly string[] = ['src/binary-split/unlock-thread.ts'];

/** Files of several equal functions, which are named after what these are about. */
const NAMED_AFTER_THEIR_THEME: readonly string[] = [
  'src/archive/archive-images.ts',
  'src/cache/safe-folder.ts',
  'src/config/config-docs.ts',
  'src/config/kinds.ts',
  'src/http/bodies/client-abort.ts',
  'src/http/errors/request-faults.ts',
  'src/resources/envelope-parts.ts',
  'src/security/envelope-cipher.ts',
  'src/security/key-derivation.ts',
  'src/upstream/token-claims.ts',
];

interface SourceFile {
  /** Under the project's root, such as `src/http/validation.ts`. */
  readonly name: string;
  readonly text: string;
  /** The project's own files that it imports, by name. */
  readonly imports: readonly string[];
}

function readSources(folder: string): SourceFile[] {
  return readdirSync(path.join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => {
      const file = path.join(folder, name);
      const text = readFileSync(path.join(ROOT, file), 'utf8');
      return { name: file, text, imports: readImports(text).map((target) => path.join(path.dirname(file), target)) };
    });
}

/** Relative specifiers of `import ... from`, `export ... from`, bare `import '...'` and `import('...')`. */
function readImports(text: string): string[] {
  const code = text.replaceAll(/\/\*[^]*?\*\/|^\s*\/\/.*$/gm, '');
  return [...code.matchAll(/(?:\bfrom\s*|\bimport\s*\(?\s*)['"](\.[^'"]*)['"]/g)].map((match) => match[1] ?? '');
}

function roomOf(file: string): string {
  const [, first = ''] = file.split('/');
  return first.replace(/\.ts$/, '');
}

function floorOf(file: string): number {
  return FLOORS.findIndex((rooms) => rooms.includes(roomOf(file)));
}

const sources = readSources('src');
const toolSources = [...readSources('lab'), ...readSources('demo'), ...readSources('bench')];

describe('the house', () => {
  it('is read at all: a check of nothing would pass', () => {
    assert.ok(sources.length > 40);
    assert.ok(sources.flatMap((source) => source.imports).length > 100);
    assert.deepEqual(readImports(`import a from './a.ts';\nexport { b } from "../b.ts";\nimport './c.ts';`), [
      './a.ts',
      '../b.ts',
      './c.ts',
    ]);
    assert.deepEqual(readImports(`import {\n  a,\n} from './a.ts';\nawait import('./b.ts'); // from './c.ts'`), [
      './a.ts',
      './b.ts',
      './c.ts',
    ]);
    assert.deepEqual(readImports(`/* import './a.ts' */\n// import './b.ts'\nimport 'node:fs';`), []);
  });

  it('has every room on one floor', () => {
    for (const { name } of sources) assert.notEqual(floorOf(name), -1, `${name} is in no known room`);
  });

  it('has imports that point to files that are there', () => {
    const names = new Set([...sources, ...toolSources].map((source) => source.name));
    for (const { name, imports } of [...sources, ...toolSources]) {
      for (const target of imports) assert.ok(names.has(target), `${name} imports ${target}`);
    }
  });

  for (const source of sources) {
    it(`has no import that points up or sideways: ${source.name}`, () => {
      for (const target of source.imports) {
        if (roomOf(source.name) === roomOf(target)) continue;
        assert.ok(floorOf(target) > floorOf(source.name), `it imports ${target}`);
      }
    });
  }

  it('has no circle of imports', () => {
    const byName = new Map(sources.map((source) => [source.name, source]));
    const done = new Set<string>();
    const visit = (name: string, way: readonly string[]) => {
      assert.ok(!way.includes(name), [...way, name].join(' > '));
      if (done.has(name)) return;
      for (const target of byName.get(name)?.imports ?? []) visit(target, [...way, name]);
      done.add(name);
    };
    for (const { name } of sources) visit(name, []);
    assert.equal(done.size, sources.length);
  });

  it('has src that imports nothing from outside of src', () => {
    for (const { name, imports } of sources) {
      for (const target of imports) assert.ok(target.startsWith('src/'), `${name} imports ${target}`);
    }
  });

  it('has one place that reads the configuration: the composition, and the entry of the command', () => {
    const readers = sources
      .filter((source) => source.imports.includes('src/config/config.ts'))
      .map((source) => source.name);
    assert.deepEqual(readers.sort(), [...ENTRY_FILES, 'src/services.ts']);
  });

  it('has entry files of processes and threads that nobody imports', () => {
    for (const { name, imports } of sources) {
      for (const entry of [...ENTRY_FILES, ...THREAD_FILES])
        assert.ok(!imports.includes(entry), `${name} imports ${entry}`);
    }
  });

  it('has one reader of the environment: config.ts', () => {
    const readers = sources.filter(({ text }) =>
      /\bprocess\s*(?:\?\.|\.|\[)\s*['"]?env\b|\benv\b.*from 'node:process'|\{[^}]*\benv\b[^}]*\}\s*=\s*process\b/.test(
        text,
      ),
    );
    assert.deepEqual(
      readers.map((source) => source.name),
      ['src/config/config.ts'],
    );
  });
});

describe('a source file', () => {
  for (const { name, text } of sources) {
    it(`has at most ${MAX_LINES} lines: ${name}`, () => assert.ok(text.split('\n').length - 1 <= MAX_LINES));

    it(`is named in kebab-case after one of its exports, or is a known exception: ${name}`, () => {
      const base = path.basename(name, '.ts');
      assert.match(base, /^[a-z0-9]+(-[a-z0-9]+)*$/);
      if ([...ENTRY_FILES, ...THREAD_FILES].includes(name)) return;
      // Both ways, so that the list of exceptions gets no longer than it must be.
      const isException = NAMED_AFTER_THEIR_THEME.includes(name);
      assert.equal(isNamedAfterAnExport(base, exportsOf(text)), !isException, exportsOf(text).join(', '));
    });
  }

  it('that is an exception is there', () => {
    const names = sources.map((source) => source.name);
    for (const name of NAMED_AFTER_THEIR_THEME) assert.ok(names.includes(name), name);
  });

  it('is no collection of odds and ends, and no barrel', () => {
    for (const { name } of sources) {
      assert.doesNotMatch(path.basename(name), /^(utils?|helpers?|index|common|misc|shared)\.ts$/, name);
      assert.doesNotMatch(name, /\/(utils?|helpers?|common|misc|shared)\//, name);
    }
    for (const { name, text } of sources) assert.doesNotMatch(text, /^export \*/m, name);
  });
});

function exportsOf(text: string): string[] {
  const declared = text.matchAll(
    /^export (?:declare )?(?:abstract )?(?:async )?(?:const|let|function\*?|class|interface|type|enum) (\w+)/gm,
  );
  return [...declared].map((match) => match[1] ?? '');
}

/** `s3-upload` for `S3Upload`, `file-chunks` for `readFileChunks`, `cdn-errors` for `toCdnError`. */
function isNamedAfterAnExport(base: string, names: readonly string[]): boolean {
  const compact = base.replaceAll('-', '').replace(/s$/, '');
  return names.some((name) => name.replaceAll('_', '').toLowerCase().includes(compact));
}
