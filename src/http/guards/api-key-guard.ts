import { createHash, timingSafeEqual } from 'node:crypto';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { LoaderError } from '../../errors.ts';

declare module 'fastify' {
  interface FastifyContextConfig {
    /** `open` routes never need a key, and `keyed` routes always do. Other routes need one where API_KEY is set. */
    access?: 'open' | 'keyed';
  }
}

/**
 * Requires `Authorization: Bearer <key>` on every route that is not marked `open`. Several keys are valid at a time, so
 * that they can be rotated. Without keys, `keyed` routes are closed, and all others are open, as those of the original.
 */
export function registerApiKeyGuard(app: FastifyInstance, apiKeys: readonly string[]): void {
  const digests = apiKeys.map(sha256);
  app.addHook('onRequest', async (request) => {
    const { access } = request.routeOptions.config;
    if (access === 'open' || request.is404 || (access === undefined && digests.length === 0)) return;
    const key = bearerKey(request);
    const isKnown = key !== undefined && isOneOf(sha256(key), digests);
    if (!isKnown) throw new LoaderError('forbidden', 'Forbidden');
    return Promise.resolve();
  });
}

function bearerKey(request: FastifyRequest): string | undefined {
  return /^Bearer +(\S+) *$/i.exec(request.headers.authorization ?? '')?.[1];
}

/** Compares all digests, which have one length, so that the time tells nothing about the keys. */
function isOneOf(digest: Buffer, digests: readonly Buffer[]): boolean {
  return digests.map((known) => timingSafeEqual(known, digest)).includes(true);
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text, 'utf8').digest();
}
