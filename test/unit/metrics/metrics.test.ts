import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Metrics, type EndedRequest, type Readings } from '../../../src/metrics/metrics.ts';
import { UNLOCK_STATES } from '../../../src/unlock/unlock-state-machine.ts';

const READINGS: Readings = {
  isReady: false,
  isLoggedIn: true,
  unlockState: 'ready',
  unlockStates: UNLOCK_STATES,
  tasksRunning: new Map([
    ['prefetch', 1],
    ['verify', 0],
  ]),
  engineIsReachable: undefined,
  cache: { bytes: 300, copies: 2, freeBytes: 4000 },
  workMemory: { budget: 1000, held: 600, waiting: 3 },
  clockOffsetMs: null,
  lostLines: new Map([['stdout', 7]]),
};

const LOAD: EndedRequest = {
  method: 'POST',
  route: '/load/:filename',
  status: 200,
  ms: 1200,
  code: undefined,
  bytes: 50,
  source: 'cdn',
};

/** The samples of a page, without comments and without those of the process. */
async function samplesOf(metrics: Metrics, readings: Partial<Readings> = {}): Promise<ReadonlyMap<string, number>> {
  const { text } = await metrics.render({ ...READINGS, ...readings });
  const lines = text.split('\n').filter((line) => line.startsWith('loader_'));
  return new Map(
    lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ')))]),
  );
}

function assertSamples(samples: ReadonlyMap<string, number>, expected: Readonly<Record<string, number>>): void {
  const found = Object.fromEntries(Object.keys(expected).map((name) => [name, samples.get(name)]));
  assert.deepEqual(found, expected);
}

describe('metrics', () => {
  it('count what happened before prom-client was read, and after', async () => {
    const metrics = new Metrics({ version: '1.2.3' });
    metrics.noteLogin('ok');
    await samplesOf(metrics);
    metrics.noteLogin('ok');
    metrics.noteLogin('api_unreachable');
    assertSamples(await samplesOf(metrics), {
      'loader_build_info{version="1.2.3"}': 1,
      'loader_logins_total{outcome="ok"}': 2,
      'loader_logins_total{outcome="api_unreachable"}': 1,
    });
  });

  it('hold no more than so many notes before that', async () => {
    const metrics = new Metrics({ version: '1' });
    for (let count = 0; count < 10_010; count++) metrics.noteLogin('ok');
    assertSamples(await samplesOf(metrics), { 'loader_logins_total{outcome="ok"}': 10_000 });
  });

  it('have requests by route and status, failures by code, and bytes by source', async () => {
    const metrics = new Metrics({ version: '1' });
    metrics.noteRequest(LOAD);
    metrics.noteRequest({ ...LOAD, source: 'cache', bytes: 7, status: 200, code: 'client_closed' });
    metrics.noteRequest({ ...LOAD, source: undefined, bytes: undefined, status: undefined, code: 'client_closed' });
    metrics.noteRequest({ ...LOAD, route: '/upload/:filename', source: undefined, bytes: 9 });
    const load = 'method="POST",route="/load/:filename"';
    assertSamples(await samplesOf(metrics), {
      [`loader_http_request_duration_seconds_count{${load},status="200"}`]: 2,
      [`loader_http_request_duration_seconds_sum{${load},status="200"}`]: 2.4,
      [`loader_http_request_duration_seconds_bucket{le="1",${load},status="200"}`]: 0,
      [`loader_http_request_duration_seconds_bucket{le="5",${load},status="200"}`]: 2,
      [`loader_http_request_duration_seconds_count{${load},status="none"}`]: 1,
      'loader_http_request_failures_total{route="/load/:filename",code="client_closed"}': 2,
      'loader_resource_sent_bytes_total{source="cdn"}': 50,
      'loader_resource_sent_bytes_total{source="cache"}': 7,
      loader_resource_received_bytes_total: 9,
    });
  });

  it('have calls upstream, unlocks and tasks by what came of them', async () => {
    const metrics = new Metrics({ version: '1' });
    metrics.noteCall('cdn', { kind: 'answer', method: 'GET', status: 206, seconds: 0.2 });
    metrics.noteCall('api', { kind: 'fault', method: 'POST', fault: 'unknown-ca' });
    metrics.noteUnlock('ready');
    metrics.noteUnlock('archive_key_wrong');
    metrics.noteTask('prefetch', 'failed');
    assertSamples(await samplesOf(metrics), {
      'loader_upstream_call_duration_seconds_count{upstream="cdn",method="GET",status="206"}': 1,
      'loader_upstream_call_faults_total{upstream="api",fault="unknown-ca"}': 1,
      'loader_unlocks_total{outcome="ready"}': 1,
      'loader_unlocks_total{outcome="archive_key_wrong"}': 1,
      'loader_tasks_total{provider="prefetch",status="failed"}': 1,
    });
  });

  it('show the readings as they are now', async () => {
    const metrics = new Metrics({ version: '1' });
    await samplesOf(metrics, { unlockState: 'idle', isReady: true });
    const samples = await samplesOf(metrics, { lostLines: new Map([['stdout', 9]]) });
    assertSamples(samples, {
      loader_ready: 0,
      loader_logged_in: 1,
      'loader_unlock_state{state="ready"}': 1,
      'loader_unlock_state{state="idle"}': 0,
      'loader_unlock_state{state="error"}': 0,
      'loader_tasks_running{provider="prefetch"}': 1,
      'loader_tasks_running{provider="verify"}': 0,
      loader_cache_bytes: 300,
      loader_cache_copies: 2,
      loader_cache_free_bytes: 4000,
      loader_work_memory_budget_bytes: 1000,
      loader_work_memory_held_bytes: 600,
      loader_work_memory_waiting: 3,
      'loader_log_lines_lost_total{output="stdout"}': 9,
    });
    assert.ok(Number.isNaN(samples.get('loader_engine_reachable')));
    assert.ok(Number.isNaN(samples.get('loader_clock_offset_seconds')));
    const known = await samplesOf(metrics, { engineIsReachable: true, clockOffsetMs: -1500 });
    assertSamples(known, { loader_engine_reachable: 1, loader_clock_offset_seconds: -1.5 });
  });

  it('have names that tell counters from gauges, and a help each, as promtool wants it', async () => {
    const { text } = await new Metrics({ version: '1' }).render(READINGS);
    const types = [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name = '', type = '']) => ({ name, type }));
    assert.ok(types.length > 40);
    for (const { name, type } of types) {
      assert.equal(name.endsWith('_total'), type === 'counter', `${name} is a ${type}`);
      assert.match(text, new RegExp(`^# HELP ${name} \\S.*\\S$`, 'm'));
    }
  });

  it('have the memory, the CPU and the event loop of the process', async () => {
    const { text, mediaType } = await new Metrics({ version: '1' }).render(READINGS);
    assert.match(mediaType, /^text\/plain; version=0\.0\.4/);
    for (const name of [
      'process_resident_memory_bytes',
      'process_cpu_seconds_total',
      'nodejs_eventloop_lag_p99_seconds',
    ]) {
      assert.match(text, new RegExp(`^${name} [\\d.e-]+$`, 'm'));
    }
  });
});
