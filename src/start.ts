import { helpText } from './config/config-docs.ts';
import { ConfigError, takeConfig, type Config } from './config/config.ts';
import { buildApp } from './http/app.ts';
import { KnownSecrets } from './log/known-secrets.ts';
import { Log } from './log/log.ts';
import { runLoader, type LoaderParts } from './run-loader.ts';
import { tellStart } from './tell-start.ts';
import { createServices } from './services.ts';

/** The Loader as a process: makes everything from the configuration in the environment, and runs it. */
export async function start(args: readonly string[]): Promise<void> {
  if (args.includes('--help') || args.includes('-h')) {
    process.stdout.write(helpText());
    return;
  }
  const { config, secrets, warnings } = readConfig();
  let log: Log | undefined;
  try {
    log = await Log.open({ level: config.logLevel, format: config.logFormat, filePath: config.logFile, secrets });
    for (const warning of warnings) log.logger.warn(warning);
    const parts = await composeLoader(config, { secrets, log });
    await runLoader(parts);
    tellStart(config, parts.services, log.logger);
  } catch (error) {
    tellOnStderr(secrets.redact(`The Loader could not start: ${String(error)}`));
    if (log === undefined) process.exit(1);
    await log.exit(1);
  }
}

/** Makes all parts of a Loader, which does not listen yet. */
export async function composeLoader(
  config: Config,
  { secrets, log }: Pick<LoaderParts, 'log'> & { readonly secrets: KnownSecrets },
): Promise<LoaderParts> {
  const { logger } = log;
  const services = createServices(config, { logger, secrets, lostLines: () => log.lostLines });
  const { host, port, shutdownTimeoutMs, modelCacheDir, allowedHosts, clientStallTimeoutMs } = config;
  const app = await buildApp(services, { modelCacheDir, allowedHosts, clientStallTimeoutMs, logger });
  return { app, services, host, port, shutdownTimeoutMs, log };
}

function readConfig() {
  try {
    const { secrets, ...taken } = takeConfig();
    return { ...taken, secrets: new KnownSecrets(secrets) };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    tellOnStderr(error.message);
    process.exit(1);
  }
}

function tellOnStderr(message: string): void {
  process.stderr.write(`${message}\n`);
}
