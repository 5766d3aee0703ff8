import { format } from 'prettier';
import { makeTestApp } from '../support/test-app.ts';

export const OPENAPI_FILE = 'docs/openapi.json';

/** The document as the app makes it, in the form in which it is committed. */
export async function makeOpenApiText(): Promise<string> {
  const { app, services } = await makeTestApp();
  try {
    await app.ready();
    return await format(JSON.stringify(app.swagger()), { parser: 'json', printWidth: 120 });
  } finally {
    await app.close();
    await services.close();
  }
}
