import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { LoaderError } from '../../../src/errors.ts';
import { KnownSecrets } from '../../../src/log/known-secrets.ts';
import { createLogger, type Logger } from '../../../src/log/logger.ts';

const LOG = path.resolve(import.meta.dirname, '../../../src/log/log.ts');
const SECRETS = path.resolve(import.meta.dirname, '../../../src/log/known-secrets.ts');

let folder = '';
let logFile = '';

beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'loader-log-'));
  logFile = path.join(folder, 'logs/loader.log');
});

afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

interface LogLine {
  readonly [name: string]: unknown;
  readonly msg?: string;
  readonly err?: SerializedError;
}

interface SerializedError {
  readonly type?: string;
  readonly message?: string;
  readonly code?: string;
  readonly stack?: string;
  readonly cause?: SerializedError;
  readonly error?: SerializedError;
  readonly suppressed?: SerializedError;
}

/** Runs `script` with a `logger` and its `secrets` in a process of its own, and returns what it wrote on stdout. */
function run(script: string, level = 'trace', file: string | null = logFile): string {
  const program = `
    import { Log } from ${JSON.stringify(LOG)};
    import { KnownSecrets } from ${JSON.stringify(SECRETS)};
    const secrets = new KnownSecrets(['known-secret']);
    const filePath = ${file === null ? 'undefined' : JSON.stringify(file)};
    const { logger } = await Log.open({ level: ${JSON.stringify(level)}, filePath, secrets });
    ${script}`;
  return execFileSync(process.execPath, ['--input-type=module', '--eval', program], { encoding: 'utf8' });
}

/** Calls `work` with a logger and its secrets, and returns the lines that it wrote. */
function log(work: (parts: { readonly logger: Logger; readonly secrets: KnownSecrets }) => void): string {
  const lines: string[] = [];
  const secrets = new KnownSecrets(['known-secret']);
  const outputs = [{ write: (line: string) => lines.push(line) }];
  work({ logger: createLogger({ level: 'trace', outputs, secrets }), secrets });
  return lines.join('');
}

function parse(output: string): LogLine[] {
  return output
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as LogLine);
}

describe('the log', () => {
  it('is JSON lines on stdout, and the same lines in the file, whose folders are made', () => {
    const output = run(`logger.info({ bytes: 7 }, 'first'); logger.debug('second');`);
    const [first, second] = parse(output);
    assert.deepEqual([first?.msg, first?.['bytes'], second?.msg], ['first', 7, 'second']);
    assert.match(String(first?.['time']), /^\d{4}-\d\d-\d\dT/);
    assert.equal(readFileSync(logFile, 'utf8'), output);
  });

  it('is appended to the file of an earlier process', () => {
    run(`logger.info('first');`);
    run(`logger.info('second');`);
    assert.deepEqual(
      parse(readFileSync(logFile, 'utf8')).map((line) => line.msg),
      ['first', 'second'],
    );
  });

  it('goes to stdout alone where no file is named', () => {
    assert.equal(parse(run(`logger.info('alone');`, 'info', null)).length, 1);
    assert.throws(() => readFileSync(logFile), { code: 'ENOENT' });
  });

  it('leaves out what is below its level', () => {
    const lines = parse(
      run(`for (const level of ['trace', 'debug', 'info', 'warn', 'error']) logger[level](level);`, 'warn'),
    );
    assert.deepEqual(
      lines.map((line) => line.msg),
      ['warn', 'error'],
    );
    assert.equal(run(`logger.fatal('x');`, 'silent'), '');
  });

  it('names neither host nor process', () => {
    const [line] = parse(log(({ logger }) => logger.info('x')));
    assert.deepEqual(Object.keys(line ?? {}).sort(), ['level', 'msg', 'time']);
  });
});

describe('an error in the log', () => {
  const below = Object.assign(new TypeError('socket closed'), { code: 'ECONNRESET' });
  const logged = (error: Error) => parse(log(({ logger }) => logger.error({ err: error }, 'x')))[0]?.err;

  it('is its type, code, message and stack, and those of its causes', () => {
    const err = logged(new Error('no connection', { cause: below }));
    assert.deepEqual(
      [err?.type, err?.message, err?.cause?.type, err?.cause?.code, err?.cause?.message],
      ['Error', 'no connection', 'TypeError', 'ECONNRESET', 'socket closed'],
    );
    for (const stack of [err?.stack, err?.cause?.stack]) assert.match(stack ?? '', /\n\s+at /);
    assert.deepEqual(Object.keys(err ?? {}).sort(), ['cause', 'message', 'stack', 'type']);
  });

  it('has a stack where the Loader tells of a fault of its own, and none where it foresees the failure', () => {
    assert.match(logged(new LoaderError('internal_error', 'no idea', { cause: below }))?.stack ?? '', /\n\s+at /);
    const err = logged(new LoaderError('cdn_unreachable', 'no connection', { cause: below }));
    assert.deepEqual(
      [err?.type, err?.code, err?.message, err?.cause?.type, err?.cause?.code, err?.cause?.message],
      ['LoaderError', 'cdn_unreachable', 'no connection', 'TypeError', 'ECONNRESET', 'socket closed'],
    );
    assert.deepEqual(Object.keys(err ?? {}).sort(), ['cause', 'code', 'message', 'type']);
    assert.deepEqual(Object.keys(err?.cause ?? {}).sort(), ['code', 'message', 'type']);
  });

  it('is logged without its other properties, where libraries keep requests and responses', () => {
    const output = log(({ logger }) => {
      const extras = {
        $metadata: { secret: 'hush' },
        $response: { headers: { authorization: 'hush' } },
        request: { body: 'hush', headers: ['authorization', 'hush'] },
        config: 'hush',
        password: 'hush',
        detail: 'hush',
      };
      const lowest = Object.assign(new Error('lowest'), extras);
      const middle = Object.assign(new Error('middle', { cause: lowest }), extras);
      const top = Object.assign(new LoaderError('api_error', 'top', { cause: middle }), extras);
      logger.error({ err: top }, 'x');
      logger.error(top);
      logger.error({ err: Object.assign(new AggregateError([top], 'many'), extras) }, 'x');
    });
    assert.equal(parse(output)[0]?.err?.cause?.cause?.message, 'lowest');
    assert.equal(parse(output).length, 3);
    assert.doesNotMatch(output, /hush/);
  });

  it('is logged without a code that is no text', () => {
    const output = log(({ logger }) => {
      logger.error({ err: Object.assign(new Error('x'), { code: { inner: 'hush' } }) }, 'x');
    });
    assert.equal(parse(output).length, 1);
    assert.doesNotMatch(output, /hush/);
  });

  it('may be in a circle of causes', () => {
    const [line] = parse(
      log(({ logger }) => {
        const a = new Error('a');
        const b = new Error('b', { cause: a });
        a.cause = b;
        logger.error({ err: a }, 'x');
      }),
    );
    assert.equal(line?.err?.cause?.cause?.message, 'a');
  });

  it('that is no Error, or has a cause that is none, is not quoted', () => {
    const output = log(({ logger }) => {
      logger.error({ err: 'hush' }, 'x');
      logger.error({ err: { message: 'hush' } }, 'x');
      logger.error({ err: new Error('x', { cause: { token: 'hush', other: 'hush' } }) }, 'x');
    });
    assert.equal(parse(output).length, 3);
    assert.doesNotMatch(output, /hush/);
  });
});

describe('a name under which a secret could stand', () => {
  for (const name of ['password', 'token', 'authorization', 'email', 'apiKey', 'key', 'secret', 'hardware']) {
    it(`has its value replaced: ${name}`, () => {
      const output = log(({ logger }) => {
        logger.info({ [name]: 'hush', inner: { [name]: 'hush', kept: 1 } }, 'x');
        logger.child({ [name]: 'hush' }).info('x');
      });
      const [line] = parse(output);
      assert.equal(line?.[name], '[redacted]');
      assert.deepEqual(line['inner'], { [name]: '[redacted]', kept: 1 });
      assert.doesNotMatch(output, /hush/);
    });
  }
});

describe('a known secret', () => {
  it('is in no text of a line', () => {
    const output = log(({ logger, secrets }) => {
      secrets.add('of a login');
      const error = new Error('known-secret was wrong', { cause: new Error('and so was of a login') });
      logger.error({ err: error, list: ['known-secret'], deep: { er: { text: 'x known-secret' } } }, 'known-secret!');
      logger.error(error);
      logger.child({ id: 'known-secret' }).info('x');
    });
    assert.equal(parse(output)[0]?.err?.message, '[redacted] was wrong');
    assert.equal(parse(output)[0]?.err?.cause?.message, 'and so was [redacted]');
    assert.equal(parse(output).length, 3);
    assert.doesNotMatch(output, /known-secret|of a login/);
  });
});

it('an error that a failed disposal threw is logged with the error that it hid', () => {
  const [line] = parse(
    log(({ logger }) => {
      try {
        using _broken = {
          [Symbol.dispose]: () => {
            throw new Error('of the disposal');
          },
        };
        throw new LoaderError('cdn_error', 'of the work');
      } catch (error) {
        logger.error({ err: error }, 'x');
      }
    }),
  );
  assert.equal(line?.err?.type, 'SuppressedError');
  assert.equal(line.err.error?.message, 'of the disposal');
  assert.deepEqual([line.err.suppressed?.code, line.err.suppressed?.message], ['cdn_error', 'of the work']);
});

describe('a request in the log', () => {
  it('is its method and the pattern of its route: no address, query, headers or body', () => {
    const output = log(({ logger }) => {
      logger.info(
        {
          req: {
            method: 'POST',
            url: '/load/hush?key=hush',
            headers: { authorization: 'hush' },
            body: { password: 'hush' },
            params: { filename: 'hush' },
            query: { key: 'hush' },
            routeOptions: { url: '/load/:filename' },
          },
        },
        'x',
      );
      logger.info({ req: { method: 'GET', url: '/hush', routeOptions: {} } }, 'x');
    });
    const [known, unknown] = parse(output);
    assert.deepEqual(known?.['req'], { method: 'POST', route: '/load/:filename' });
    assert.deepEqual(unknown?.['req'], { method: 'GET', route: '(none)' });
    assert.doesNotMatch(output, /hush/);
  });
});
