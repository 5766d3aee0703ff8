import { parseArgs } from 'node:util';
import { DemoEngine } from './demo-engine.ts';
import { DEMO_API_KEY, DemoStage } from './demo-stage.ts';
import { DEMO_RESOURCE, runDemoSteps } from './demo-steps.ts';
import { runTaskSteps } from './demo-task-steps.ts';
import { runUnlockSteps } from './demo-unlock-steps.ts';
import { DEMO_USER } from '../lab/upstream/origin.ts';
import { StepPrinter } from './step-printer.ts';

/**
 * `npm run demo`: a model goes up and comes back, through a real Loader and stand-ins for all that it has upstream;
 * background tasks run; and where there is a Docker engine, images are packed and unlocked into it. With `-- --keep`, all
 * of it stays up until Ctrl-C.
 */

/** The signals that end a demo, with the exit codes that shells give them. */
const EXIT_CODES = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;
type EndingSignal = keyof typeof EXIT_CODES;

class Interrupted extends Error {
  override readonly name = 'Interrupted';
  readonly exitCode: number;

  constructor(signal: EndingSignal) {
    super(`interrupted by ${signal}`);
    this.exitCode = EXIT_CODES[signal];
  }
}

const { env } = process;
process.exitCode = await main(new StepPrinter(process.stdout, env), env);

async function main(printer: StepPrinter, env: NodeJS.ProcessEnv): Promise<number> {
  let keep: boolean;
  try {
    keep = parseArgs({ options: { keep: { type: 'boolean', default: false } } }).values.keep;
  } catch (error) {
    console.error(`${messageOf(error)}\nUsage: npm run demo [-- --keep]`);
    return 2;
  }
  const interrupt = new AbortController();
  for (const signal of Object.keys(EXIT_CODES) as EndingSignal[]) {
    // The first counts. Further ones change nothing: cleaning up takes moments, and has its own time limit.
    process.on(signal, () => interrupt.abort(new Interrupted(signal)));
  }
  printer.line(`\n  ${printer.bold('Azaion.Loader: a model goes up and comes back')}\n`);
  const stage = await DemoStage.create(env);
  let exitCode = 0;
  try {
    const engine = await DemoEngine.find(interrupt.signal);
    if (typeof engine !== 'string') stage.useEngine(engine);
    await runDemoSteps(stage, printer, interrupt.signal);
    printer.line(`\n  ${printer.bold('Background tasks')}\n`);
    await runTaskSteps(stage, printer, interrupt.signal);
    if (typeof engine === 'string') {
      printer.line(`\n  ${printer.bold('No images are unlocked.')} ${engine}\n`);
    } else {
      printer.line(`\n  ${printer.bold(`A release of three images goes into the Docker engine at ${engine.name}`)}\n`);
      await runUnlockSteps(stage, engine, printer, interrupt.signal);
    }
    if (keep) {
      printThingsToTry(printer, stage, typeof engine !== 'string');
      await stage.stayUp(interrupt.signal);
      printer.line('\n');
    }
  } catch (error) {
    exitCode = reportFailure(printer, stage, interrupt.signal.aborted ? interrupt.signal.reason : error);
  }
  try {
    await printer.step('Stop everything, remove all of it', async () => {
      await stage.clear();
      return {};
    });
  } catch (error) {
    printer.line(`\n  ${printer.red('Something was left behind:')} ${messageOf(error)}`);
    exitCode = 1;
  }
  printer.line();
  return exitCode;
}

function printThingsToTry(printer: StepPrinter, stage: DemoStage, isUnlocked: boolean): void {
  const url = stage.loaderUrl;
  const key = `-H 'Authorization: Bearer ${DEMO_API_KEY}'`;
  const json = `${key} -H 'Content-Type: application/json'`;
  const login = JSON.stringify({ email: DEMO_USER.email, password: DEMO_USER.password });
  const { filename, folder } = DEMO_RESOURCE;
  const file = `data=@${stage.modelPath}`;
  const commands = [
    `curl ${url}/health`,
    `curl ${key} ${url}/status`,
    `curl ${json} -d '${login}' ${url}/login`,
    `curl ${json} -d '${JSON.stringify(DEMO_RESOURCE)}' ${url}/load/${filename} | sha256sum`,
    `curl ${key} -F ${shellQuote(file)} -F 'folder=${folder}' ${url}/upload/another-model`,
    ...(isUnlocked
      ? [
          `curl ${json} -d '${login}' ${url}/unlock`,
          `curl ${key} ${url}/unlock/status`,
          `curl --no-buffer ${key} ${url}/unlock/events`,
        ]
      : []),
    `curl ${json} -d '{"provider":"verify"}' ${url}/`,
    `curl ${key} ${url}/tasks/history`,
  ];
  printer.line(`\n  ${printer.bold('It is all still running.')} Try, in another terminal:\n`);
  for (const command of commands) printer.line(`${command}\n`);
  printer.line(`  ${printer.dim('Ctrl-C stops it and removes its files.')}`);
}

/** Returns the exit code. */
function reportFailure(printer: StepPrinter, stage: DemoStage, error: unknown): number {
  if (error instanceof Interrupted) {
    printer.line(`\n  ${printer.bold('Interrupted.')}\n`);
    return error.exitCode;
  }
  printer.line(`\n  ${printer.red('The demo failed:')} ${messageOf(error)}\n`);
  if (stage.lastLogLines.length > 0) {
    printer.line(`  ${printer.bold("The Loader's last log lines:")}\n`);
    for (const line of stage.lastLogLines) printer.line(`  ${line}`);
    printer.line();
  }
  return 1;
}

/** The message of an error and of those behind it: fetch says no more than "fetch failed" itself. */
function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause === undefined ? error.message : `${error.message} (${messageOf(error.cause)})`;
}

function shellQuote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
