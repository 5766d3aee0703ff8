import swagger from '@fastify/swagger';
import swaggerUi from '@fastify/swagger-ui';
import type { FastifyInstance, FastifySchema } from 'fastify';
import type { Provider } from '../tasks/provider.ts';
import { ERROR, VALIDATION_ERROR } from './schemas/error.ts';
import { SCHEDULE } from './schemas/schedule.ts';
import { BUSY, TASK, TASK_SUMMARY } from './schemas/task.ts';
import { UNLOCK_STATUS } from './schemas/unlock.ts';

/** The version of the HTTP API. */
const API_VERSION = '1.0.0';

const INFO = {
  title: 'Azaion.Loader',
  version: API_VERSION,
  description: 'Gets encrypted AI models onto edge devices and into use.',
  license: { name: 'Proprietary', identifier: 'LicenseRef-Proprietary' },
};

const TAGS = [
  { name: 'health', description: 'For the health checks of containers.' },
  { name: 'resources', description: 'Log in, load and upload.' },
  { name: 'unlock', description: "The device's image archive, once per release." },
  { name: 'tasks', description: 'Long work in the background.' },
  { name: 'schedules', description: 'Tasks that begin by themselves.' },
];

/**
 * For the pages of /docs: no script but the Loader's own files, and nothing from another host. The pages set styles by
 * attribute, and show images of data URLs.
 */
const DOCS_CSP = {
  'default-src': "'none'",
  'script-src': "'self'",
  'style-src': "'self'",
  'style-src-attr': "'unsafe-inline'",
  'img-src': "'self' data:",
  'font-src': "'self'",
  'connect-src': "'self'",
  'base-uri': "'none'",
  'form-action': "'self'",
  'frame-ancestors': "'none'",
};

const SHARED_SCHEMAS = [ERROR, VALIDATION_ERROR, TASK_SUMMARY, TASK, BUSY, SCHEDULE, UNLOCK_STATUS];

/** Collects the schemas of the routes that are registered after this call, and serves GET /openapi.json and GET /docs. */
export async function registerOpenApi(app: FastifyInstance, providers: readonly Provider[]): Promise<void> {
  for (const schema of SHARED_SCHEMAS) app.addSchema(schema);
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: INFO,
      servers: [{ url: '/' }],
      tags: TAGS,
      components: {
        securitySchemes: { apiKey: { type: 'http', scheme: 'bearer', description: 'One of the keys of API_KEY.' } },
      },
    },
    refResolver: {
      buildLocalReference: ({ $id }, _base, _fragment, index) => (typeof $id === 'string' ? $id : `schema-${index}`),
    },
    transform: ({ schema, url, route }) => ({ schema: describe(schema, url, route.config?.access, providers), url }),
  });
  app.get('/openapi.json', { schema: { hide: true }, config: { access: 'open' } }, () => app.swagger());
  await app.register((docs, _options, done) => {
    docs.addHook('onRoute', (route) => {
      route.config = { ...route.config, access: 'open' };
    });
    docs.register(swaggerUi, { routePrefix: '/docs', staticCSP: DOCS_CSP, theme: { title: INFO.title } });
    done();
  });
}

/** Adds what the schema of a route does not say: who may use it, and which tasks there are. */
function describe(
  schema: FastifySchema | undefined,
  url: string,
  access: 'open' | 'keyed' | undefined,
  providers: readonly Provider[],
): FastifySchema {
  // Routes that only refuse a method have no schema.
  if (schema?.operationId === undefined) return { hide: true };
  const described = { ...schema, security: securityOf(access) };
  return url === '/' ? { ...described, body: newTaskBody(schema.body, providers) } : described;
}

function securityOf(access: 'open' | 'keyed' | undefined): Record<string, string[]>[] {
  if (access === 'open') return [];
  // Without API_KEY, the Loader serves these routes to clients that have no key.
  return access === 'keyed' ? [{ apiKey: [] }] : [{ apiKey: [] }, {}];
}

/** The parameters of each provider stand beside its name. */
function newTaskBody(body: unknown, providers: readonly Provider[]): object {
  return {
    ...(body as object),
    oneOf: providers.map(({ name, parameters }) => ({
      ...parameters,
      title: name,
      required: ['provider', ...((parameters['required'] as string[] | undefined) ?? [])],
      properties: { provider: { type: 'string', const: name }, ...(parameters['properties'] as object) },
    })),
  };
}
