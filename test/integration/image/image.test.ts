import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { sha256 } from '../../../lab/sha256.ts';
import { TaskClient } from '../../../lab/task-client.ts';
import { CONTAINER_SKIP } from '../../../lab/test-environment.ts';
import { eventually } from '../../../lab/waiting.ts';
import { readHardware, type HardwareReading } from '../../../src/hardware/read-hardware.ts';
import type { UnlockStatus } from '../../../src/unlock/unlock-service.ts';
import { ContainerDevice, NAMED_VOLUMES, SOCKET_GROUP, type ContainedLoader } from '../../support/container-device.ts';

/** Of the image's USER. */
const USER_ID = '1000';
/** For a change of the health, which takes up to three failures of 1.5 s. */
const WAIT = { timeoutMs: 60_000, pollMs: 50 };
/** docker stop kills after so many ms. */
const STOP_TIMEOUT_MS = 10_000;

describe('the image of the Dockerfile', { skip: CONTAINER_SKIP }, () => {
  let device: ContainerDevice;

  before(async () => {
    device = await ContainerDevice.start();
  });

  after(async () => {
    await device[Symbol.asyncDispose]();
  });

  it('runs the Loader as its first process, as the user node and not as root', async () => {
    await device.withLoader({}, async ({ container }) => {
      const { output } = await container.exec('cat', '/proc/1/status', '/proc/1/cmdline');
      assert.match(output, new RegExp(`^Uid:(?:\\t${USER_ID}){4}$`, 'm'));
      assert.match(output, new RegExp(`^Gid:(?:\\t${USER_ID}){4}$`, 'm'));
      assert.match(output, /node\0--max-semi-space-size=2\0dist\/main\.js\0$/);
    });
  });

  for (const [which, volumes] of [
    ['the volumes of docs/operating.md', NAMED_VOLUMES],
    ['no volumes but its own', []],
  ] as const) {
    it(`uploads, loads and keeps tasks with a read-only root and ${which}`, async () => {
      await device.withLoader({ isReadOnly: true, volumes }, async ({ container, client }) => {
        assert.notEqual((await container.exec('touch', '/app/file', '/tmp/file')).exitCode, 0);
        assert.equal((await client.login(device.user.email, device.user.password)).status, 200);
        const model = randomBytes(5_000_000);
        assert.equal((await client.upload('model.onnx', model, 'models')).status, 200);
        const received = await client.load('model.onnx');
        assert.equal(received.status, 200);
        assert.equal(sha256(await received.bytes()), sha256(model));
        await new TaskClient(client).complete('verify');
        const { output } = await container.exec('ls', 'models/models', 'state');
        assert.match(output, /model\.onnx\.big/);
        assert.match(output, /tasks\.db/);
      });
    });
  }

  it("unlocks into the engine when it has the group of the engine's socket", async () => {
    await device.withLoader({ isReadOnly: true, groups: [SOCKET_GROUP] }, async (loader) => {
      const status = await unlock(device, loader);
      assert.equal(status?.state, 'ready', JSON.stringify(status));
      assert.equal((await device.docker.inspect(device.packed.tags[0] ?? ''))?.Id, device.packed.id);
    });
  });

  it("says so when it lacks the group of the engine's socket", async () => {
    await device.withLoader({ isReadOnly: true }, async (loader) => {
      assert.equal((await unlock(device, loader))?.code, 'engine_forbidden');
    });
  });

  it('is healthy while the Loader answers, and unhealthy when it hangs', async () => {
    const health = { intervalMs: 500, timeoutMs: 4000 }; // The check is a new process of Node each time.
    await device.withLoader({ isReadOnly: true, health }, async ({ container }) => {
      const hasHealth = (status: string) => async () => (await container.state()).Health?.Status === status;
      await eventually(hasHealth('healthy'), WAIT);
      await container.signal('SIGSTOP');
      await eventually(hasHealth('unhealthy'), WAIT);
      await container.signal('SIGCONT');
      await eventually(hasHealth('healthy'), WAIT);
    });
  });

  it('ends with exit code 0 at docker stop, within its 10 s', async () => {
    await device.withLoader({ isReadOnly: true }, async ({ container }) => {
      const start = performance.now();
      assert.equal(await container.stop(), 0);
      assert.ok(performance.now() - start < STOP_TIMEOUT_MS);
      assert.match(await container.log(), /SIGTERM/);
    });
  });

  it('reads the same hardware as the machine does', async () => {
    const read =
      "import('/app/dist/hardware/read-hardware.js').then(async (it) => console.log(JSON.stringify(await it.readHardware())))";
    const { exitCode, output } = await device.engine.run({ image: device.image, command: ['-e', read] });
    assert.equal(exitCode, 0, output);
    const inside = (JSON.parse(output) as HardwareReading).facts;
    const { facts } = await readHardware();
    // The machine of the test may lack lspci. That the image has it is tested below.
    assert.deepEqual(inside, { ...facts, gpu: { ...facts.gpu, models: inside.gpu.models } });
  });

  it('has the commands that read the hardware, and neither npm nor lists of packages', async () => {
    const run = async (script: string) =>
      await device.engine.run({ image: device.image, command: ['sh', '-c', script] });
    for (const command of ['lscpu', 'lspci --version']) {
      const { exitCode, output } = await run(command);
      assert.equal(exitCode, 0, output);
    }
    assert.equal((await run('command -v npm; ls /var/lib/apt/lists')).output, '');
  });
});

/** Unlocks, and returns how it ended. */
async function unlock({ user }: ContainerDevice, { client }: ContainedLoader): Promise<UnlockStatus | undefined> {
  assert.equal((await client.startUnlock(user.email, user.password)).status, 200);
  return (await Array.fromAsync(client.watchUnlock())).at(-1);
}
