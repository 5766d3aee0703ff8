import type { ApiClient } from '../api-client/api-client.ts';
import type { BigPartCache } from '../cache/big-part-cache.ts';
import type { DownloadService } from '../resources/download-service.ts';
import type { UnlockService } from '../unlock/unlock-service.ts';
import type { Provider } from './provider.ts';
import { createEvictProvider } from './providers/evict-provider.ts';
import { createPrefetchProvider } from './providers/prefetch-provider.ts';
import { createUnlockProvider } from './providers/unlock-provider.ts';
import { createVerifyProvider } from './providers/verify-provider.ts';

export interface ProvidersOptions {
  readonly apiClient: ApiClient;
  readonly cache: BigPartCache;
  readonly downloads: DownloadService;
  readonly unlocks: UnlockService;
}

/** All providers. To add one is told in docs/providers.md. */
export function createProviders(options: ProvidersOptions): readonly Provider[] {
  return [
    createUnlockProvider(options.unlocks),
    createPrefetchProvider(options),
    createVerifyProvider(options),
    createEvictProvider(options.cache),
  ];
}
