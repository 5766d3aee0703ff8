import { Ajv, type AnySchema } from 'ajv';
import fastJsonStringify, { type Schema } from 'fast-json-stringify';
import type { FastifyInstance } from 'fastify';
import { REQUEST_FORMATS } from '../errors/request-faults.ts';

type Serialize = (data: unknown) => string;

/**
 * Compiles the schema of a request or a response when the first one comes. Fastify itself compiles all those of all
 * routes at the start and keeps them, though most are for failures that never come. Equal schemas share one serializer,
 * so all routes have the same one for their errors.
 *
 * The first schema of all takes each compiler several times as long as a later one, since its own code is compiled then.
 * That is done here, so that no client waits for it.
 */
export function registerLazyCompilers(app: FastifyInstance): void {
  // As in FastAPI, every fault is reported, and a number is no string.
  // The schema of schemas is slow to compile; Ajv's strict mode finds faults of ours.
  const ajv = new Ajv({ allErrors: true, formats: REQUEST_FORMATS, validateSchema: false });
  ajv.compile({ type: 'object' });
  app.setValidatorCompiler<AnySchema>(({ schema }) => {
    const validator = once(() => ajv.compile(schema));
    return (data) => {
      const validate = validator();
      return validate(data) ? true : { error: validate.errors ?? [] };
    };
  });

  fastJsonStringify({ type: 'object' });
  const serializers = new Map<string, Serialize>();
  app.setSerializerCompiler<Schema>(({ schema }) => {
    // A description changes no byte of a response.
    const key = JSON.stringify({ ...schema, description: '' });
    const serializer = once(() => fastJsonStringify(schema, { schema: referredTo(schema, app.getSchemas()) }));
    const serialize = serializers.get(key) ?? ((data) => serializer()(data));
    serializers.set(key, serialize);
    return serialize;
  });
}

/** The shared schemas that a schema needs. All of them would be checked each time, which takes tens of ms. */
function referredTo(schema: unknown, shared: Record<string, unknown>): Record<string, Schema> {
  const needed: Record<string, Schema> = {};
  const rest = [schema];
  for (let next = rest.pop(); next !== undefined; next = rest.pop()) {
    for (const [, id = ''] of JSON.stringify(next).matchAll(/"\$ref":"([^"#]+)#"/g)) {
      if (id in needed) continue;
      needed[id] = shared[id] as Schema;
      rest.push(shared[id]);
    }
  }
  return needed;
}

function once<T>(make: () => T): () => T {
  let made: { readonly value: T } | undefined;
  return () => (made ??= { value: make() }).value;
}
