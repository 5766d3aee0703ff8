import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, it } from 'node:test';
import ts from 'typescript';

const ROOT = path.resolve(import.meta.dirname, '../..');
const MAX_LINES = 320;
/** Fields of a class that are not readonly. */
const MAX_MUTABLE_FIELDS = 8;

/**
 * The floors of the house, from the highest to the lowest. A room is a folder of src, or a file in src itself. Imports
 * point downwards, or stay within a room.
 */
const FLOORS: readonly (readonly string[])[] = [
  ['main'],
  ['start', 'cli'],
  ['run-loader', 'tell-start'],
  ['services', 'shutdown'],
  ['config', 'http'],
  ['device-metrics', 'checkup'],
  ['device-status'],
  ['api-client', 'providers', 'readiness'],
  ['unlock', 'resources'],
  ['binary-split', 'upstream'],
  ['archive'],
  ['tasks', 'docker', 'cdn', 'hardware', 'security', 'cache', 'loader-folders'],
  ['log', 'link-errors', 'metrics', 'manifest'],
  // The ground floor knows nothing of the product.
  ['net', 'files'],
  ['async'],
  ['resource-name', 'json-schemas'],
  ['json'],
  ['errors', 'node-version', 'version'],
];

/** Rooms that import these rooms only, beside themselves. */
const ALLOWED_IMPORTS: Readonly<Record<string, readonly string[]>> = {
  // The engine knows nothing of its providers.
  tasks: ['files', 'async', 'log', 'errors', 'json'],
  archive: ['security', 'files', 'async', 'errors', 'json'],
  // The ground floor knows nothing of the product, so it could serve another one.
  net: ['async', 'json', 'errors'],
  files: ['async', 'errors'],
  async: ['errors'],
  log: ['files', 'async', 'json', 'errors'],
  json: [],
  errors: [],
};

/** Processes and threads begin in these files, and no file imports them. */
const ENTRY_FILES: readonly string[] = ['src/cli/loader.ts', 'src/main.ts'];
/** It is imported for what it does. */
const EFFECT_FILES: readonly string[] = ['src/node-version.js'];
const THREAD_FILES: readonly string[] = ['src/binary-split/unlock-thread.ts', 'src/resources/chunk-thread.ts'];

/** Files of several functions of equal rank, named after their common theme. */
const NAMED_AFTER_THEIR_THEME: readonly string[] = [
  'src/archive/archive-images.ts',
  'src/config/config-docs.ts',
  'src/config/kinds.ts',
  'src/config/manifest-keys.ts',
  'src/http/bodies/client-abort.ts',
  'src/http/bodies/representation.ts',
  'src/http/errors/request-faults.ts',
  'src/json-schemas.ts',
  'src/manifest/sealed-manifest.ts',
  'src/net/undici-parts.ts',
  'src/resources/envelope-parts.ts',
  'src/security/envelope-cipher.ts',
  'src/security/key-derivation.ts',
  'src/upstream/api-answers.ts',
  'src/upstream/token-claims.ts',
];

interface SourceFile {
  /** Under the project's root, such as `src/http/app.ts`. */
  readonly name: string;
  readonly text: string;
  /** The names of the project's own files that it imports. */
  readonly imports: readonly string[];
}

function readSources(folder: string): SourceFile[] {
  return readdirSync(path.join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => /\.[jt]s$/.test(name))
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
  return first.replace(/\.[jt]s$/, '');
}

function floorOf(file: string): number {
  return FLOORS.findIndex((rooms) => rooms.includes(roomOf(file)));
}

const sources = readSources('src');
const toolSources = [...readSources('lab'), ...readSources('demo'), ...readSources('bench')];

/** Fails with one line for each fault. */
function assertNone(faults: readonly string[]): void {
  assert.ok(faults.length === 0, `\n${faults.join('\n')}`);
}

/** One line for each import of `files` that `isFault` finds. */
function findImports(
  files: readonly SourceFile[],
  isFault: (target: string, file: SourceFile) => boolean,
): readonly string[] {
  return files.flatMap((file) =>
    file.imports.filter((target) => isFault(target, file)).map((target) => `${file.name} imports ${target}`),
  );
}

describe('the house', () => {
  it('is read at all: a check of nothing would pass', () => {
    assert.ok(sources.length > 40);
    assert.ok(sources.flatMap((source) => source.imports).length > 100);
    assert.ok(toolSources.flatMap((source) => source.imports).length > 50);
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

  it('has every room on one floor, and no floor for a room that is gone', () => {
    assertNone(sources.filter(({ name }) => floorOf(name) === -1).map(({ name }) => `${name} is in no known room`));
    const rooms = new Set(sources.map(({ name }) => roomOf(name)));
    assertNone([...FLOORS.flat(), ...Object.keys(ALLOWED_IMPORTS)].filter((room) => !rooms.has(room)));
  });

  it('has imports that point to files that are there', () => {
    const names = new Set([...sources, ...toolSources].map((source) => source.name));
    assertNone(findImports([...sources, ...toolSources], (target) => !names.has(target)));
  });

  it('has no import that points up or sideways', () => {
    assertNone(
      findImports(sources, (target, { name }) => roomOf(name) !== roomOf(target) && floorOf(target) <= floorOf(name)),
    );
  });

  it('has rooms that know a few others only, so that they could serve elsewhere', () => {
    assertNone(
      findImports(sources, (target, { name }) => {
        const room = roomOf(name);
        return roomOf(target) !== room && ALLOWED_IMPORTS[room]?.includes(roomOf(target)) === false;
      }),
    );
  });

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
    assertNone(findImports(sources, (target) => !target.startsWith('src/')));
  });

  it('has a lab that imports nothing of tests, demo and bench, which share it', () => {
    assertNone(findImports(readSources('lab'), (target) => !/^(lab|src)\//.test(target)));
  });

  it('has one place that reads the configuration: the composition, and the entry of the command', () => {
    const readers = sources
      .filter((source) => source.imports.includes('src/config/config.ts'))
      .map((source) => source.name);
    assert.deepEqual(readers.sort(), [
      'src/cli/doctor.ts',
      'src/cli/loader-command.ts',
      'src/services.ts',
      'src/start.ts',
      'src/tell-start.ts',
    ]);
  });

  it('has entry files of processes and threads that no file imports', () => {
    assertNone(findImports(sources, (target) => [...ENTRY_FILES, ...THREAD_FILES].includes(target)));
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
  it(`has at most ${MAX_LINES} lines`, () => {
    const lengths = sources.map(({ name, text }) => ({ name, length: text.split('\n').length - 1 }));
    assertNone(
      lengths.filter(({ length }) => length > MAX_LINES).map(({ name, length }) => `${name} has ${length} lines`),
    );
  });

  it(`has classes of at most ${MAX_MUTABLE_FIELDS} mutable fields`, () => {
    const example = 'class A { #a = 1; b: string; readonly c = 1; static d; accessor e; get f() { return 1; } }';
    assert.deepEqual(mutableFields({ name: 'a.ts', text: example }), [{ owner: 'A', count: 4 }]);
    assertNone(
      sources.flatMap((source) =>
        mutableFields(source)
          .filter(({ count }) => count > MAX_MUTABLE_FIELDS)
          .map(({ owner, count }) => `${owner} in ${source.name} has ${count}`),
      ),
    );
  });

  it('is named in kebab-case after one of its exports, or is a known exception', () => {
    assertNone(
      sources.map(({ name }) => name).filter((name) => !/^[a-z0-9]+(-[a-z0-9]+)*\.[jt]s$/.test(path.basename(name))),
    );
    // Both ways, so that the list of exceptions gets no longer than it must be.
    const exceptions = sources
      .filter(({ name }) => ![...ENTRY_FILES, ...EFFECT_FILES, ...THREAD_FILES].includes(name))
      .filter(({ name, text }) => !isNamedAfterAnExport(path.basename(name, '.ts'), exportsOf(text)))
      .map(({ name }) => name);
    assert.deepEqual(exceptions.sort(), NAMED_AFTER_THEIR_THEME);
  });

  it('is no collection of odds and ends, and no barrel', () => {
    for (const { name } of sources) {
      assert.doesNotMatch(path.basename(name), /^(utils?|helpers?|index|common|misc|shared)\.ts$/, name);
      assert.doesNotMatch(name, /\/(utils?|helpers?|common|misc|shared)\//, name);
    }
    for (const { name, text } of sources) assert.doesNotMatch(text, /^export \*/m, name);
  });
});

/** The number of fields of each class that are not readonly. */
function mutableFields({ name, text }: Pick<SourceFile, 'name' | 'text'>): { owner: string; count: number }[] {
  const found: { owner: string; count: number }[] = [];
  const visit = (node: ts.Node) => {
    if (ts.isClassLike(node)) {
      const fields = node.members
        .filter(ts.isPropertyDeclaration)
        .filter(({ modifiers }) => !modifiers?.some(({ kind }) => kind === ts.SyntaxKind.ReadonlyKeyword));
      found.push({ owner: node.name?.text ?? 'a class', count: fields.length });
    }
    ts.forEachChild(node, visit);
  };
  visit(ts.createSourceFile(name, text, ts.ScriptTarget.Latest, true));
  return found;
}

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
