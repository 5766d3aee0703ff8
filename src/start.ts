import { helpText } from './config/config-docs.ts';
import { ConfigError, takeConfig, type Config } from './config/config.ts';
import { buildApp } from './http/app.ts';
import { KnownSecrets } from './log/known-secrets.ts';
import { LogFile } from './log/log-file.ts';
import { createLogger } from './log/logger.ts';
import { runLoader, type LoaderParts } from './run-loader.ts';
import { createServices } from './services.ts';

/** The Loader as a process: makes everything from the configuration in the environment, and runs it. */
export async function start(args: readonly string[]): Promise<void> {
  if (args.includes('--help') || args.includes('-h')) {
    process.stdout.write(helpText());
    return;
  }
  const { config, secrets, warnings } = readConfig();
  try {
    const logFile = config.logFile === undefined ? undefined : new LogFile(config.logFile);
    const logger = createLogger({ level: config.logLevel, file: logFile, secrets });
    for (const warning of warnings) logger.warn(warning);
    await runLoader(await composeLoader(config, { secrets, logger, logFile }));
  } catch (error) {
    exitWith(secrets.redact(`The Loader could not start: ${String(error)}`));
  }
}

/** Makes all parts of a Loader, which does not listen yet. */
export async function composeLoader(
  config: Config,
  { secrets, logger, logFile }: Pick<LoaderParts, 'logger' | 'logFile'> & { readonly secrets: KnownSecrets },
): Promise<LoaderParts> {
  const services = createServices(config, logger, secrets);
  const { host, port, shutdownTimeoutMs, modelCacheDir, apiKeys, clientStallTimeoutMs } = config;
  const app = await buildApp(services, { modelCacheDir, apiKeys, clientStallTimeoutMs, logger });
  return { app, services, host, port, shutdownTimeoutMs, logger, logFile };
}

function readConfig() {
  try {
    const { secrets, ...taken } = takeConfig();
    return { ...taken, secrets: new KnownSecrets(secrets) };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return exitWith(error.message);
  }
}

function exitWith(message: string): never {
  process.stderr.write(`${message}\n`);
  process.exit(1);
}
