import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync, type StdioOptions } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, it } from 'node:test';

const LOG = path.resolve(import.meta.dirname, '../../../src/log/log.ts');
const SECRETS = path.resolve(import.meta.dirname, '../../../src/log/known-secrets.ts');
const LINES = 20_000;
/** A small disk of its own needs root, and a machine that lets root mount. */
const TMPFS_SKIP =
  spawnSync('unshare', ['--mount', 'true']).status === 0 ? false : 'no file systems can be mounted here';

let folder = '';
let report = '';

beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'loader-log-'));
  report = path.join(folder, 'report');
});

afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** The arguments that run `script` with a `log` in a process of its own. */
function nodeArgs(script: string, filePath?: string): string[] {
  const program = `
    import { readFileSync, writeFileSync } from 'node:fs';
    import { setTimeout as sleep } from 'node:timers/promises';
    import { Log } from ${JSON.stringify(LOG)};
    import { KnownSecrets } from ${JSON.stringify(SECRETS)};
    const log = await Log.open({ level: 'info', filePath: ${JSON.stringify(filePath)}, secrets: new KnownSecrets() });
    const report = (value) => writeFileSync(${JSON.stringify(report)}, JSON.stringify(value));
    ${script}`;
  return ['--input-type=module', '--eval', program];
}

/** Logs 5 MB, reports how long the event loop stood still, and exits with 7. */
const FLOOD = `
  let longestMs = 0;
  for (let i = 0; i < ${LINES}; i += 100) {
    const startedAt = performance.now();
    for (let j = i; j < i + 100; j++) log.logger.info({ pad: 'x'.repeat(200) }, 'line');
    await sleep(0);
    longestMs = Math.max(longestMs, performance.now() - startedAt);
  }
  report(longestMs);`;

async function runFlood(command: string, args: readonly string[], stdio: StdioOptions): Promise<number | null> {
  const child = spawn(command, args, { stdio });
  child.stdout?.pause();
  const timer = setTimeout(() => child.kill('SIGKILL'), 10_000);
  const [code] = (await once(child, 'exit')) as [number | null];
  clearTimeout(timer);
  child.stdout?.destroy();
  return code;
}

function assertLoopWasFree(): void {
  const longestMs = JSON.parse(readFileSync(report, 'utf8')) as number;
  assert.ok(longestMs < 500, `the event loop stood still for ${longestMs} ms`);
}

/** A pipe that nothing reads unless a test does. */
function makePipe(): { readEnd: number; writeEnd: number } & Disposable {
  const name = path.join(folder, 'pipe');
  execFileSync('mkfifo', [name]);
  const readEnd = openSync(name, 'r+');
  const writeEnd = openSync(name, 'w');
  return {
    readEnd,
    writeEnd,
    [Symbol.dispose]: () => {
      for (const descriptor of [readEnd, writeEnd]) closeSync(descriptor);
    },
  };
}

describe('a stdout that nothing reads holds up neither the event loop nor the exit', () => {
  it('where it is a pipe', async () => {
    using pipe = makePipe();
    const args = nodeArgs(`${FLOOD} await log.exit(7);`);
    assert.equal(await runFlood(process.execPath, args, ['ignore', pipe.writeEnd, 'inherit']), 7);
    assertLoopWasFree();
  });

  it('where it is a socket, as under systemd', async () => {
    const args = nodeArgs(`${FLOOD} await log.exit(7);`);
    assert.equal(await runFlood(process.execPath, args, ['ignore', 'pipe', 'inherit']), 7);
    assertLoopWasFree();
  });

  it('where it is a terminal', async () => {
    const words = [process.execPath, ...nodeArgs(`${FLOOD} await log.exit(7);`)];
    const command = words.map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(' ');
    const status = path.join(folder, 'status');
    // `script` stands still too, as its own output is read by no process.
    const terminal = spawn('script', ['-qc', `${command}; echo $? > '${status}'`, '/dev/null'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    terminal.stdout.pause();
    for (let i = 0; i < 200 && !hasText(status); i++) await sleep(50);
    terminal.kill('SIGKILL');
    assert.equal(readFileSync(status, 'utf8'), '7\n');
    assertLoopWasFree();
  });

  it('where it is full', async () => {
    const full = openSync('/dev/full', 'w');
    const args = nodeArgs(`${FLOOD} await log.exit(7);`);
    assert.equal(await runFlood(process.execPath, args, ['ignore', full, 'inherit']), 7);
    closeSync(full);
    assertLoopWasFree();
  });

  it('where its reader has left', async () => {
    const args = nodeArgs(
      `report(0); for (let i = 0; i < 3; i++) { log.logger.info('x'); await sleep(20); } await log.exit(7);`,
    );
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    child.stdout.destroy();
    assert.deepEqual(await once(child, 'exit'), [7, null]);
  });
});

describe('a stdout that is read again', () => {
  it('gets the lines that had room, then how many are missing, then the next ones', async () => {
    const output = path.join(folder, 'output');
    const untilTold = `while (!readFileSync('${output}', 'utf8').includes('are missing here')) await sleep(20);`;
    const args = nodeArgs(`${FLOOD} ${untilTold} log.logger.info('last'); await log.exit(7);`);
    writeFileSync(output, '');
    const reader = `"$@" | { until [ -s '${report}' ]; do sleep 0.05; done; cat > '${output}'; }`;
    await once(
      spawn('sh', ['-c', reader, 'sh', process.execPath, ...args], { stdio: ['ignore', 'ignore', 'inherit'] }),
      'exit',
    );
    const lines = readLines(output);
    const messages = lines.map(({ msg }) => msg);
    const kept = messages.findIndex((msg) => msg !== 'line');
    assert.ok(kept > 1_000, `${kept} lines had room`);
    assert.match(messages[kept] ?? '', /^Lines of the log are missing here/);
    // The line that tells of the loss to the other outputs is lost here as well.
    assert.equal(kept + Number(lines[kept]?.lostLines), LINES + 1);
    assert.deepEqual(messages.slice(kept + 1), ['last']);
  });
});

describe('an exit', () => {
  it('comes after the last lines, on a stdout that is a file and in LOG_FILE', () => {
    const output = path.join(folder, 'output');
    const file = path.join(folder, 'loader.log');
    const descriptor = openSync(output, 'w');
    const script = `for (let i = 0; i < 1000; i++) log.logger.info({ i }, 'line'); await log.exit(3);`;
    const { status } = spawnSync(process.execPath, nodeArgs(script, file), {
      stdio: ['ignore', descriptor, 'inherit'],
    });
    closeSync(descriptor);
    assert.equal(status, 3);
    for (const name of [output, file]) assert.equal(readLines(name).length, 1000, name);
  });

  it('does not wait for a thread whose write never ends', async () => {
    // A file on a network drive that is gone behaves like this pipe.
    using pipe = makePipe();
    const args = nodeArgs(
      `const { write } = await import('node:fs');
      const { open } = await import('node:fs/promises');
      await using handle = await open('/dev/null');
      Object.getPrototypeOf(handle).write = () => new Promise((done) => write(3, Buffer.alloc(1_000_000), done));
      log.logger.info('x'); await log.exit(7);`,
      path.join(folder, 'loader.log'),
    );
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'inherit', pipe.writeEnd] });
    const timer = setTimeout(() => child.kill('SIGTERM'), 5_000);
    assert.deepEqual(await once(child, 'exit'), [null, 'SIGKILL']);
    clearTimeout(timer);
  });
});

describe('LOG_FILE', () => {
  it('gets no line twice where it is what stdout is', () => {
    const output = path.join(folder, 'output');
    const descriptor = openSync(output, 'a');
    spawnSync(process.execPath, nodeArgs(`log.logger.info('line');`, output), {
      stdio: ['ignore', descriptor, 'inherit'],
    });
    closeSync(descriptor);
    assert.equal(readLines(output).length, 1);
  });

  it('on a full disk stops nothing, loses lines, and tells how many when there is room', { skip: TMPFS_SKIP }, () => {
    const disk = path.join(folder, 'disk');
    execFileSync('sh', ['-c', `mkdir "$0" && mount -t tmpfs -o size=256k none "$0"`, disk]);
    try {
      const { status, stdout } = spawnSync(
        process.execPath,
        nodeArgs(
          `writeFileSync('${disk}/ballast', Buffer.alloc(200_000));
          process.stderr.destroy();
          for (let i = 0; i < 1000; i++) { log.logger.info({ pad: 'x'.repeat(200) }, 'line'); if (i % 100 === 0) await sleep(10); }
          writeFileSync('${disk}/ballast', '');
          await sleep(1_500); log.logger.info('last'); await log.exit(7);`,
          `${disk}/loader.log`,
        ),
        { encoding: 'utf8' },
      );
      assert.equal(status, 7);
      assert.match(stdout, /"output":"LOG_FILE","reason":"ENOSPC"/);
      assert.equal(stdout.match(/"msg":"line"/g)?.length, 1000);
      const file = readFileSync(`${disk}/loader.log`, 'utf8');
      const told = Number(/"lostLines":(\d+)/.exec(file)?.[1]);
      // One may be cut, and the line that stdout got about the loss is missing too.
      assert.equal((file.match(/"msg":"line"/g)?.length ?? 0) + told, 1001);
      assert.match(file, /\n\{"level":"warn",[^\n]*\}\n\{[^\n]*"msg":"last"\}\n$/);
    } finally {
      execFileSync('umount', [disk]);
    }
  });

  it('is made later where its disk is full at the start', { skip: TMPFS_SKIP }, () => {
    const disk = path.join(folder, 'disk');
    execFileSync('sh', [
      '-c',
      `mkdir "$0" && mount -t tmpfs -o size=64k,nr_inodes=2 none "$0" && touch "$0/other"`,
      disk,
    ]);
    try {
      const script = `log.logger.info('lost'); await sleep(20); rmSync('${disk}/other'); await sleep(1_500); await log.exit(7);`;
      const args = nodeArgs(`const { rmSync } = await import('node:fs'); ${script}`, `${disk}/loader.log`);
      assert.equal(spawnSync(process.execPath, args).status, 7);
      assert.match(readFileSync(`${disk}/loader.log`, 'utf8'), /^\{"level":"warn",[^\n]*"lostLines":2/);
    } finally {
      execFileSync('umount', [disk]);
    }
  });
});

function hasText(name: string): boolean {
  return existsSync(name) && readFileSync(name, 'utf8') !== '';
}

interface Line {
  readonly msg?: string;
  readonly lostLines?: number;
}

function readLines(name: string): Line[] {
  return readFileSync(name, 'utf8')
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Line);
}
