import { helpText } from './config/config-docs.ts';
import { ConfigError, takeConfig } from './config/config.ts';
import { buildApp } from './http/app.ts';
import { KnownSecrets } from './log/known-secrets.ts';
import { LogFile } from './log/log-file.ts';
import { createLogger } from './log/logger.ts';
import { runLoader } from './run-loader.ts';
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
    const services = createServices(config, logger, secrets);
    const app = await buildApp(services, {
      modelCacheDir: config.modelCacheDir,
      apiKeys: config.apiKeys,
      clientStallTimeoutMs: config.clientStallTimeoutMs,
      logger,
    });
    await runLoader({
      app,
      services,
      host: config.host,
      port: config.port,
      shutdownTimeoutMs: config.shutdownTimeoutMs,
      logger,
      logFile,
    });
  } catch (error) {
    exitWith(secrets.redact(`The Loader could not start: ${String(error)}`));
  }
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
