import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { DEFAULT_KEY_TEMPLATES } from '../../../src/config/variables.ts';
import { formatHardwareString, memoryGib, type HardwareFacts } from '../../../src/hardware/hardware-facts.ts';
import { encryptBuffer } from '../../../src/security/envelope-cipher.ts';
import { SecurityKeys } from '../../../src/security/security-keys.ts';
import { ScriptedApi } from '../../support/scripted-api.ts';
import { TestLoader } from '../../support/test-loader.ts';

const USER = { email: 'operator@example.com', password: 'password' };
const CDN_YAML = Buffer.from(`host: http://127.0.0.1:9
bucket: b
downloader_access_key: a
downloader_access_secret: b
uploader_access_key: c
uploader_access_secret: d
`);
const KEYS = new SecurityKeys({ templates: DEFAULT_KEY_TEMPLATES, resourceSecret: undefined });
const GIB = 1024 ** 3;

interface KeptFile {
  readonly version: number;
  readonly string: string;
  readonly facts: HardwareFacts;
}

let folder: string;
let keptPath: string;
let api: ScriptedApi;
let sent: string[];
/** The string that the server knows; undefined when it takes any. */
let known: string | undefined;

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-hardware-'));
  keptPath = path.join(folder, 'state/hardware.json');
  api = await ScriptedApi.start();
  sent = [];
  known = undefined;
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const token = `${part({ alg: 'none' })}.${part({ email: USER.email, role: 'Operator' })}.`;
  api.answer = ({ path: url, body }) => {
    if (url === '/login') return { body: JSON.stringify({ token }) };
    const { hardware } = JSON.parse(body) as { hardware: string };
    sent.push(hardware);
    return { body: encryptBuffer(CDN_YAML, KEYS.apiAesKey({ ...USER, hardware: known ?? hardware })) };
  };
});

afterEach(async () => {
  await api[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

/** Starts a Loader, logs in, and ends it. */
async function login(): Promise<{ readonly status: number; readonly code: unknown; readonly log: string }> {
  const loader = await TestLoader.start({
    env: {
      PATH: `${folder}:${process.env['PATH'] ?? ''}`,
      HARDWARE_ID: '',
      STATE_DIR: path.join(folder, 'state'),
      MODEL_CACHE_DIR: path.join(folder, 'models'),
      RESOURCE_API_URL: api.url,
    },
  });
  try {
    const { status, body } = await loader.login(USER.email, USER.password);
    return { status, code: body.code, log: loader.log() };
  } finally {
    assert.equal(await loader.stop(), 0);
  }
}

async function installLscpu(output: string): Promise<void> {
  await writeFile(path.join(folder, 'lscpu'), `#!/bin/sh\ncat <<'END'\n${output}\nEND\n`, { mode: 0o755 });
}

async function readKept(): Promise<KeptFile> {
  return JSON.parse(await readFile(keptPath, 'utf8')) as KeptFile;
}

/** Makes the kept string that of a machine with other facts. */
async function keep(facts: HardwareFacts): Promise<string> {
  const string = formatHardwareString(facts);
  await writeFile(keptPath, JSON.stringify({ version: 1, string, facts }));
  return string;
}

describe('the hardware string of this machine', () => {
  it('has the whole name of a CPU of one word, and is kept when the server has accepted it', async () => {
    await installLscpu('Vendor ID:     ARM\nModel name:    Cortex-A78AE\nModel:         1');
    assert.equal((await login()).status, 200);
    assert.match(sent[0] ?? '', /^CPU: Cortex-A78AE\. GPU: /);
    assert.equal((await readKept()).string, sent[0]);
    assert.equal((await stat(keptPath)).mode & 0o777, 0o600);
  });

  it('is not kept when the server has not accepted it', async () => {
    await installLscpu('Model name: Cortex-A78AE');
    known = 'another';
    assert.equal((await login()).code, 'cdn_config_invalid');
    await assert.rejects(readKept(), { code: 'ENOENT' });
  });

  it('stays over a restart after which the kernel has a little more or less memory', async () => {
    await installLscpu('Model name: Cortex-A78AE');
    await login();
    const { facts } = await readKept();
    const memory = [facts.memoryBytes + 0.9 * GIB, facts.memoryBytes - 0.9 * GIB]
      .map((memoryBytes) => ({ ...facts, memoryBytes: Math.round(memoryBytes) }))
      .find((earlier) => memoryGib(earlier) !== memoryGib(facts));
    assert.ok(memory);
    known = await keep(memory);
    const { status, log } = await login();
    assert.equal(status, 200);
    assert.equal(sent.at(-1), known);
    assert.match(log, /"level":"warn".*"changed":\["Memory"\].*accepted last is used/);
    assert.equal((await readKept()).string, known);
  });

  it('becomes another one when the disk is another one, which the log tells without the serials', async () => {
    await installLscpu('Model name: Cortex-A78AE');
    await login();
    await keep({ ...(await readKept()).facts, driveSerials: ['gone-disk'] });
    const { status, log } = await login();
    assert.equal(status, 200);
    assert.equal(sent.at(-1), sent[0]);
    assert.match(log, /"level":"warn".*"changed":\["DriveSerial"\].*The hardware has changed/);
    assert.doesNotMatch(log, /gone-disk/);
    assert.equal((await readKept()).string, sent[0]);
  });
});
