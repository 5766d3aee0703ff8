import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Checkup, type CheckupOptions, type Finding } from '../../../src/checkup/checkup.ts';
import { LoaderError, type ErrorCode } from '../../../src/errors.ts';
import { NEVER } from '../../../src/async/abort.ts';
import type { Session } from '../../../src/upstream/upstream.ts';

const ACCOUNT = { email: 'operator@example.com', password: 'password' };
const failing = (code: ErrorCode) => () => Promise.reject(new LoaderError(code, `This is ${code}.`));

let folder = '';
before(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'checkup-'));
});
after(() => rm(folder, { recursive: true, force: true }));

interface Parts {
  readonly clockOffsetMs?: number | null;
  readonly bucket?: string | undefined;
  readonly openObject?: () => Promise<never>;
  readonly login?: () => Promise<never>;
  readonly reachApi?: () => Promise<never>;
  readonly hardwareString?: () => Promise<string>;
  readonly options?: Partial<CheckupOptions>;
}

/** The checkup of a device where all is well but what `parts` say. */
async function checkUp(parts: Parts = {}, signal = NEVER): Promise<Finding[]> {
  const { bucket = 'models', openObject = failing('resource_not_in_cdn') } = parts;
  const cdn = { bucket: 'bucket' in parts ? undefined : bucket, openObject };
  const session = {
    user: { email: ACCOUNT.email, roleName: 'Operator' },
    cdn,
    api: { fetchKeyFragment: () => Promise.resolve(Buffer.from('fragment')) },
    resourceAesKey: () => randomBytes(32),
  };
  const apiClient = {
    fingerprint: {
      hardwareString: parts.hardwareString ?? (() => Promise.resolve('hardware')),
      digest: '0123456789ab',
    },
    status: { isAuthenticated: false, clockOffsetMs: parts.clockOffsetMs === undefined ? 900 : parts.clockOffsetMs },
    upstream: {
      reachApi: parts.reachApi ?? (() => Promise.resolve()),
      login: parts.login ?? (() => Promise.resolve(session as unknown as Session)),
    },
  };
  const checkup = new Checkup({
    account: ACCOUNT,
    resource: undefined,
    archivePath: path.join(folder, 'images.enc'),
    apiHost: 'api.example.com',
    folders: { problems: () => Promise.resolve([]), freeCacheBytes: () => Promise.resolve(3 * 1024 ** 3) },
    apiClient: apiClient as unknown as CheckupOptions['apiClient'],
    engine: {
      host: '/var/run/docker.sock',
      connect: () => Promise.resolve(),
      traits: () => Promise.resolve({ needsEveryLayer: false, identifiesByManifest: false }),
    },
    presence: { isLoaded: () => Promise.resolve(true) },
    ...parts.options,
  });
  return await Array.fromAsync(checkup.run(signal));
}

async function findingOf(subject: string, parts: Parts): Promise<Finding> {
  const finding = (await checkUp(parts)).find((one) => one.subject === subject);
  assert.ok(finding !== undefined, subject);
  return finding;
}

describe('a checkup', () => {
  it('has a finding for each subject, in the order in which a Loader needs them', async () => {
    const findings = await checkUp();
    const subjects = ['folders', 'hardware', 'Resource API', 'clock', 'login', 'keys', 'CDN', 'resource key', 'engine'];
    assert.deepEqual(
      findings.map(({ subject, status }) => [subject, status]),
      [...subjects, 'archive'].map((subject) => [subject, 'ok']),
    );
  });

  it('tells a clock that is off, and by how much', async () => {
    assert.equal((await findingOf('clock', { clockOffsetMs: -59_000 })).status, 'ok');
    const ahead = await findingOf('clock', { clockOffsetMs: -3_600_000 });
    assert.deepEqual([ahead.status, /3600 s ahead of.*set it/.test(ahead.text)], ['failed', true]);
    const behind = await findingOf('clock', { clockOffsetMs: 61_000 });
    assert.deepEqual([behind.status, behind.text.includes('61 s behind')], ['failed', true]);
    assert.equal((await findingOf('clock', { clockOffsetMs: null })).status, 'skipped');
  });

  it('logs in only where the API answers', async () => {
    const findings = await checkUp({
      reachApi: failing('api_unreachable'),
      login: () => assert.fail('a login was tried'),
    });
    const statuses = Object.fromEntries(findings.map(({ subject, status }) => [subject, status]));
    assert.deepEqual(
      [statuses['Resource API'], statuses['login'], statuses['keys'], statuses['CDN'], statuses['engine']],
      ['failed', 'skipped', 'skipped', 'skipped', 'ok'],
    );
  });

  it('tells a refused login from keys that do not fit', async () => {
    assert.equal((await findingOf('login', { login: failing('wrong_credentials') })).status, 'failed');
    for (const code of ['cdn_config_invalid', 'resource_not_in_api', 'hardware_unreadable'] as const) {
      assert.equal((await findingOf('login', { login: failing(code) })).status, 'ok');
      assert.match((await findingOf('keys', { login: failing(code) })).text, new RegExp(`does not open.*${code}`));
    }
  });

  it('does not blame keys of the CDN that may not list, nor a bucket that cdn.yaml does not name', async () => {
    const refused = await findingOf('CDN', { openObject: failing('cdn_access_denied') });
    assert.deepEqual([refused.status, refused.text.includes('may not list')], ['failed', true]);
    const unknown = await findingOf('CDN', { openObject: failing('cdn_bucket_missing'), bucket: undefined });
    assert.equal(unknown.status, 'skipped');
    assert.equal((await findingOf('CDN', { openObject: failing('cdn_bucket_missing') })).status, 'failed');
  });

  it('shows what nobody foresaw, without a stack', async () => {
    const { status, text } = await findingOf('hardware', { hardwareString: () => Promise.reject(new Error('odd')) });
    assert.deepEqual([status, text.includes('(odd)'), text.includes('\n')], ['failed', true, false]);
  });

  it('needs an engine only where there is an archive', async () => {
    const engine = {
      host: 'x',
      connect: failing('engine_unreachable'),
      traits: () => assert.fail('an engine that does not answer was asked'),
    };
    assert.equal((await findingOf('engine', { options: { engine } })).status, 'warning');
    const archivePath = path.join(folder, 'present.enc');
    await writeFile(archivePath, randomBytes(100));
    assert.equal((await findingOf('engine', { options: { engine, archivePath } })).status, 'failed');
  });

  it('ends with the reason of its signal', async () => {
    const abort = new AbortController();
    const reason = new Error('interrupted');
    const login = () => {
      abort.abort(reason);
      return Promise.reject(new LoaderError('api_unreachable', 'Gone.'));
    };
    await assert.rejects(checkUp({ login }, abort.signal), reason);
  });
});
