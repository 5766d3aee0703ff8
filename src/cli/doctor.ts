import { copyFile, mkdir, mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { styleText } from 'node:util';
import { Checkup, type Account, type Finding } from '../checkup/checkup.ts';
import { ConfigError, takeConfig, type Config } from '../config/config.ts';
import { DockerEngine } from '../docker/docker-engine.ts';
import { KEPT_HARDWARE_FILE } from '../hardware/kept-hardware.ts';
import { LoaderFolders } from '../loader-folders.ts';
import { KnownSecrets } from '../log/known-secrets.ts';
import { createLogger } from '../log/logger.ts';
import { hostAndPort } from '../net/proxy-rules.ts';
import { createServices } from '../services.ts';
import { Presence } from '../unlock/presence.ts';
import { receiptPath } from '../unlock/receipt.ts';
import { CliError } from './cli-error.ts';
import { hostOf } from '../upstream/api-error.ts';
import type { DoctorArguments } from './doctor-arguments.ts';
import { readSecretInput } from './secret-input.ts';

/** What is printed goes here; it may be a terminal. */
type Output = NodeJS.WritableStream;

/** A Loader waits out an outage for longer; a person wants to know now. */
const PATIENCE_MS = 10_000;
/** How long a Loader that listens may take to answer, in ms. */
const ANSWER_MS = 3_000;
const MARKS = {
  ok: ['ok', 'green'],
  warning: ['warning', 'yellow'],
  failed: ['FAILED', 'red'],
  skipped: ['skipped', 'dim'],
} as const;

/**
 * Prints what it finds, a line for each subject. Returns whether all is well.
 *
 * @throws CliError where the password can't be read; the reason of `signal`
 */
export async function doctor(args: DoctorArguments, output: Output, signal: AbortSignal): Promise<boolean> {
  let isWell = true;
  for await (const finding of findAll(args, signal)) {
    isWell &&= finding.status !== 'failed';
    output.write(`${formatFinding(finding, output)}\n`);
  }
  return isWell;
}

async function* findAll(args: DoctorArguments, signal: AbortSignal): AsyncGenerator<Finding, void, undefined> {
  const password = args.passwordPath === undefined ? undefined : await readSecretInput(args.passwordPath, signal);
  let taken: ReturnType<typeof takeConfig>;
  try {
    taken = takeConfig();
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    for (const problem of error.problems) yield { subject: 'configuration', status: 'failed', text: problem };
    yield { subject: 'all else', status: 'skipped', text: 'It is looked at when the configuration is right.' };
    return;
  }
  const { config, secrets, warnings } = taken;
  yield { subject: 'configuration', status: 'ok', text: 'All variables have values that a Loader takes.' };
  for (const text of warnings) yield { subject: 'configuration', status: 'warning', text };
  yield await askLoader(config);
  const account = password === undefined ? ownAccountOf(config) : { email: args.email ?? '', password };
  yield* checkUp(
    config,
    { account, args, secrets: new KnownSecrets([...secrets, ...(account ? [account.password] : [])]) },
    signal,
  );
}

function ownAccountOf({ ownAccount }: Config): Account | undefined {
  return ownAccount && { email: ownAccount.email, password: ownAccount.password.initial };
}

/** What a Loader that runs with this configuration says of itself. */
async function askLoader({ host, port }: Config): Promise<Finding> {
  const subject = 'Loader';
  const hostname = ['0.0.0.0', '::'].includes(host) ? '127.0.0.1' : host;
  const url = `http://${hostAndPort({ hostname, port })}`;
  try {
    const answer = await fetch(`${url}/ready`, { signal: AbortSignal.timeout(ANSWER_MS) });
    const body = (await answer.json()) as { readonly ready?: boolean; readonly detail?: string };
    if (body.ready === true) return { subject, status: 'ok', text: `The Loader at ${url} is ready.` };
    if (typeof body.detail !== 'string') throw new Error('not a Loader');
    return { subject, status: 'warning', text: `The Loader at ${url} is not ready: ${body.detail}` };
  } catch (error) {
    const isRefused = error instanceof TypeError;
    if (isRefused) return { subject, status: 'skipped', text: `No Loader listens at ${url}.` };
    const text = `What listens at ${url} is no Loader, or does not answer: stop it, or set PORT to another one.`;
    return { subject, status: 'failed', text };
  }
}

/** Works in a folder of its own, so that it neither changes nor needs what a Loader has. */
async function* checkUp(
  config: Config,
  { account, args, secrets }: { account: Account | undefined; args: DoctorArguments; secrets: KnownSecrets },
  signal: AbortSignal,
): AsyncGenerator<Finding, void, undefined> {
  const folder = await makeWorkFolder([tmpdir(), config.stateDir, config.modelCacheDir]);
  const remarks: string[] = [];
  const logger = createLogger({ level: 'warn', secrets, outputs: [{ write: (line) => void remarks.push(line) }] });
  const stateDir = path.join(folder, 'state');
  const services = createServices(
    {
      ...config,
      modelCacheDir: path.join(folder, 'models'),
      stateDir,
      stallTimeoutMs: Math.min(config.stallTimeoutMs, PATIENCE_MS),
      ownAccount: undefined,
    },
    { logger, secrets },
  );
  const engine = new DockerEngine({ host: config.dockerHost, timeoutMs: config.engineTimeoutMs });
  const folders = new LoaderFolders({ ...config, waitMs: 0, logger });
  try {
    await mkdir(stateDir);
    await keepHardware(config.stateDir, stateDir);
    const missing = await missingFolders(config);
    for (const text of missing) yield { subject: 'folders', status: 'warning', text };
    const checkup = new Checkup({
      account,
      resource: args.resource,
      archivePath: config.imagesPath,
      apiHost: hostOf(config.resourceApiUrl),
      folders: missing.length > 0 ? undefined : folders,
      apiClient: services.apiClient,
      engine,
      presence: new Presence({
        engine,
        archivePath: config.imagesPath,
        receiptPath: receiptPath(config.stateDir),
        serviceImages: config.serviceImages,
        apiVersion: config.apiVersion,
      }),
    });
    for await (const finding of checkup.run(signal)) {
      yield { ...finding, text: secrets.redact(finding.text) };
    }
  } finally {
    await services.close();
    await engine.close();
    await rm(folder, { recursive: true, force: true });
  }
}

/** In the first of `places` that can be written: a container may have no other than its volumes. @throws CliError */
async function makeWorkFolder(places: readonly string[]): Promise<string> {
  for (const place of places) {
    const folder = await mkdtemp(path.join(place, 'loader-doctor-')).catch(() => undefined);
    if (folder !== undefined) return folder;
  }
  throw new CliError(`There is no folder to work in: make one of ${places.join(', ')} writable for this user.`);
}

/** The string that the server accepted last is preferred, as by the Loader itself. */
async function keepHardware(from: string, to: string): Promise<void> {
  await copyFile(path.join(from, KEPT_HARDWARE_FILE), path.join(to, KEPT_HARDWARE_FILE)).catch(() => undefined);
}

/** To look at a folder makes it, which is for the Loader's own user to do. */
async function missingFolders({ stateDir, modelCacheDir }: Config): Promise<string[]> {
  const places = Object.entries({ STATE_DIR: stateDir, MODEL_CACHE_DIR: modelCacheDir });
  const missing = await Promise.all(
    places.map(async ([variable, folder]) => {
      const found = await stat(folder).catch(() => undefined);
      return found === undefined ? [`There is no ${path.resolve(folder)} (${variable}) yet: each start makes it.`] : [];
    }),
  );
  return missing.flat();
}

function formatFinding({ subject, status, text }: Finding, output: Output): string {
  const [word, colour] = MARKS[status];
  return `${styleText(colour, word.padEnd(8), { stream: output })} ${subject.padEnd(14)} ${text}`;
}
