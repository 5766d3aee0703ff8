import { cpus, loadavg, release } from 'node:os';
import { runAgainst } from './against.ts';
import { describeCommit } from './checkout.ts';
import { ensureDebianTools } from './debian-tools.ts';
import { parseOptions, USAGE, type BenchOptions, type SectionLetter } from './options.ts';
import { coldLoad } from './sections/cold-load.ts';
import { firstByte } from './sections/first-byte.ts';
import { health } from './sections/health.ts';
import { links } from './sections/links.ts';
import { memory } from './sections/memory.ts';
import { MB, type Section } from './sections/section.ts';
import { tasks } from './sections/tasks.ts';
import { unlockCost } from './sections/unlock-cost.ts';
import { unlockTime } from './sections/unlock-time.ts';
import { upload } from './sections/upload.ts';
import { warmLoad } from './sections/warm-load.ts';
import { Stage } from './stage.ts';
import { Table } from './table.ts';

/**
 * Measures the Loader beside its peers: `npm run bench`, with options after `--` (see options.ts).
 *
 * With `-- --against COMMIT` it measures this checkout beside that commit instead: `npm run bench -- --against 9bf4b61`.
 *
 * A missed target is a result and no failure: the exit code shows whether the measurement itself succeeded.
 */

const SECTIONS: Readonly<Record<SectionLetter, Section>> = {
  a: warmLoad,
  b: coldLoad,
  c: upload,
  d: firstByte,
  e: memory,
  f: health,
  g: unlockTime,
  h: unlockCost,
  i: tasks,
  j: links,
};

async function bench(options: BenchOptions, signal: AbortSignal): Promise<void> {
  console.log(
    `Node ${process.version}, Linux ${release()}, ${cpus().length} cores, ${options.rounds} rounds, ` +
      `load average ${loadavg()[0]?.toFixed(2) ?? ''}`,
  );
  const { against } = options;
  if (against !== undefined) console.log(`against ${await describeCommit(against, signal)}`);
  await ensureDebianTools();
  console.log('Starting the S3 server and the Resource API ...');
  const stage = await Stage.start(signal);
  try {
    if (against === undefined) await measureBesidePeers(stage, options);
    else await runAgainst(stage, { ...options, commit: against, archiveLength: options.archiveMb * MB });
  } finally {
    await stage.stop();
  }
}

async function measureBesidePeers(stage: Stage, { sections, rounds, archiveMb }: BenchOptions): Promise<void> {
  const table = new Table((line) => console.log(line));
  for (const letter of sections) {
    const { title, run } = SECTIONS[letter];
    console.log(`\n(${letter}) ${title}`);
    await run({ stage, table, rounds, archiveLength: archiveMb * MB });
  }
  console.log('');
  table.printAll();
  console.log('\nLoader and peer: median (smallest-largest). MB are 10^6 bytes, MiB 2^20.');
}

const interrupt = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  // Every further signal too: npm passes on what the terminal has sent already, and the clean-up must not be cut.
  process.on(signal, () => {
    if (!interrupt.signal.aborted) console.error(`\n${signal}: cleaning up ...`);
    interrupt.abort(new Error(signal));
  });
}

let options: BenchOptions;
try {
  options = parseOptions(process.argv.slice(2));
} catch (error) {
  console.error(`${error instanceof Error ? error.message : String(error)}\n\n${USAGE}`);
  process.exit(2);
}
try {
  await bench(options, interrupt.signal);
} catch (error) {
  process.exitCode = 1;
  if (interrupt.signal.aborted) process.exitCode = 130;
  else console.error(error);
} finally {
  await Stage.clear();
}
