import type { Upstream } from '../upstream/upstream.ts';
import type { BigPartCache } from '../cache/big-part-cache.ts';
import type { DownloadService } from '../resources/download-service.ts';
import type { UnlockService } from '../unlock/unlock-service.ts';
import type { Provider } from '../tasks/provider.ts';
import { createEvictProvider } from './evict-provider.ts';
import { createPrefetchProvider } from './prefetch-provider.ts';
import { createReleaseProvider } from './release-provider.ts';
import { createUnlockProvider } from './unlock-provider.ts';
import { createVerifyProvider } from './verify-provider.ts';

export interface ProvidersOptions {
  readonly upstream: Upstream;
  readonly cache: BigPartCache;
  readonly downloads: DownloadService;
  readonly unlocks: UnlockService;
  readonly prefetchOutageMs: number;
}

/** All providers. docs/providers.md tells how to add one. */
export function createProviders(options: ProvidersOptions): readonly Provider[] {
  return [
    createUnlockProvider(options.unlocks),
    createReleaseProvider(options),
    createPrefetchProvider(options),
    createVerifyProvider(options),
    createEvictProvider(options.cache),
  ];
}
