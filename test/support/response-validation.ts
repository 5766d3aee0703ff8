import { Ajv2020, type AnySchemaObject, type ValidateFunction } from 'ajv/dist/2020.js';
import type { FastifyInstance } from 'fastify';

/**
 * Lets every response of `app` that does not fit the schema of its route fail with 500, a field that the schema does not
 * have included. Fastify itself only drops such fields. Call it before the app listens. Returns what did not fit.
 */
export function validateResponses(app: FastifyInstance): readonly string[] {
  const misfits: string[] = [];
  const ajv = new Ajv2020({ strict: false, validateFormats: false });
  for (const schema of Object.values(app.getSchemas())) ajv.addSchema(closed(schema) as AnySchemaObject);
  // By their text: each route has objects of its own for the failures that all routes share.
  const validators = new Map<string, ValidateFunction>();
  const validatorOf = (response: AnySchemaObject): ValidateFunction => {
    const key = JSON.stringify(response);
    const validator = validators.get(key) ?? ajv.compile(closed(response) as AnySchemaObject);
    validators.set(key, validator);
    return validator;
  };
  app.addHook('preSerialization', async (request, reply, payload) => {
    const { method, schema, url = request.url } = request.routeOptions;
    const responses = (schema?.response ?? {}) as Readonly<Record<string, AnySchemaObject>>;
    const isDescribed = schema !== undefined && 'operationId' in schema;
    const response = responses[String(reply.statusCode)];
    if (!isDescribed) return Promise.resolve(payload);
    const place = `${String(method)} ${url} ${reply.statusCode}`;
    // Only what is sent counts: undefined fields are not.
    const sent: unknown = JSON.parse(JSON.stringify(payload));
    if (response === undefined) misfits.push(`${place}: the status is not in the schema`);
    else {
      const isFit = validatorOf(response);
      if (isFit(sent)) return Promise.resolve(payload);
      misfits.push(`${place}: ${ajv.errorsText(isFit.errors)}`);
    }
    throw new Error(misfits.at(-1));
  });
  return misfits;
}

/** `schema` where every object has only the fields that it names. */
function closed(schema: unknown): unknown {
  if (Array.isArray(schema)) return (schema as unknown[]).map(closed);
  if (typeof schema !== 'object' || schema === null) return schema;
  const entries = Object.entries(schema).map(([key, value]: [string, unknown]) => [
    key,
    key === 'examples' ? value : closed(value),
  ]);
  const copy = Object.fromEntries(entries) as Record<string, unknown>;
  return 'properties' in copy && !('additionalProperties' in copy) ? { ...copy, additionalProperties: false } : copy;
}
