import { format } from 'prettier';
import { loadConfig } from '../../src/config/config.ts';
import { buildApp } from '../../src/http/app.ts';
import { KnownSecrets } from '../../src/log/known-secrets.ts';
import { createLogger } from '../../src/log/logger.ts';
import { createServices } from '../../src/services.ts';

export const OPENAPI_FILE = 'docs/openapi.json';

/** The document as the app makes it, in the form in which it is committed. */
export async function makeOpenApiText(): Promise<string> {
  const logger = createLogger({ level: 'silent' });
  const config = loadConfig({ RESOURCE_API_URL: 'http://127.0.0.1:9' });
  const services = createServices(config, logger, new KnownSecrets());
  const app = await buildApp(services, { ...config, logger });
  try {
    await app.ready();
    return await format(JSON.stringify(app.swagger()), { parser: 'json', printWidth: 120 });
  } finally {
    await app.close();
    await services.close();
  }
}
