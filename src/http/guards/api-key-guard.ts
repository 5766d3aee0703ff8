import { createHash, timingSafeEqual } from 'node:crypto';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { LoaderError } from '../../errors.ts';
import type { ChangingFile } from '../../files/changing-file.ts';

declare module 'fastify' {
  interface FastifyContextConfig {
    /** `open` routes never need a key, and `keyed` routes always do. Other routes need one where API_KEY is set. */
    access?: 'open' | 'keyed';
  }
}

/**
 * Requires `Authorization: Bearer <key>` on every route that is not marked `open`. Several keys are valid at a time, so
 * that they can be rotated, without a restart where they stand in a file. Without keys, `keyed` routes are closed, and all others are open, as those of the original.
 */
export function registerApiKeyGuard(
  app: FastifyInstance,
  apiKeys: Pick<ChangingFile<readonly string[]>, 'value'>,
): void {
  app.addHook('onRequest', async (request) => {
    const { access } = request.routeOptions.config;
    if (access === 'open' || request.is404) return;
    const known = await apiKeys.value();
    if (access === undefined && known.length === 0) return;
    const reason = refusalOf(bearerKey(request), known);
    if (reason !== undefined) throw new LoaderError('forbidden', `Forbidden: ${reason}`);
  });
}

/** Says what to do; undefined for a key that is known. */
function refusalOf(key: string | undefined, known: readonly string[]): string | undefined {
  if (known.length === 0) return 'this route needs an API key, and the Loader knows none: set API_KEY_FILE.';
  if (key === undefined) return 'send the header Authorization: Bearer with a key of API_KEY.';
  return isOneOf(key, known) ? undefined : 'the key in the header Authorization is none of API_KEY.';
}

function bearerKey(request: FastifyRequest): string | undefined {
  return /^Bearer +(\S+) *$/i.exec(request.headers.authorization ?? '')?.[1];
}

/** Compares the digests of all keys, which have one length, so that the time tells nothing about the keys. */
function isOneOf(key: string, known: readonly string[]): boolean {
  const digest = sha256(key);
  return known.map((other) => timingSafeEqual(sha256(other), digest)).includes(true);
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text, 'utf8').digest();
}
