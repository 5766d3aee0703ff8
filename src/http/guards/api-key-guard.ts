import { createHash, timingSafeEqual } from 'node:crypto';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { LoaderError } from '../../errors.ts';

declare module 'fastify' {
  interface FastifyContextConfig {
    /** `open` routes never ask for a key, `keyed` ones always do. The others, the default, do where API_KEY is set. */
    access?: 'open' | 'keyed';
  }
}

/**
 * Wants `Authorization: Bearer <key>` on every route that is not marked `open`. Several keys are good at once, so that
 * they can be rotated. Without keys, the routes are open as the original's are, but for those marked `keyed`, which are
 * then closed.
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

/** Compares digests, of one length, and all of them, so that the time tells nothing about the keys. */
function isOneOf(digest: Buffer, digests: readonly Buffer[]): boolean {
  return digests.map((known) => timingSafeEqual(known, digest)).includes(true);
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text, 'utf8').digest();
}
