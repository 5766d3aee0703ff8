import type { FastifyInstance } from 'fastify';
import { loadConfig } from '../../src/config/config.ts';
import { buildApp, type AppServices } from '../../src/http/app.ts';
import { KnownSecrets } from '../../src/log/known-secrets.ts';
import { createLogger } from '../../src/log/logger.ts';
import { createServices, type Services } from '../../src/services.ts';
import { validateResponses } from './response-validation.ts';

export interface TestAppOptions {
  /** Configuration; without RESOURCE_API_URL, no server listens at the Resource API. */
  readonly variables?: Readonly<Record<string, string>>;
  readonly apiKeys?: readonly string[];
  /** Gets the lines of the log; without it, there are none. */
  readonly log?: { write(line: string): void };
  /** In the place of that of the services. */
  readonly apiClient?: AppServices['apiClient'];
  readonly readiness?: AppServices['readiness'];
  /** Whether a response that does not fit its schema becomes a 500; true if absent. */
  readonly isValidated?: boolean;
}

export interface TestApp {
  readonly app: FastifyInstance;
  readonly services: Services;
  /** The responses that did not fit their schemas: a test file asserts at its end that there are none. */
  readonly misfits: readonly string[];
}

/** The whole application in this process. It does not listen, and its services are not started. */
export async function makeTestApp(options: TestAppOptions = {}): Promise<TestApp> {
  const { variables, apiKeys, log, apiClient, readiness, isValidated = true } = options;
  const logger =
    log === undefined ? createLogger({ level: 'silent' }) : createLogger({ level: 'debug', outputs: [log] });
  const config = loadConfig({
    RESOURCE_API_URL: 'http://127.0.0.1:9',
    ...(apiKeys !== undefined && { API_KEY: apiKeys.join(',') }),
    ...variables,
  });
  const services = createServices(config, { logger, secrets: new KnownSecrets() });
  const app = await buildApp(
    { ...services, ...(apiClient && { apiClient }), ...(readiness && { readiness }) },
    { ...config, logger },
  );
  return { app, services, misfits: isValidated ? validateResponses(app) : [] };
}
