import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { fastify, type FastifyInstance } from 'fastify';
import { registerLazyCompilers } from '../../../src/http/schemas/lazy-compilers.ts';

/** Ajv and fast-json-stringify throw when they compile a type that there is not. */
const BROKEN = { type: 'sting' };
const NAME = { type: 'object', properties: { name: { type: 'string' } }, required: ['name'] };

function createApp(): FastifyInstance {
  const app = fastify();
  registerLazyCompilers(app);
  return app;
}

function serializerOf(app: FastifyInstance, schema: object): unknown {
  return app.serializerCompiler?.({ schema, method: 'GET', url: '/', httpStatus: '200' });
}

describe('the schema of a route', () => {
  it('is compiled by its first request, and not at the start', async () => {
    const app = createApp();
    app.post('/broken', { schema: { body: BROKEN } }, () => 'never');
    app.get('/good', { schema: { response: { 200: NAME, 500: BROKEN } } }, () => ({ name: 'good' }));
    await app.ready();
    assert.equal((await app.inject('/good')).body, '{"name":"good"}');
    assert.equal((await app.inject({ method: 'POST', url: '/broken', payload: {} })).statusCode, 500);
  });

  it('is compiled once for all responses that differ in their description only', async () => {
    const app = createApp();
    await app.ready();
    const first = serializerOf(app, { ...NAME, description: 'A name.' });
    assert.equal(serializerOf(app, { ...NAME, description: 'Another name.' }), first);
    assert.notEqual(serializerOf(app, { ...NAME, required: [] }), first);
  });

  it('may refer to a shared one, and lets no other field out', async () => {
    const app = createApp();
    app.addSchema({ $id: 'Name', ...NAME });
    app.get('/', { schema: { response: { 200: { $ref: 'Name#' } } } }, () => ({ name: 'a', password: 'hush' }));
    assert.equal((await app.inject('/')).body, '{"name":"a"}');
  });

  it('tells every fault of a request, and changes no value of it', async () => {
    const app = createApp();
    const body = { type: 'object', properties: { a: { type: 'string' }, b: { type: 'string', default: 'x' } } };
    app.post('/', { schema: { body: { ...body, required: ['a', 'c'] } } }, (request) => request.body);
    const bad = await app.inject({ method: 'POST', url: '/', payload: { a: 5 } });
    assert.equal(bad.statusCode, 400);
    assert.match(bad.body, /required property 'c'.*must be string/);
    const good = await app.inject({ method: 'POST', url: '/', payload: { a: '5', c: 1, d: 2 } });
    assert.deepEqual(good.json(), { a: '5', c: 1, d: 2 });
  });
});
