import { ConfigError, loadEngineConfig, loadStateConfig } from '../config/config.ts';
import { DockerEngine } from '../docker/docker-engine.ts';
import { LoaderError } from '../errors.ts';
import { CliError, UsageError } from './cli-error.ts';
import { DOCTOR_USAGE, parseDoctorArguments } from './doctor-arguments.ts';
import { EngineSource } from './engine-source.ts';
import { FORGET_USAGE, parseForgetArguments } from './forget-arguments.ts';
import { forgetRevision } from './forget.ts';
import { describeArchive, packArchive } from './pack.ts';
import { PACK_USAGE, parsePackArguments, type PackArguments } from './pack-arguments.ts';
import { TarSource } from './tar-source.ts';
import { verifyFile } from './verify.ts';
import { parseVerifyArguments, VERIFY_USAGE } from './verify-arguments.ts';

/** The `loader` command: it handles the Loader's formats on machines where no Loader runs, and finds out why one does not. */

const USAGE = `Usage: loader COMMAND

Commands:
  doctor  look at all that a Loader needs, and say what is wrong
  forget  let this device take an older version of a resource again
  pack    make the encrypted image archive of a release
  verify  compare a file that was loaded with its manifest

loader COMMAND --help tells more.
`;

const USAGES: Readonly<Record<string, string>> = {
  doctor: DOCTOR_USAGE,
  forget: FORGET_USAGE,
  pack: PACK_USAGE,
  verify: VERIFY_USAGE,
};

/** The exit codes are those of shells. */
const SIGNALS = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;

class Interrupted extends Error {
  override readonly name = 'Interrupted';
  readonly exitCode: number;

  constructor(exitCode: number) {
    super('interrupted');
    this.exitCode = exitCode;
  }
}

/** Runs the command, and returns its exit code. */
export async function loaderCommand(args: readonly string[]): Promise<number> {
  // The reader of the output may leave early. The work goes on.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);
  const interrupt = new AbortController();
  for (const [signal, exitCode] of Object.entries(SIGNALS)) {
    // Only the first signal counts, since the cleanup takes only moments.
    process.on(signal, () => interrupt.abort(new Interrupted(exitCode)));
  }
  const [command = '', ...rest] = args;
  try {
    if (['--help', '-h', 'help'].includes(command)) {
      process.stdout.write(USAGE);
    } else if (command === 'doctor') {
      return await diagnose(rest, interrupt.signal);
    } else if (command === 'forget') {
      await forget(rest);
    } else if (command === 'pack') {
      await pack(rest, interrupt.signal);
    } else if (command === 'verify') {
      await verify(rest, interrupt.signal);
    } else {
      throw new UsageError(command === '' ? 'A command is missing.' : `There is no command ${command}.`);
    }
    return 0;
  } catch (error) {
    return reportFailure(error, USAGES[command] ?? USAGE);
  }
}

/** Returns the exit code. */
async function diagnose(args: readonly string[], signal: AbortSignal): Promise<number> {
  const parsed = parseDoctorArguments(args);
  if (parsed.kind === 'help') {
    process.stdout.write(DOCTOR_USAGE);
    return 0;
  }
  // Its parts are those of the whole Loader, which other commands need not read.
  const { doctor } = await import('./doctor.ts');
  return (await doctor(parsed, process.stdout, signal)) ? 0 : 1;
}

async function forget(args: readonly string[]): Promise<void> {
  const parsed = parseForgetArguments(args);
  if (parsed.kind === 'help') process.stdout.write(FORGET_USAGE);
  else process.stdout.write(`${await forgetRevision(parsed.resource, loadStateConfig().stateDir)}\n`);
}

async function pack(args: readonly string[], signal: AbortSignal): Promise<void> {
  const parsed = parsePackArguments(args);
  if (parsed.kind === 'help') {
    process.stdout.write(PACK_USAGE);
    return;
  }
  const archive = await packArchive({
    ...parsed,
    openSource: () => openSource(parsed.source, signal),
    output: process.stderr,
    signal,
  });
  process.stdout.write(`${describeArchive(parsed.outputPath, archive).join('\n')}\n`);
}

async function verify(args: readonly string[], signal: AbortSignal): Promise<void> {
  const parsed = parseVerifyArguments(args);
  process.stdout.write(parsed.kind === 'help' ? VERIFY_USAGE : `${await verifyFile(parsed, signal)}\n`);
}

async function openSource(source: PackArguments['source'], signal: AbortSignal): Promise<EngineSource | TarSource> {
  if ('tarPath' in source) return await TarSource.at(source.tarPath, process.stdin);
  const { dockerHost, engineTimeoutMs, engineStallTimeoutMs } = loadEngineConfig();
  const engine = new DockerEngine({ host: dockerHost, timeoutMs: engineTimeoutMs });
  return await EngineSource.find(source.images, { engine, stallTimeoutMs: engineStallTimeoutMs }, signal);
}

/** Writes one sentence that says what to do. Returns the exit code. */
function reportFailure(error: unknown, usage: string): number {
  if (error instanceof Interrupted) {
    process.stderr.write('Interrupted; nothing was written.\n');
    return error.exitCode;
  }
  if (error instanceof UsageError) {
    process.stderr.write(`${error.message}\n\n${usage}`);
    return 2;
  }
  const isKnown = error instanceof CliError || error instanceof LoaderError || error instanceof ConfigError;
  const message = error instanceof Error ? error.message : String(error);
  process.stderr.write(`${isKnown ? message : `Internal error, a fault of this command: ${message}`}\n`);
  return 1;
}
