import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { LoaderProcess } from '../../../lab/loader-process.ts';
import { eventually } from '../../../lab/waiting.ts';
import { VERSION } from '../../../src/version.ts';

const RESOURCE_KEY = 'resource-key-of-the-fleet';

describe('the log of a start', () => {
  let folder: string;

  beforeEach(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'loader-start-'));
  });

  afterEach(async () => {
    await rm(folder, { recursive: true, force: true });
  });

  /** Starts a Loader that reaches nothing, calls `work` when its log has the last line of a start, and returns the log. */
  async function logOf(
    env: Record<string, string>,
    work: (url: string) => Promise<unknown> = () => Promise.resolve(),
  ): Promise<string> {
    const loader = await LoaderProcess.start({
      env: {
        RESOURCE_API_URL: 'http://127.0.0.1:9/base',
        MODEL_CACHE_DIR: path.join(folder, 'models'),
        STATE_DIR: path.join(folder, 'state'),
        DOCKER_HOST: 'unix:///nonexistent/docker.sock',
        RESOURCE_KEY,
        ...env,
      },
      logPath: path.join(folder, 'stdout.log'),
    });
    try {
      await eventually(() => Promise.resolve(loader.log().includes('has started')));
      await work(loader.url.replace('0.0.0.0', '127.0.0.1'));
    } finally {
      await loader.stop();
    }
    return loader.log();
  }

  interface Line {
    readonly [name: string]: unknown;
    readonly level: string;
    readonly msg: string;
  }

  const linesOf = (log: string): Line[] =>
    log
      .trimEnd()
      .split('\n')
      .map((text) => JSON.parse(text) as Line);

  it('tells version, API, folders, archive and engine in one line', async () => {
    const line = linesOf(await logOf({ API_KEY: 'one-key-of-two,and-another-one' })).find(({ msg }) =>
      msg.includes('has started'),
    );
    assert.ok(line !== undefined);
    assert.deepEqual(line, {
      level: 'info',
      version: VERSION,
      node: process.version,
      api: '127.0.0.1:9',
      cache: path.join(folder, 'models'),
      state: path.join(folder, 'state'),
      archive: '/opt/azaion/images.enc',
      engine: '/nonexistent/docker.sock',
      logsInByItself: false,
      apiKeys: 2,
      time: line['time'],
      msg: `Azaion.Loader ${VERSION} has started`,
    });
  });

  /** The warnings of a start. */
  async function warningsOf(env: Record<string, string>): Promise<string[]> {
    return linesOf(await logOf(env))
      .filter(({ level }) => level === 'warn')
      .map(({ msg }) => msg);
  }

  it('warns where nobody is logged in and nobody will be', async () => {
    const [login, ...others] = await warningsOf({});
    assert.match(login ?? '', /^No user is logged in: POST \/login first\. LOGIN_EMAIL and LOGIN_PASSWORD_FILE/);
    assert.deepEqual(others, []);
  });

  it('warns of an open door: others can reach it, and there is no key', async () => {
    const isOfDoor = (text: string) => text.includes('No API key is set');
    const key = { API_KEY: 'a-key-of-some-length' };
    assert.equal((await warningsOf({ HOST: '0.0.0.0' })).filter(isOfDoor).length, 1);
    assert.equal((await warningsOf({ HOST: '0.0.0.0', ...key })).filter(isOfDoor).length, 0);
    assert.equal((await warningsOf({ HOST: '127.0.0.1' })).filter(isOfDoor).length, 0);
  });

  it('is for people with LOG_FORMAT=pretty, in LOG_FILE too, and as free of secrets', async () => {
    const file = path.join(folder, 'loader.log');
    const log = await logOf({ LOG_FORMAT: 'pretty', LOG_FILE: file }, async (url) => {
      await fetch(`${url}/nowhere`, { headers: { 'x-request-id': RESOURCE_KEY } });
    });
    assert.match(
      log,
      new RegExp(
        `^\\[[\\d:.]{12}\\] INFO: Azaion\\.Loader ${VERSION.replaceAll('.', '\\.')} has started \\{.*\\}$`,
        'm',
      ),
    );
    assert.match(log, /INFO: GET \(none\) 404 \{"request_id":"\[redacted\]"/);
    assert.ok(!log.includes(RESOURCE_KEY) && !log.includes('\n{'));
    assert.equal(await readFile(file, 'utf8'), log);
  });
});
