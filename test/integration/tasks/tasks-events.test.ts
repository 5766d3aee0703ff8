import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, afterEach, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Device } from '../../support/device.ts';
import type { SeenRequest } from '../../../lab/faults/fault-proxy.ts';
import { RawConnection } from '../../../lab/faults/raw-http.ts';
import { S3_SKIP } from '../../../lab/test-environment.ts';
import { eventually } from '../../../lab/waiting.ts';
import { newApiKey } from '../../support/test-loader.ts';
import type { TaskView, TaskEvent } from '../../../lab/task-client.ts';

/** Of the events' ids; they are compared as numbers, part by part. */
function compareIds(a: string, b: string): number {
  const [aLines = 0, aReports = 0] = a.split('.').map(Number);
  const [bLines = 0, bReports = 0] = b.split('.').map(Number);
  return aLines - bLines || aReports - bReports;
}

function assertIdsRise(events: readonly TaskEvent[]): void {
  for (const [index, { id }] of events.entries()) {
    const before = events[index - 1]?.id ?? '0.0';
    assert.ok(compareIds(before, id) < 0, `${id} comes after ${before}`);
  }
}

/** Neither bytes nor percentage go back. */
function assertNeverBackwards(events: readonly TaskEvent[]): void {
  let bytes = 0;
  let percent = 0;
  for (const { event, data } of events) {
    if (event === 'log') continue;
    const { bytes_done: bytesDone, progress } = data as TaskView;
    assert.ok(bytesDone >= bytes && progress >= percent, `${bytesDone} after ${bytes}, ${progress} after ${percent}`);
    [bytes, percent] = [bytesDone, progress];
  }
}

const isRange = (request: SeenRequest) => /^bytes=\d/.test(request.headers.range ?? '');

describe('the events of a task', { skip: S3_SKIP }, () => {
  let device: Device;
  /** Three of one range, and one of three. */
  const names = ['one', 'two', 'three', 'large'];

  before(async () => {
    const env = { API_KEY: newApiKey(), UPSTREAM_TIMEOUT_MS: '30000', STALL_TIMEOUT_MS: '30000' };
    device = await Device.start({ env });
    await device.login();
    for (const name of names) await device.upload(name, randomBytes(name === 'large' ? 20_000_000 : 3_000_000));
  });

  afterEach(async () => {
    device.heal();
    for (const uid of Object.keys(await device.tasks.list())) await device.tasks.cancel(uid);
  });

  after(() => device.stop());

  /** A prefetch of all, which takes about a second. */
  async function beginSlowPrefetch(bytesPerSecond = 6_000_000): Promise<string> {
    await device.clearCache();
    device.s3Proxy.fault = (request) => (isRange(request) ? { kind: 'throttle', bytesPerSecond } : { kind: 'pass' });
    return await device.tasks.beginPrefetch(...names, 'absent');
  }

  it('tell every line of the log, progress in between, and the end', async () => {
    const uid = await beginSlowPrefetch();
    const events = await Array.fromAsync(device.tasks.events(uid));
    assertIdsRise(events);
    assertNeverBackwards(events);
    const lines = events.filter(({ event }) => event === 'log').map(({ data }) => data);
    assert.deepEqual(lines, await device.tasks.lines(uid));
    // A CDN that closes an idle connection costs one more attempt, which is told too.
    const told = lines.filter(({ text }) => !/It is tried again\.$|: it goes on$/.test(text));
    assert.equal(told.length, 6, JSON.stringify(lines));
    const progress = events.filter(({ event }) => event === 'progress');
    const last = events.at(-1);
    assert.ok(last?.event === 'end');
    assert.equal(events.filter(({ event }) => event === 'end').length, 1);
    assert.deepEqual(last.data, await device.tasks.details(uid));
    const total = last.data.bytes_done;
    // By bytes, in small steps, from the beginning.
    assert.ok(progress.length >= 8, `${progress.length} reports`);
    for (const { data } of progress) {
      assert.deepEqual(Object.keys(data).sort(), ['bytes_done', 'bytes_total', 'progress', 'waiting_for']);
      if (data.bytes_total === total) {
        assert.equal(data.progress, Math.min(99, Math.floor((100 * Number(data.bytes_done)) / total)));
      }
    }
    assert.ok(progress.some(({ data }) => Number(data.progress) > 10 && Number(data.progress) < 90));
  });

  it('are sent as a stream that nothing on the way keeps or holds back', async () => {
    const uid = await beginSlowPrefetch();
    const abort = new AbortController();
    const response = await device.tasks.openEvents(uid, undefined, abort.signal);
    assert.equal(response.status, 200);
    const { headers } = response;
    assert.deepEqual(
      ['content-type', 'cache-control', 'x-accel-buffering', 'content-length'].map((name) => headers.get(name)),
      ['text/event-stream', 'no-store', 'no', null],
    );
    abort.abort();
  });

  it('arrive soon after the bytes that they tell of', async () => {
    await device.clearCache();
    const latencies: number[] = [];
    for (let round = 0; round < 5; round++) {
      const gate = Promise.withResolvers<undefined>();
      device.s3Proxy.fault = (request) => (isRange(request) ? { kind: 'hold', until: gate.promise } : { kind: 'pass' });
      const uid = await device.tasks.beginPrefetch('one');
      const events = device.tasks.events(uid);
      await eventually(() => device.s3Proxy.openRequests > 0);
      let openedAt = Infinity;
      setTimeout(() => {
        openedAt = performance.now();
        gate.resolve(undefined);
      }, 100);
      for await (const { data } of events) {
        if ((data.bytes_done ?? 0) === 0) continue;
        latencies.push(performance.now() - openedAt);
        break;
      }
      await device.tasks.ended(uid);
      device.heal();
      await device.clearCache();
    }
    latencies.sort((a, b) => a - b);
    // That includes the time in which the CDN reads its disk. How soon in ms is for the bench to say.
    assert.ok(Number(latencies[2]) < 1_500 && Number(latencies[0]) >= 0, `${latencies.map(Math.round).join(', ')} ms`);
  });

  it('go on after Last-Event-ID where a connection was cut, again and again, with nothing twice or left out', async () => {
    const uid = await beginSlowPrefetch();
    const events: TaskEvent[] = [];
    let connections = 0;
    while (events.at(-1)?.event !== 'end') {
      connections++;
      let taken = 0;
      for await (const event of device.tasks.events(uid, events.at(-1)?.id)) {
        events.push(event);
        if (++taken === 2) break; // Which closes the connection.
      }
      assert.ok(connections < 100, 'it does not get on');
    }
    assert.ok(connections > 4, `${connections} connections`);
    assertIdsRise(events);
    assertNeverBackwards(events);
    const lines = events.filter(({ event }) => event === 'log').map(({ data }) => data);
    assert.deepEqual(lines, await device.tasks.lines(uid));
    assert.deepEqual(events.at(-1)?.data, await device.tasks.details(uid));
  });

  it('are replayed after the end, from the beginning or from any line on', async () => {
    const uid = await beginSlowPrefetch(100_000_000);
    const { status } = await device.tasks.ended(uid);
    assert.equal(status, 'failed');
    const lines = await device.tasks.lines(uid);
    const shape = (events: readonly TaskEvent[]) => events.map(({ event, id }) => `${event} ${id}`);
    const whole = ['log 1.0', 'log 2.0', 'log 3.0', 'log 4.0', 'log 5.0', 'log 6.0', 'end 7.0'];
    for (const id of [undefined, '', 'x', '0', '0.0', '-1.0', '1', '1.0.0', '1.x', '9999999999.0', '8.0', '99.1']) {
      const events = await Array.fromAsync(device.tasks.events(uid, id));
      assert.deepEqual(shape(events), whole, `after ${id}`);
      assert.deepEqual(
        events.slice(0, -1).map(({ data }) => data),
        lines,
      );
    }
    for (const [id, first] of [
      ['0.7', 0],
      ['1.0', 1],
      ['3.9', 3],
      ['5.0', 5],
      ['6.0', 6],
      ['6.12', 6],
    ] as const) {
      const events = await Array.fromAsync(device.tasks.events(uid, id));
      assert.deepEqual(shape(events), whole.slice(first), `after ${id}`);
      assert.deepEqual(events.at(-1)?.data, await device.tasks.details(uid));
    }
  });

  it('answer 204 to a client that has seen the end, so that it does not come back', async () => {
    const uid = await beginSlowPrefetch(100_000_000);
    const last = (await Array.fromAsync(device.tasks.events(uid))).at(-1);
    for (const restarted of [false, true]) {
      if (restarted) await device.restartLoader('SIGKILL');
      for (const id of [last?.id ?? '', '7.3']) {
        const response = await device.tasks.openEvents(uid, id);
        assert.deepEqual([response.status, await response.text()], [204, ''], id);
      }
      const replayed = await Array.fromAsync(device.tasks.events(uid));
      assert.deepEqual([replayed.at(-1)?.id, replayed.length], [last?.id, 7]);
    }
    await device.login();
  });

  it('are the same for all who watch', async () => {
    const uid = await beginSlowPrefetch();
    const watched = await Promise.all(Array.from({ length: 20 }, () => Array.fromAsync(device.tasks.events(uid))));
    const details = await device.tasks.details(uid);
    const lines = await device.tasks.lines(uid);
    for (const events of watched) {
      assertIdsRise(events);
      assertNeverBackwards(events);
      assert.deepEqual(events.at(-1)?.data, details);
      assert.deepEqual(
        events.filter(({ event }) => event === 'log').map(({ data }) => data),
        lines,
      );
    }
  });

  it('hold nothing for clients that have left, while the task goes on', async () => {
    await device.clearCache();
    const gate = Promise.withResolvers<undefined>();
    device.s3Proxy.fault = (request) => (isRange(request) ? { kind: 'hold', until: gate.promise } : { kind: 'pass' });
    const errors = () => device.loader.log().match(/"level":[56]0/g)?.length ?? 0;
    const errorsBefore = errors();
    const uid = await device.tasks.beginPrefetch('one');
    await eventually(() => device.s3Proxy.requests.some(isRange));
    const clients = await Promise.all(Array.from({ length: 20 }, () => RawConnection.open(device.loader.port)));
    const { authorization } = device.loader.authorization;
    const request = `GET /tasks/${uid}/events HTTP/1.1\r\nHost: loader\r\nAuthorization: ${authorization}\r\n\r\n`;
    for (const client of clients) await client.send(request);
    await eventually(() => clients.every(({ received }) => received.includes('event: progress')));
    const watched = device.loader.openSockets();
    for (const client of clients) client.close();
    await eventually(() => device.loader.openSockets() <= watched - 20, { timeoutMs: 1000 });
    assert.equal((await device.tasks.details(uid)).status, 'in_progress');
    gate.resolve(undefined);
    assert.equal((await device.tasks.ended(uid)).status, 'complete');
    assert.equal(errors(), errorsBefore, 'something was logged as an error');
  });

  it('end with that of a task which is cancelled, and stay so', async () => {
    const uid = await beginSlowPrefetch(1_000_000);
    const watching = Array.fromAsync(device.tasks.events(uid));
    await eventually(async () => (await device.tasks.details(uid)).bytes_done > 0);
    const details = await device.tasks.cancel(uid);
    const events = await watching;
    assert.deepEqual(events.at(-1)?.data, details);
    assert.deepEqual([events.at(-1)?.event, events.at(-2)?.event], ['end', 'log']);
    assert.equal(events.at(-2)?.data.text, 'The task was cancelled.');
    await sleep(50);
    const replayed = (await Array.fromAsync(device.tasks.events(uid))).at(-1);
    assert.deepEqual([replayed?.id, replayed?.data], [events.at(-1)?.id, details]);
  });

  it('end, at SIGTERM, with the interruption, and go on in the next run from there', async () => {
    const uid = await beginSlowPrefetch(1_000_000);
    const watching = Array.fromAsync(device.tasks.events(uid));
    await eventually(async () => (await device.tasks.details(uid)).bytes_done > 0);
    assert.equal(await device.loader.stop('SIGTERM'), 0);
    const events = await watching;
    const last = events.at(-1);
    assert.deepEqual([last?.event, last?.data.status, last?.data.code], ['end', 'interrupted', 'task_interrupted']);
    await device.startLoader();
    assert.deepEqual(await device.tasks.details(uid), last?.data);
    const response = await device.tasks.openEvents(uid, last?.id);
    assert.equal(response.status, 204);
    await device.login();
  });

  it('go on after kill -9 with what happened meanwhile', async () => {
    const uid = await beginSlowPrefetch(1_000_000);
    await eventually(async () => (await device.tasks.lines(uid)).length > 0);
    const seen: TaskEvent[] = [];
    for await (const event of device.tasks.events(uid)) {
      seen.push(event);
      if (event.event === 'progress' && Number(event.data.bytes_done) > 0) break;
    }
    await device.restartLoader('SIGKILL');
    const events = await Array.fromAsync(device.tasks.events(uid, seen.at(-1)?.id));
    const shape = events.map(({ event, data }) => [event, data.level ?? data.status]);
    assert.deepEqual(shape, [
      ['log', 'warn'],
      ['end', 'interrupted'],
    ]);
    assertIdsRise([...seen, ...events]);
    assert.equal(events[0]?.data.line, 1 + Math.max(...seen.map(({ data }) => data.line ?? 0)));
    await device.login();
  });

  it('of a task that there is not are answered with 404', async () => {
    const response = await device.tasks.openEvents('00000000-0000-4000-8000-000000000000', '5.0');
    const { status, body } = await device.loader.readJson(response);
    assert.deepEqual([status, body.code], [404, 'task_not_found']);
  });
});
