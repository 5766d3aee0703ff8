import swagger from '@fastify/swagger';
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import { fastify, type FastifySchema } from 'fastify';
import { format } from 'prettier';
import { loadConfig } from '../../src/config/config.ts';
import { ERRORS, type ErrorCode } from '../../src/errors.ts';
import { RESOURCE_PATH_PARTS } from '../../src/http/schemas/resource.ts';
import { registerRoutes } from '../../src/http/routes/routes.ts';
import { KnownSecrets } from '../../src/log/known-secrets.ts';
import { createLogger } from '../../src/log/logger.ts';
import { createServices } from '../../src/services.ts';
import type { Provider } from '../../src/tasks/provider.ts';

export const OPENAPI_FILE = 'docs/openapi.json';

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
  { name: 'schedules', description: 'Tasks that begin at set times.' },
];

/** The document as the schemas of the routes make it, in the form in which it is committed. */
export async function makeOpenApiText(): Promise<string> {
  const config = loadConfig({ RESOURCE_API_URL: 'http://127.0.0.1:9' });
  const services = createServices(config, { logger: createLogger({ level: 'silent' }), secrets: new KnownSecrets() });
  const app = fastify().setValidatorCompiler(() => () => true);
  try {
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
      transform: ({ schema, url, route }) => {
        const described = describe(schema, url, route.config?.access, services.tasks.providers);
        // A folder may have slashes, which no path of OpenAPI can say.
        return url === '/resources/*'
          ? { schema: { ...described, params: RESOURCE_PATH_PARTS }, url: '/resources/:folder/:filename' }
          : { schema: described, url };
      },
    });
    registerRoutes(app.withTypeProvider<TypeBoxTypeProvider>(), { ...config, ...services });
    await app.ready();
    const document = app.swagger() as unknown as OpenApiDocument;
    addErrorExamples(document);
    return await format(JSON.stringify(document), { parser: 'json', printWidth: 120 });
  } finally {
    await app.close();
    await services.close();
  }
}

interface OpenApiDocument {
  readonly paths: Readonly<
    Record<string, Readonly<Record<string, { readonly responses: Readonly<Record<string, Response>> }>>>
  >;
}

interface Response {
  readonly content?: {
    readonly 'application/json'?: { readonly schema: { readonly $ref?: string }; example?: unknown };
  };
}

const CODES = Object.keys(ERRORS) as ErrorCode[];

/** Where another error than the first of its status is the likely one. */
const LIKELY: Readonly<Record<string, ErrorCode>> = {
  '401 /login': 'wrong_credentials',
  '404 /unlock': 'archive_not_found',
  '401 /resources/{folder}/{filename}': 'not_authenticated',
  '404 /resources/{folder}/{filename}': 'resource_not_in_api',
  '409 /resources/{folder}/{filename}': 'upload_unfinished',
  '503 /resources/{folder}/{filename}': 'api_unreachable',
  '507': 'cache_unusable',
  '404 /tasks/{uid}': 'task_not_found',
  '404 /tasks/{uid}/logs': 'task_not_found',
  '404 /tasks/{uid}/events': 'task_not_found',
  '404 /schedules/{id}': 'schedule_not_found',
};

/** Gives each failure an example of its status: all of them share one schema, whose example is of another one. */
function addErrorExamples({ paths }: OpenApiDocument): void {
  for (const [url, operations] of Object.entries(paths)) {
    for (const { responses } of Object.values(operations)) {
      for (const [status, { content }] of Object.entries(responses)) {
        const media = content?.['application/json'];
        if (media?.schema.$ref !== '#/components/schemas/Error') continue;
        const code =
          LIKELY[`${status} ${url}`] ??
          LIKELY[status] ??
          CODES.find((known) => ERRORS[known].status === Number(status));
        if (code === undefined) throw new Error(`no error has the status ${status}`);
        const { meaning } = ERRORS[code];
        media.example = { detail: `${meaning.charAt(0).toUpperCase()}${meaning.slice(1)}.`, code };
      }
    }
  }
}

/** Adds what the schema of a route does not say: who may use it, and which tasks there are. */
function describe(
  schema: FastifySchema | undefined,
  url: string,
  access: 'open' | 'keyed' | undefined,
  providers: readonly Provider[],
): FastifySchema {
  // The routes of the document itself have no schema.
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
