import type { Upstream } from '../upstream/upstream.ts';
import { asLoaderError, hasErrorCode, type ErrorCode } from '../errors.ts';
import type { DownloadService } from '../resources/download-service.ts';
import { resourceKey, type ResourceName } from '../resource-name.ts';
import { defineProvider, PartialResultError, type Provider, type TaskContext } from '../tasks/provider.ts';
import { forEachLimit } from '../async/for-each-limit.ts';
import type { JsonValue } from '../json.ts';

export interface PrefetchProviderOptions {
  readonly upstream: Pick<Upstream, 'isAuthenticated' | 'authenticated' | 'currentSession'>;
  readonly downloads: Pick<DownloadService, 'planPrefetch'>;
}

interface PrefetchParameters {
  readonly resources: readonly { readonly folder: string; readonly filename: string }[];
}

/** One resource on its way into the cache. */
interface Prefetch {
  readonly resource: ResourceName;
  status: 'planned' | 'fetched' | 'cached' | 'failed';
  /** Of the big part; those that are in the cache, and all. */
  bytesStored: number;
  bytesTotal: number;
  error: string | null;
  code: ErrorCode | null;
}

const MAX_RESOURCES = 1_000;
/** Resources that are asked for, and transfers that run, at once; a transfer has several connections. */
const PARALLEL_PLANS = 8;
const PARALLEL_TRANSFERS = 3;

/** Brings resources into the cache, so that their next load finds them there. */
export function createPrefetchProvider({ upstream, downloads }: PrefetchProviderOptions): Provider {
  return defineProvider<PrefetchParameters>({
    name: 'prefetch',
    schema: {
      type: 'object',
      required: ['resources'],
      additionalProperties: false,
      properties: {
        resources: {
          type: 'array',
          minItems: 1,
          maxItems: MAX_RESOURCES,
          items: {
            type: 'object',
            required: ['folder', 'filename'],
            additionalProperties: false,
            properties: {
              folder: { type: 'string', format: 'resource-folder' },
              filename: { type: 'string', format: 'resource-filename' },
            },
          },
        },
      },
    },
    isRepeatable: true,
    run: async ({ resources }, context) => {
      if (context.isUnattended && !upstream.isAuthenticated) {
        context.log('info', 'Waiting until somebody logs in: POST /login');
        await upstream.authenticated(context.signal);
      }
      upstream.currentSession();
      const names = new Map(
        resources.map(({ folder, filename }) => {
          const name = { folder, name: filename };
          return [resourceKey(name), name];
        }),
      );
      return await new PrefetchRun([...names.values()], downloads, context).run();
    },
  });
}

class PrefetchRun {
  readonly #downloads: PrefetchProviderOptions['downloads'];
  readonly #context: TaskContext;
  readonly #prefetches: readonly Prefetch[];

  constructor(
    resources: readonly ResourceName[],
    downloads: PrefetchProviderOptions['downloads'],
    context: TaskContext,
  ) {
    this.#downloads = downloads;
    this.#context = context;
    const unknown = { status: 'planned', bytesStored: 0, bytesTotal: 0, error: null, code: null } as const;
    this.#prefetches = resources.map((resource) => ({ resource, ...unknown }));
  }

  async run(): Promise<JsonValue> {
    // First how much there is, so that the progress is one of bytes from the beginning.
    await this.#forEach(PARALLEL_PLANS, async (prefetch) => {
      const plan = await this.#downloads.planPrefetch(prefetch.resource, this.#context.signal);
      prefetch.bytesTotal = plan.length;
      if (plan.isCached) this.#end(prefetch, 'cached');
    });
    this.#report();
    await this.#forEach(PARALLEL_TRANSFERS, (prefetch) => this.#fetch(prefetch));
    return this.#result();
  }

  /** Calls `work` for all that is still to be done; what fails is noted and holds up nothing else. */
  async #forEach(count: number, work: (prefetch: Prefetch) => Promise<void>): Promise<void> {
    const { signal } = this.#context;
    const planned = this.#prefetches.filter(({ status }) => status === 'planned');
    await forEachLimit(planned, count, async (prefetch) => {
      signal.throwIfAborted();
      try {
        await work(prefetch);
      } catch (error) {
        signal.throwIfAborted();
        this.#fail(prefetch, error);
      }
    });
  }

  async #fetch(prefetch: Prefetch): Promise<void> {
    try {
      await this.#fetchPresent(prefetch);
    } catch (error) {
      if (!hasErrorCode(error, 'cdn_object_changed')) throw error;
      await this.#fetchPresent(prefetch); // Its successor, once.
    }
    this.#end(prefetch, 'fetched');
  }

  /** The version that is there by now: others may have had their turn for long. */
  async #fetchPresent(prefetch: Prefetch): Promise<void> {
    const { signal } = this.#context;
    const plan = await this.#downloads.planPrefetch(prefetch.resource, signal);
    prefetch.bytesTotal = plan.length;
    await plan.run(signal, (bytesStored) => {
      prefetch.bytesStored = bytesStored;
      this.#report();
    });
  }

  #end(prefetch: Prefetch, status: 'fetched' | 'cached'): void {
    prefetch.status = status;
    prefetch.bytesStored = prefetch.bytesTotal;
    this.#context.log('info', `${resourceKey(prefetch.resource)}: ${status}, ${prefetch.bytesTotal} bytes`);
    this.#report();
  }

  #fail(prefetch: Prefetch, error: unknown): void {
    const failure = asLoaderError(error);
    prefetch.status = 'failed';
    prefetch.code = failure.code;
    prefetch.error = failure.message;
    prefetch.bytesTotal = prefetch.bytesStored; // There is nothing more to come of it.
    this.#context.log('warn', `${resourceKey(prefetch.resource)}: ${prefetch.error}`);
    this.#report();
  }

  /** Of what was not in the cache already. */
  #report(): void {
    let bytesDone = 0;
    let bytesTotal = 0;
    for (const prefetch of this.#prefetches) {
      if (prefetch.status === 'cached') continue;
      bytesDone += prefetch.bytesStored;
      bytesTotal += prefetch.bytesTotal;
    }
    this.#context.report({ bytesDone, bytesTotal });
  }

  #result(): JsonValue {
    const result = {
      resources: this.#prefetches.map(({ resource, status, bytesTotal, error, code }) => ({
        folder: resource.folder,
        filename: resource.name,
        status,
        bytes: status === 'failed' ? 0 : bytesTotal,
        error,
        code,
      })),
    };
    const failed = this.#prefetches.filter(({ status }) => status === 'failed').length;
    if (failed === 0) return result;
    throw new PartialResultError(
      'prefetch_incomplete',
      `${failed} of ${this.#prefetches.length} resources could not be fetched.`,
      result,
    );
  }
}
