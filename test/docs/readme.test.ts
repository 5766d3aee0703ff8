import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { FastifyInstance } from 'fastify';
import { buildApp } from '../../src/http/app.ts';
import { loadConfig } from '../../src/config/config.ts';
import { ERRORS } from '../../src/errors.ts';
import { createLogger } from '../../src/logger.ts';
import { createServices } from '../../src/services.ts';
import { registeredRoutes } from '../support/registered-routes.ts';

const ROOT = path.resolve(import.meta.dirname, '../..');
const README = read('README.md');
const TEST_LINE = 'npm ci && npm test';
const DEMO_LINE = 'npm ci && npm run demo';

interface Package {
  readonly scripts: Readonly<Record<string, string>>;
  readonly dependencies: Readonly<Record<string, string>>;
  readonly devDependencies: Readonly<Record<string, string>>;
}

describe('README', () => {
  const packageJson = JSON.parse(read('package.json')) as Package;

  it('has the two lines near its top, and .ci/run calls that of the tests', () => {
    const top = README.split('\n').slice(0, 20);
    assert.ok(top.includes(DEMO_LINE));
    assert.ok(top.includes(TEST_LINE));
    assert.ok(read('.ci/run').split('\n').includes(TEST_LINE));
    assert.notEqual(statSync(path.join(ROOT, '.ci/run')).mode & 0o111, 0, '.ci/run is executable');
  });

  it('has every npm script that it names', () => {
    const named = [...README.matchAll(/npm run ([\w:]+)/g)].map((match) => match[1] ?? '');
    assert.deepEqual(
      named.filter((name) => !(name in packageJson.scripts)),
      [],
    );
  });

  it('lists every error code with its status and meaning', () => {
    const expected = Object.entries(ERRORS).map(([code, { status, meaning }]) => [
      `\`${code}\``,
      String(status),
      meaning,
    ]);
    assert.deepEqual(table('Errors'), expected);
  });

  it('lists every dependency, tells whether it is in the image, and gives the reason', () => {
    const rows = table('Dependencies');
    const expected = [
      ...Object.keys(packageJson.dependencies).map((name) => [`\`${name}\``, 'yes']),
      ...Object.keys(packageJson.devDependencies).map((name) => [`\`${name}\``, 'no']),
    ];
    assert.deepEqual(
      rows.map((row) => row.slice(0, 2)),
      expected,
    );
    for (const [name, , reason] of rows) assert.ok((reason ?? '').length > 10, `${name ?? ''} has a reason`);
  });

  it('lists every room of the sources', () => {
    const rooms = readdirSync(path.join(ROOT, 'src'), { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => `\`src/${entry.name}\``);
    const listed = table('The repository').map(([folder = '']) => folder);
    assert.deepEqual(listed.filter((folder) => folder.startsWith('`src/')).sort(), rooms.sort());
    const missing = listed.filter((folder) => !existsSync(path.join(ROOT, folder.replaceAll('`', ''))));
    assert.deepEqual(missing, []);
  });
});

describe('Routes of the README', () => {
  let app: FastifyInstance;
  let url: string;

  before(async () => {
    app = await createApp();
    url = await app.listen({ host: '127.0.0.1', port: 0 });
  });

  after(async () => {
    await app.close();
  });

  it('are those of the app, with their methods', async () => {
    const documented = new Map<string, string[]>();
    for (const [route = ''] of table('Routes')) {
      const [method = '', routePath = ''] = route.replaceAll('`', '').split(' ');
      documented.set(routePath, [...(documented.get(routePath) ?? []), method]);
    }
    // Each path also has a route for the methods that it refuses, so these tell no methods.
    const paths = [...new Set(registeredRoutes(app).map((route) => route.path))];
    assert.deepEqual(paths.map((routePath) => routePath.replace(/:(\w+)/g, '{$1}')).sort(), [
      ...[...documented.keys()].sort(),
    ]);
    for (const [routePath, methods] of documented) {
      const response = await fetch(url + routePath.replace(/\{\w+\}/, 'name'), { method: 'PATCH' });
      assert.equal(response.status, 405, routePath);
      const allowed = (response.headers.get('allow') ?? '').split(', ').filter((method) => method !== 'HEAD');
      assert.deepEqual(allowed.sort(), methods.sort(), routePath);
    }
  });

  it('fail with the status that the README gives them', async () => {
    const login = await post('/login', { email: 'operator@example.com', password: 'any' });
    assert.equal(login.status, 401);
    const load = await post('/load/name', { folder: 'models' });
    assert.equal(load.status, 500);
    const form = new FormData();
    form.append('data', new Blob(['model']), 'name');
    const upload = await fetch(`${url}/upload/name`, { method: 'POST', body: form });
    assert.equal(upload.status, 500);
  });

  async function post(route: string, body: unknown): Promise<Response> {
    return await fetch(url + route, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
  }
});

describe('Documents', () => {
  const documents = ['README.md', ...readdirSync(path.join(ROOT, 'docs')).map((name) => `docs/${name}`)];

  for (const document of documents.filter((name) => name.endsWith('.md'))) {
    it(`${document} links to files and headings that exist`, () => {
      for (const [, link = ''] of read(document).matchAll(/\]\(([^)\s]+)\)/g)) {
        if (/^https?:/.test(link)) continue;
        const [file = '', heading] = link.split('#');
        const target = file === '' ? document : path.join(path.dirname(document), file);
        assert.ok(existsSync(path.join(ROOT, target)), `${link} exists`);
        if (heading !== undefined) assert.ok(anchors(read(target)).includes(heading), `${link} has its heading`);
      }
    });
  }
});

/** The app with its real services. Nobody listens at its Resource API. */
async function createApp(): Promise<FastifyInstance> {
  const logger = createLogger({ level: 'silent' });
  const config = loadConfig({ RESOURCE_API_URL: 'http://127.0.0.1:9' });
  return await buildApp(createServices(config, logger), { ...config, logger });
}

function read(file: string): string {
  return readFileSync(path.join(ROOT, file), 'utf8');
}

/** The text of a section, with its subsections. */
function section(title: string): string {
  const start = README.indexOf(`\n## ${title}\n`);
  assert.notEqual(start, -1, `the README has a section "${title}"`);
  const end = README.indexOf('\n## ', start + 1);
  return README.slice(start, end === -1 ? undefined : end);
}

/** The cells of the first table of a section, without its head. */
function table(title: string): string[][] {
  const lines = section(title).split('\n');
  const start = lines.findIndex((line) => line.startsWith('|'));
  const rows = lines.slice(start);
  const end = rows.findIndex((line) => !line.startsWith('|'));
  return rows.slice(2, end === -1 ? undefined : end).map((line) =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim().replace(/\\([_*])/g, '$1')),
  );
}

/** As GitHub makes them of headings. */
function anchors(markdown: string): string[] {
  return [...markdown.matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) =>
    heading
      .toLowerCase()
      .replace(/[^\w\- ]/g, '')
      .replaceAll(' ', '-'),
  );
}
