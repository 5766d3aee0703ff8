import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { FastifyInstance } from 'fastify';
import { SECTION_LETTERS } from '../../bench/options.ts';
import { ERRORS } from '../../src/errors.ts';
import { toScheduleView } from '../../src/http/schemas/schedule.ts';
import { toLogLine, toTaskSummary, toTaskView } from '../../src/http/schemas/task.ts';
import { Instruments } from '../../src/metrics/instruments.ts';
import { createProviders } from '../../src/providers/providers.ts';
import type { Services } from '../../src/services.ts';
import type { Schedule } from '../../src/tasks/schedule.ts';
import { TASK_STATUSES } from '../../src/tasks/task.ts';
import { ProgressMeter } from '../../src/binary-split/unlock-progress.ts';
import { registeredRoutes } from '../support/registered-routes.ts';
import { makeTask } from '../support/task-lab.ts';
import { makeTestApp } from '../support/test-app.ts';
import { codeOf, Document, readProjectFile, ROOT } from './documents.ts';

/** The tables of the documents are those of the code. */

const JOURNEYS = ['Warm load', 'Cold load with two callers', 'Upload', 'Unlock', 'Scheduled prefetch'];
const API = new Document('docs/http-api.md');

describe('docs/operating.md', () => {
  const rows = new Document('docs/operating.md').section('Error codes').table;

  it('lists every error code with its status and meaning', () => {
    const expected = Object.entries(ERRORS).map(([code, { status, meaning }]) => [code, String(status), meaning]);
    assert.deepEqual(
      rows.map(([code, status, meaning]) => [codeOf(code), status, meaning]),
      expected,
    );
  });

  it('says what to do about each of them', () => {
    const mute = rows.filter(([, , , action = '']) => action.length < 10).map(([code]) => code);
    assert.deepEqual(mute, []);
  });
});

describe('the metrics of docs/operating.md', () => {
  it('are those of the code, with their labels', async () => {
    const rows = new Document('docs/operating.md').section('Metrics').table;
    const metrics = await new Instruments().registry.getMetricsAsJSON();
    const own = metrics.filter(({ name }) => name.startsWith('loader_'));
    const labels = new Map(Object.values(new Instruments()).flatMap(labelsOf));
    assert.ok(own.length > 20);
    assert.deepEqual(
      rows.map(([name, names]) => [codeOf(name), codeOf(names)]),
      own.map(({ name }) => [name, labels.get(name)]),
    );
  });

  function labelsOf(instrument: unknown): [string, string][] {
    const { name, labelNames } = instrument as { readonly name?: string; readonly labelNames?: readonly string[] };
    return name === undefined ? [] : [[name, labelNames?.join(' ') ?? '']];
  }
});

describe('docs/architecture.md', () => {
  const page = new Document('docs/architecture.md');

  it('lists every room of the sources', () => {
    const rooms = readdirSync(path.join(ROOT, 'src'), { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name);
    const listed = page.section('Rooms').table.map(([room]) => codeOf(room));
    assert.deepEqual(
      listed.filter((room) => room.startsWith('src/') && !room.endsWith('.ts')).sort(),
      rooms.map((room) => `src/${room}`).sort(),
    );
    for (const room of listed) assert.ok(existsSync(path.join(ROOT, room)), room);
  });

  it('has the floors that the test of the imports has', () => {
    const [, array = ''] =
      /const FLOORS[^=]*= (\[\n[^]*?\n\]);/.exec(readProjectFile('test/unit/architecture.test.ts')) ?? [];
    const rows = array.split('\n').map((line) => [...line.matchAll(/'([\w-]+)'/g)].map((match) => match[1] ?? ''));
    const floors = rows.filter((rooms) => rooms.length > 0);
    assert.ok(floors.length > 8);
    const [documented = ''] = page.section('Floors').blocks('text');
    assert.deepEqual(
      documented.split('\n').map((line) => line.split('  ')),
      floors,
    );
  });

  it('counts files and callbacks of each journey as its table shows them', () => {
    for (const title of JOURNEYS) {
      const section = page.section(title);
      const [, files, callbacks] = /^(\d+) files, (\d+) callbacks\./m.exec(section.text) ?? [];
      const first = title === 'Cold load with two callers' ? page.section('Warm load').tables.flat() : [];
      const rows = [...first, ...section.tables.flat()];
      const names = new Set(rows.map(([file]) => codeOf(file)));
      // A file of the warm load that the cold one does not pass.
      names.delete(/`([^`]+)` is left out/.exec(section.text)?.[1] ?? '');
      assert.ok(names.size > 12, title);
      assert.equal(Number(files), names.size, title);
      // The words of one row are parted by semicolons.
      const told = rows.flatMap(([, what = '']) => /\(callbacks?: ([^)]*)\)/.exec(what)?.[1]?.split('; ') ?? []);
      assert.equal(Number(callbacks), told.length, title);
    }
  });

  it('names files that exist', () => {
    const named = page.inlineCode.filter((code) => /^[\w./-]+\.(?:ts|json|md)$/.test(code) && code.includes('/'));
    assert.ok(named.length > 25, `${named.length} are found`);
    const missing = named.filter(
      (file) => !existsSync(path.join(ROOT, file)) && !existsSync(path.join(ROOT, 'src', file)),
    );
    assert.deepEqual(missing, []);
  });
});

describe('docs/bench.md', () => {
  it('names the first and the last section', () => {
    const letters = new Document('docs/bench.md').inlineCode.filter((code) => /^[a-z]$/.test(code));
    assert.equal(letters.sort()[0], SECTION_LETTERS[0]);
    assert.equal(letters.at(-1), SECTION_LETTERS.at(-1));
  });
});

describe('docs/http-api.md', () => {
  let app: FastifyInstance;
  let misfits: readonly string[] = [];
  let services: Services;
  let url: string;

  before(async () => {
    const variables = {
      IMAGES_PATH: '/no/images.enc',
      STATE_DIR: '/no/state',
      DOCKER_HOST: 'unix:///no/engine.sock',
    };
    ({ app, services, misfits } = await makeTestApp({ variables }));
    url = await app.listen({ host: '127.0.0.1', port: 0 });
  });

  after(async () => {
    await app.close();
    await services.close();
    assert.deepEqual(misfits, []);
  });

  it('lists the routes of the app, with their methods', async () => {
    const documented = new Map<string, string[]>();
    for (const [method, route] of documentedRoutes()) documented.set(route, [...(documented.get(route) ?? []), method]);
    // Each path also has a route for the methods that it refuses, so these tell no methods.
    const routes = registeredRoutes(app).filter((route) => !route.path.startsWith('/docs/'));
    const paths = [
      ...new Set(routes.map((route) => route.path.replace(/:(\w+)/g, '{$1}').replace('*', '{folder}/{filename}'))),
    ];
    assert.deepEqual(paths.sort(), [...documented.keys()].sort());
    for (const [route, methods] of documented) {
      const response = await fetch(url + route.replace(/\{\w+\}/g, 'name'), { method: 'PUT' });
      assert.equal(response.status, 405, route);
      const allowed = (response.headers.get('allow') ?? '').split(', ').filter((method) => method !== 'HEAD');
      assert.deepEqual(allowed.sort(), methods.sort(), route);
    }
  });

  for (const [route, send] of Object.entries({
    'POST /login': () => post('/login', { email: 'operator@example.com', password: 'any' }),
    'POST /load/{filename}': () => post('/load/name', { folder: 'models' }),
    'POST /upload/{filename}': () => upload('name'),
    'POST /unlock': () => post('/unlock', { email: 'operator@example.com', password: 'any' }),
  })) {
    it(`tells the status with which ${route} fails`, async () => {
      const { status } = await send();
      assert.ok(status >= 400);
      assert.match(rowOf(route), new RegExp(`\\b${status}\\b`));
    });
  }

  it('tells the status of the routes of tasks without an API key', async () => {
    const { status } = await fetch(`${url}/tasks`);
    assert.match(
      API.section('The API key').text,
      new RegExp(`the routes of tasks and schedules always return ${status}`),
    );
  });

  it('shows an error, and the fault of a request, as they are', async () => {
    const [error, faults] = API.section('Errors')
      .blocks('json')
      .map((block) => JSON.parse(block) as unknown);
    // Of a Loader at which no login has failed.
    const { app: fresh } = await makeTestApp();
    const freshUrl = await fresh.listen({ host: '127.0.0.1', port: 0 });
    const load = async (body: object) => (await post('/load/name', body, freshUrl)).json();
    assert.deepEqual(await load({ folder: 'models' }), error);
    assert.deepEqual(await load({}), faults);
    await fresh.close();
  });

  it('has the fields of the two routes of health', async () => {
    assert.deepEqual(await (await fetch(`${url}/health`)).json(), { status: 'healthy' });
    const status = (await (await fetch(`${url}/status`)).json()) as object;
    assert.deepEqual(fieldsOf('Login and health'), Object.keys(status));
  });

  it('has the fields of the status of the unlock', async () => {
    const status = (await (await fetch(`${url}/unlock/status`)).json()) as object;
    assert.deepEqual(fieldsOf("The unlock's status", 0), Object.keys(status));
    const counts = { bytesDone: 1, bytesTotal: 2, imagesDone: 0, imagesTotal: 1, currentImages: [] };
    assert.deepEqual(fieldsOf("The unlock's status", 1), Object.keys(new ProgressMeter().measure(counts, 0.5)));
  });

  it('has the fields of tasks, lines and schedules', () => {
    const short = Object.keys(toTaskSummary(TASK));
    assert.deepEqual(fieldsOf('The short form of a task'), short);
    const whole = Object.keys(toTaskView(TASK)).filter((field) => !short.includes(field));
    assert.deepEqual(fieldsOf('The whole task'), whole);
    assert.deepEqual(fieldsOf('The log'), Object.keys(toLogLine({ line: 1, timeMs: 0, level: 'info', text: '' })));
    const schedule = toScheduleView(SCHEDULE);
    assert.deepEqual(fieldsOf('Schedules', 1), Object.keys(schedule));
    assert.deepEqual(fieldsOf('Schedules', 2), Object.keys(schedule.last_run ?? {}));
  });

  async function upload(name: string): Promise<Response> {
    const form = new FormData();
    form.append('data', new Blob(['model']), name);
    return await fetch(`${url}/upload/${name}`, { method: 'POST', body: form });
  }

  async function post(route: string, body: unknown, base = url): Promise<Response> {
    return await fetch(base + route, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
  }
});

describe('docs/tasks.md', () => {
  const page = new Document('docs/tasks.md');

  it('lists every provider with its parameters', () => {
    const unused = {} as Parameters<typeof createProviders>[0];
    const expected = createProviders(unused).map(({ name, parameters }) => [
      name,
      Object.keys(parameters['properties'] as object),
    ]);
    const documented = page
      .section('Providers')
      .table.map(([name, parameters = '']) => [
        codeOf(name),
        [...parameters.matchAll(/`(\w+)`/g)].map((match) => match[1]),
      ]);
    assert.deepEqual(documented, expected);
  });

  it('lists every field of the result of each provider', () => {
    for (const { name, result } of createProviders({} as Parameters<typeof createProviders>[0])) {
      const { properties } = result as unknown as ObjectSchema;
      const nested = Object.values(properties).flatMap(({ items }) => items ?? []);
      const documented = page.section(name).tables.map((rows) => rows.map(([field]) => codeOf(field)));
      const expected = [properties, ...nested.map((item) => item.properties)].map((fields) => Object.keys(fields));
      assert.deepEqual(documented, expected, name);
    }
  });

  it('lists every status', () => {
    const listed = page.section('How a task ends').table.map(([status]) => codeOf(status));
    assert.deepEqual(listed, [...TASK_STATUSES]);
  });
});

interface ObjectSchema {
  readonly properties: Readonly<Record<string, { readonly items?: ObjectSchema }>>;
}

const TASK = makeTask({ uid: '', finishedAtMs: 0 });

const SCHEDULE: Schedule = {
  id: '',
  provider: '',
  parameters: {},
  cron: '',
  timezone: '',
  catchUp: false,
  isPaused: false,
  name: null,
  createdAtMs: 0,
  nextDueAtMs: null,
  lastDue: { dueAtMs: 0, outcome: 'missed', task: null, reason: '' },
};

/** Method and path. */
function documentedRoutes(): (readonly [method: string, route: string])[] {
  return API.section('Routes').table.map(([route]) => {
    const [method = '', routePath = ''] = codeOf(route).split(' ');
    return [method, routePath];
  });
}

function rowOf(route: string): string {
  const row = API.section('Routes').table.find(([cell]) => codeOf(cell) === route);
  return (row ?? []).join(' ');
}

/** The names in the first column of a table. */
function fieldsOf(title: string, table = 0): string[] {
  return (API.section(title).tables[table] ?? []).map(([field]) => codeOf(field));
}
