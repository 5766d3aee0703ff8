import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { bodyOf } from '../../../lab/json-answer.ts';
import { S3_SKIP } from '../../../lab/test-environment.ts';
import { eventually } from '../../../lab/waiting.ts';
import { Device } from '../../support/device.ts';

const LENGTH = 2_000_000;

describe('the metrics of a device', { skip: S3_SKIP }, () => {
  let device: Device;
  before(async () => {
    device = await Device.start({ env: { API_KEY: 'key-of-this-device', DOCKER_HOST: 'unix:///nowhere.sock' } });
  });
  after(() => device.stop());

  /** The value of a sample, whose name has its labels; undefined where there is none. */
  async function sample(name: string): Promise<number | undefined> {
    const page = await (await fetch(`${device.loader.url}/metrics`)).text();
    const line = page.split('\n').find((text) => text.startsWith(`${name} `));
    return line === undefined ? undefined : Number(line.slice(name.length));
  }

  it('count logins and the calls that they make', async () => {
    assert.equal((await device.loader.login(device.email, 'wrong-password')).status, 401);
    assert.equal(await sample('loader_logged_in'), 0);
    await device.login();
    assert.equal(await sample('loader_logins_total{outcome="wrong_credentials"}'), 1);
    assert.equal(await sample('loader_logins_total{outcome="ok"}'), 1);
    assert.equal(await sample('loader_logged_in'), 1);
    assert.equal(await sample('loader_ready'), 1);
    const calls = 'loader_upstream_call_duration_seconds_count';
    assert.equal(await sample(`${calls}{upstream="api",method="POST",status="409"}`), 1);
    assert.ok(Number(await sample('loader_clock_offset_seconds')) < 60);
  });

  it('have the bytes of resources by their source, and requests by their routes', async () => {
    await device.upload('model', randomBytes(LENGTH));
    await (await device.loader.load('model')).arrayBuffer();
    await device.clearCache();
    await (await device.loader.load('model')).arrayBuffer();
    const route = 'loader_http_request_duration_seconds_count{method="POST",route="/load/:filename",status="200"}';
    await eventually(async () => (await sample(route)) === 2);
    assert.equal(await sample('loader_resource_received_bytes_total'), LENGTH);
    assert.equal(await sample('loader_resource_sent_bytes_total{source="cache"}'), LENGTH);
    assert.equal(await sample('loader_resource_sent_bytes_total{source="cdn"}'), LENGTH);
    const calls = 'loader_upstream_call_duration_seconds_count';
    assert.ok(Number(await sample(`${calls}{upstream="cdn",method="GET",status="206"}`)) > 0);
  });

  it('count tasks by what became of them', async () => {
    await device.tasks.complete('verify', {});
    assert.equal(await sample('loader_tasks_total{provider="verify",status="complete"}'), 1);
    assert.equal(await sample('loader_tasks_running{provider="verify"}'), 0);
  });

  it('count unlocks by what became of them', async () => {
    await device.loader.stop();
    const archive = path.join(device.folder, 'images.enc');
    await writeFile(archive, randomBytes(4096));
    await device.startLoader({ IMAGES_PATH: archive });
    bodyOf(await device.loader.startUnlock(device.email, device.password));
    await eventually(async () => (await device.loader.unlockStatus()).state === 'error');
    const { code } = await device.loader.unlockStatus();
    assert.equal(await sample(`loader_unlocks_total{outcome="${code}"}`), 1);
    assert.equal(await sample('loader_unlock_state{state="error"}'), 1);
  });

  it('tell why a server gave no answer', async () => {
    await device.apiProxy.stop();
    assert.notEqual((await device.loader.login(device.email, device.password)).status, 200);
    assert.ok(Number(await sample('loader_upstream_call_faults_total{upstream="api",fault="unreachable"}')) > 0);
  });
});
