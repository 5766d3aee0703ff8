import { setTimeout as sleep } from 'node:timers/promises';
import type { Static } from 'typebox';
import { buildApp } from '../src/http/app.ts';
import { loadConfig } from '../src/config/config.ts';
import { Type } from '../src/json-schemas.ts';
import { KnownSecrets } from '../src/log/known-secrets.ts';
import { Log } from '../src/log/log.ts';
import { createServices } from '../src/services.ts';
import { defineProvider, type TaskContext } from '../src/tasks/provider.ts';
import { Tasks } from '../src/tasks/tasks.ts';
import { monotonicUs } from './monotonic-us.ts';

/**
 * A Loader whose only provider, `ticks`, reports the time as its bytes, in microseconds, at random moments. The task's
 * result are all the times that it reported.
 */

const PARAMETERS = Type.Object({
  seconds: Type.Number(),
  max_gap_ms: Type.Number({ description: 'The longest time between two reports.' }),
});

/** One report in so many is less than the one before: no client may see it. */
const STEP_BACK_EVERY = 10;
const STEP_BACK_US = 1_000_000;

async function tick(parameters: Static<typeof PARAMETERS>, context: TaskContext): Promise<number[]> {
  const startedAtUs = monotonicUs();
  const untilUs = startedAtUs + parameters.seconds * 1e6;
  const reportedUs: number[] = [];
  for (let nowUs = startedAtUs; nowUs < untilUs; nowUs = monotonicUs()) {
    const isStepBack = reportedUs.length % STEP_BACK_EVERY === STEP_BACK_EVERY - 1;
    const percent = (100 * (nowUs - startedAtUs)) / (untilUs - startedAtUs);
    if (isStepBack) context.report({ bytesDone: nowUs - STEP_BACK_US, bytesTotal: null, percent: percent / 2 });
    reportedUs.push(nowUs);
    context.report({ bytesDone: nowUs, bytesTotal: null, percent });
    await sleep(Math.random() * parameters.max_gap_ms, undefined, { signal: context.signal });
  }
  return reportedUs;
}

const config = loadConfig();
const secrets = new KnownSecrets();
const { logger } = await Log.open({
  level: config.logLevel,
  format: config.logFormat,
  filePath: config.logFile,
  secrets,
});
const ticks = defineProvider({
  name: 'ticks',
  parameters: PARAMETERS,
  result: Type.Array(Type.Number()),
  isRepeatable: false,
  run: tick,
});
const services = createServices(config, { logger, secrets });
const tasks = new Tasks({ ...config, providers: [ticks], logger });
const app = await buildApp({ ...services, tasks }, { ...config, logger });
process.once('SIGTERM', () => {
  void Promise.all([app.close(), tasks.stop()]).then(async () => {
    tasks.close();
    await services.close();
  });
});
await tasks.start();
await app.listen({ host: config.host, port: config.port });
