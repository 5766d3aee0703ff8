import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import path from 'node:path';
import { NEVER } from '../../../src/async/abort.ts';
import { S3CdnManager } from '../../../src/cdn/s3-cdn-manager.ts';
import { DEFAULT_KEY_TEMPLATES } from '../../../src/config/variables.ts';
import { HardwareFingerprint } from '../../../src/hardware/hardware-fingerprint.ts';
import { KeptHardware } from '../../../src/hardware/kept-hardware.ts';
import { KnownSecrets } from '../../../src/log/known-secrets.ts';
import { encryptBuffer } from '../../../src/security/envelope-cipher.ts';
import { SecurityKeys } from '../../../src/security/security-keys.ts';
import { Upstream } from '../../../src/upstream/upstream.ts';
import { Board, type FakeDevices } from '../../support/board.ts';
import { ScriptedApi } from '../../support/scripted-api.ts';
import { makeLogger } from '../../support/task-lab.ts';

const USER = { email: 'operator@example.com', password: 'password' };
const CDN_YAML = Buffer.from(`host: http://127.0.0.1:9
bucket: b
downloader_access_key: a
downloader_access_secret: b
uploader_access_key: c
uploader_access_secret: d
`);
const KEYS = new SecurityKeys({ templates: DEFAULT_KEY_TEMPLATES, resourceSecret: undefined });
const XAVIER = 'CPU: ARMv8 Processor rev 0 (v8l). GPU: none. Memory: 31 GiB. DriveSerial: 0x89d03f11';
const NUC =
  'CPU: Intel(R) Core(TM) i5-7260U CPU @ 2.20GHz. GPU: Iris Plus Graphics 640. Memory: 15 GiB. ' +
  'DriveSerial: S3Z9NB0K700007';

let api: ScriptedApi;
/** The hardware strings that were sent. */
let sent: string[];
/** The one that the server knows: what it sends is encrypted for that. */
let known: string;
let logLines: string[];

beforeEach(async () => {
  api = await ScriptedApi.start();
  sent = [];
  logLines = [];
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const token = `${part({ alg: 'none' })}.${part({ email: USER.email, role: 'Operator' })}.`;
  api.answer = ({ path: url, body }) => {
    if (url === '/login') return { body: JSON.stringify({ token }) };
    sent.push((JSON.parse(body) as { hardware: string }).hardware);
    return { body: encryptBuffer(CDN_YAML, KEYS.apiAesKey({ ...USER, hardware: known })) };
  };
});

afterEach(async () => {
  await api[Symbol.asyncDispose]();
});

/** Logs in as after a start of the Loader on this board. */
async function login(board: Board): Promise<void> {
  const log = makeLogger();
  logLines = log.logLines;
  const upstream = new Upstream({
    api: api.link(),
    fingerprint: new HardwareFingerprint({
      hardwareId: undefined,
      kept: new KeptHardware(path.join(board.folder, 'state'), log.logger),
      logger: log.logger,
      read: () => board.read(),
    }),
    keys: KEYS,
    tokenKeys: { publicKeyPem: undefined, secret: undefined },
    loadCdn: () => Promise.resolve((config) => new S3CdnManager(config, api.links.cdn(1_000))),
    secrets: new KnownSecrets(),
    logger: log.logger,
  });
  await upstream.login(USER.email, USER.password, NEVER);
}

const warnings = () => logLines.filter((line) => line.includes('"level":"warn"'));

describe('a device whose string the server knows', () => {
  it('keeps it over an update of lscpu that gives the same CPU its real name', async () => {
    await using board = await Board.open('jetson-agx-xavier');
    known = XAVIER;
    await login(board);
    assert.deepEqual(warnings(), []);
    board.outputs.set('lscpu', 'Vendor ID: NVIDIA\nModel name: Carmel\n');
    await login(board);
    assert.deepEqual(sent, [XAVIER, XAVIER]);
    assert.match(warnings().join(), /"changed":\["CPU"\]/);
  });

  it('keeps it over an update of the kernel that takes more memory, and over disks in another order', async () => {
    await using board = await Board.open('jetson-agx-xavier');
    known = XAVIER;
    await login(board);
    board.memoryBytes -= 0.8 * 1024 ** 3;
    const disk = (name: string, serial: string) => ({ name, files: { removable: '0', 'device/serial': serial } });
    await board.setDevices({ pci: null, disks: [disk('mmcblk0', 'new card'), disk('mmcblk1', '0x89d03f11')] });
    await login(board);
    assert.deepEqual(sent, [XAVIER, XAVIER]);
    assert.match(warnings().join(), /"changed":\["Memory","DriveSerial"\]/);
  });

  it('keeps it without lspci, as long as the card is the same', async () => {
    await using board = await Board.open('intel-nuc');
    known = NUC;
    await login(board);
    board.outputs.delete('lspci');
    await login(board);
    assert.deepEqual(sent, [NUC, NUC]);
    assert.match(warnings().join(), /"changed":\["GPU"\].*lspci is not installed/);
  });

  it('gets another one with another card, and keeps the new one when the server knows it', async () => {
    await using board = await Board.open('intel-nuc');
    known = NUC;
    await login(board);
    const card = { class: '0x030000', vendor: '0x10de', device: '0x2204' };
    const disk = { name: 'sda', files: { removable: '0' }, vpd: 'S3Z9NB0K700007' };
    const devices: FakeDevices = { pci: { '0000:01:00.0': card }, disks: [disk] };
    await board.setDevices(devices);
    board.outputs.set('lspci', 'Slot:\t0000:01:00.0\nDevice:\tGA102 [GeForce RTX 3090]\n');
    const changed = NUC.replace('Iris Plus Graphics 640', 'GA102 [GeForce RTX 3090]');
    await assert.rejects(login(board), { code: 'cdn_config_invalid' });
    assert.match(warnings().join(), /"changed":\["GPU"\].*The hardware has changed/);
    known = changed;
    await login(board);
    board.outputs.delete('lspci');
    await login(board);
    assert.deepEqual(sent, [NUC, changed, changed, changed]);
  });

  it('still has it after the hardware was another one that the server did not take', async () => {
    await using board = await Board.open('jetson-agx-xavier');
    known = XAVIER;
    await login(board);
    const memory = board.memoryBytes;
    board.memoryBytes = memory / 2;
    await assert.rejects(login(board), { code: 'cdn_config_invalid' });
    board.memoryBytes = memory - 0.8 * 1024 ** 3;
    await login(board);
    assert.equal(sent.at(-1), XAVIER);
  });
});

describe('a device without a kept string', () => {
  it('does not log in while a card has no name, says what to do, and logs in as soon as it has one', async () => {
    await using board = await Board.open('intel-nuc');
    known = NUC;
    const lspci = board.outputs.get('lspci') ?? '';
    board.outputs.delete('lspci');
    await assert.rejects(login(board), { code: 'hardware_unreadable', message: /GPU: lspci is not installed/ });
    assert.deepEqual(sent, []);
    board.outputs.set('lspci', lspci);
    await login(board);
    assert.deepEqual(sent, [NUC]);
  });
});
