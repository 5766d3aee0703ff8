import type { Static } from 'typebox';
import type { Patience } from '../async/outage.ts';
import { asLoaderError, hasErrorCode, type LoaderError } from '../errors.ts';
import type { Prefetch } from '../resources/prefetch.ts';
import { RESOURCE_FORMATS, resourceKey, type ResourceName } from '../resource-name.ts';
import { defineProvider, PartialResultError, type Provider, type TaskContext } from '../tasks/provider.ts';
import { untilLoggedIn, type LoginGate } from './until-logged-in.ts';
import { forEachLimit } from '../async/for-each-limit.ts';
import { ERROR_CODE, nullable, textEnum, Type } from '../json-schemas.ts';

export interface PrefetchProviderOptions {
  readonly upstream: LoginGate;
  readonly downloads: {
    prefetch(resource: ResourceName, signal: AbortSignal, patience: Patience): Promise<WantedResource>;
  };
  /** How long a prefetch waits for an API or a CDN that fails, in ms. */
  readonly prefetchOutageMs: number;
}

/** What the provider needs of a Prefetch. */
type WantedResource = Pick<Prefetch, 'isCached' | 'length' | 'run'>;

/** What becomes of one resource. */
interface Outcome {
  readonly resource: ResourceName;
  /** Undefined until the resource was asked for, and where the cache has it. */
  prefetch: WantedResource | undefined;
  status: PrefetchResult['resources'][number]['status'];
  /** Bytes of the big part that are in the cache, and all of them. */
  bytesStored: number;
  bytesTotal: number;
  failure: LoaderError | undefined;
  /** Why it does not go on at present, in a sentence for people. */
  waitingFor: string | undefined;
}

const MAX_RESOURCES = 1_000;
/** Resources that could not be fetched and are named in the error. */
const TOLD_FAILURES = 3;
/** Resources that are asked for, and transfers that run, at a time. A transfer has several connections. */
const PARALLEL_QUESTIONS = 8;
const PARALLEL_TRANSFERS = 3;

const PARAMETERS = Type.Object(
  {
    resources: Type.Array(
      Type.Object(
        {
          folder: Type.String({ format: 'resource-folder', examples: ['models'] }),
          filename: Type.String({ format: 'resource-filename', examples: ['detector.onnx'] }),
        },
        { additionalProperties: false },
      ),
      { minItems: 1, maxItems: MAX_RESOURCES, description: 'The resources to bring into the cache.' },
    ),
  },
  { additionalProperties: false },
);

const RESULT = Type.Object({
  resources: Type.Array(
    Type.Object({
      folder: Type.String(),
      filename: Type.String(),
      status: textEnum(['waiting', 'fetched', 'cached', 'failed']),
      bytes: Type.Integer({ description: 'Length of the big part; 0 when it failed.' }),
      error: nullable(Type.String()),
      code: nullable(ERROR_CODE),
    }),
  ),
});

type PrefetchResult = Static<typeof RESULT>;

/** Brings resources into the cache, so that their next load finds them there. */
export function createPrefetchProvider({ upstream, downloads, prefetchOutageMs }: PrefetchProviderOptions): Provider {
  return defineProvider({
    name: 'prefetch',
    parameters: PARAMETERS,
    result: RESULT,
    formats: RESOURCE_FORMATS,
    isRepeatable: true,
    run: async ({ resources }, context) => {
      await untilLoggedIn(upstream, context);
      const names = new Map(
        resources.map(({ folder, filename }) => {
          const name = { folder, name: filename };
          return [resourceKey(name), name];
        }),
      );
      return await new PrefetchRun([...names.values()], { downloads, prefetchOutageMs }, context).run();
    },
  });
}

/** One run of the provider. Each resource is asked for once, and again only when it has changed since. */
class PrefetchRun {
  readonly #options: Pick<PrefetchProviderOptions, 'downloads' | 'prefetchOutageMs'>;
  readonly #context: TaskContext;
  readonly #outcomes: readonly Outcome[];

  constructor(
    resources: readonly ResourceName[],
    options: Pick<PrefetchProviderOptions, 'downloads' | 'prefetchOutageMs'>,
    context: TaskContext,
  ) {
    this.#options = options;
    this.#context = context;
    const waiting = {
      prefetch: undefined,
      status: 'waiting',
      bytesStored: 0,
      bytesTotal: 0,
      failure: undefined,
      waitingFor: undefined,
    } as const;
    this.#outcomes = resources.map((resource) => ({ resource, ...waiting }));
  }

  async run(): Promise<PrefetchResult> {
    // All resources are asked for before the first one is fetched: the progress has the total from the beginning.
    await forEachLimit(this.#outcomes, PARALLEL_QUESTIONS, (outcome) => this.#ask(outcome));
    this.#report();
    await forEachLimit(this.#outcomes, PARALLEL_TRANSFERS, (outcome) => this.#fetch(outcome));
    return this.#result();
  }

  /** @throws the reason of the signal. Every other failure is noted, and does not stop the other resources. */
  async #ask(outcome: Outcome): Promise<void> {
    try {
      const prefetch = await this.#prefetch(outcome);
      if (prefetch.isCached) this.#end(outcome, 'cached');
      else outcome.prefetch = prefetch;
    } catch (error) {
      this.#fail(outcome, error);
    }
  }

  /** @throws as `#ask` */
  async #fetch(outcome: Outcome): Promise<void> {
    if (outcome.prefetch === undefined) return;
    try {
      await this.#storeLatest(outcome, outcome.prefetch);
      this.#end(outcome, 'fetched');
    } catch (error) {
      this.#fail(outcome, error);
    }
  }

  /** Stores the version that was asked for, or the next one if that was replaced since. */
  async #storeLatest(outcome: Outcome, prefetch: WantedResource): Promise<void> {
    try {
      await this.#store(outcome, prefetch);
    } catch (error) {
      if (!hasErrorCode(error, 'cdn_object_changed')) throw error;
      await this.#store(outcome, await this.#prefetch(outcome));
    }
  }

  async #prefetch(outcome: Outcome): Promise<WantedResource> {
    const { signal } = this.#context;
    signal.throwIfAborted();
    const { downloads, prefetchOutageMs } = this.#options;
    const prefetch = await downloads.prefetch(outcome.resource, signal, {
      limitMs: prefetchOutageMs,
      setting: 'PREFETCH_OUTAGE_MS',
      onWait: (failure) => this.#wait(outcome, failure),
    });
    outcome.bytesTotal = prefetch.length;
    return prefetch;
  }

  async #store(outcome: Outcome, prefetch: WantedResource): Promise<void> {
    const { signal } = this.#context;
    signal.throwIfAborted();
    for await (const { bytes, waitsFor } of prefetch.run(signal)) {
      outcome.bytesStored = bytes;
      this.#wait(outcome, waitsFor);
      this.#report();
    }
  }

  /** Notes what a resource waits for, or that it goes on. The log has a line when that begins and when it ends. */
  #wait(outcome: Outcome, failure: LoaderError | undefined): void {
    const name = resourceKey(outcome.resource);
    if (failure !== undefined && outcome.waitingFor === undefined) {
      this.#context.log('warn', `${name}: ${failure.message} It is tried again.`);
    } else if (failure === undefined && outcome.waitingFor !== undefined) {
      this.#context.log('info', `${name}: it goes on`);
    }
    const waitingFor = failure && `${name}: ${failure.message}`;
    if (waitingFor === outcome.waitingFor) return;
    outcome.waitingFor = waitingFor;
    this.#report();
  }

  #end(outcome: Outcome, status: 'fetched' | 'cached'): void {
    outcome.status = status;
    outcome.waitingFor = undefined;
    outcome.bytesStored = outcome.bytesTotal;
    this.#context.log('info', `${resourceKey(outcome.resource)}: ${status}, ${outcome.bytesTotal} bytes`);
    this.#report();
  }

  #fail(outcome: Outcome, error: unknown): void {
    this.#context.signal.throwIfAborted();
    outcome.status = 'failed';
    outcome.waitingFor = undefined;
    outcome.failure = asLoaderError(error);
    outcome.bytesTotal = outcome.bytesStored; // No more bytes will come.
    this.#context.log('warn', `${resourceKey(outcome.resource)}: ${outcome.failure.message}`);
    this.#report();
  }

  /** Reports the bytes of all resources that were not in the cache, and what one of them waits for. */
  #report(): void {
    let bytesDone = 0;
    let bytesTotal = 0;
    for (const outcome of this.#outcomes) {
      if (outcome.status === 'cached') continue;
      bytesDone += outcome.bytesStored;
      bytesTotal += outcome.bytesTotal;
    }
    const waitingFor = this.#outcomes.find((outcome) => outcome.waitingFor !== undefined)?.waitingFor ?? null;
    this.#context.report({ bytesDone, bytesTotal, waitingFor });
  }

  #result(): PrefetchResult {
    const result = {
      resources: this.#outcomes.map(({ resource, status, bytesTotal, failure }) => ({
        folder: resource.folder,
        filename: resource.name,
        status,
        bytes: status === 'failed' ? 0 : bytesTotal,
        error: failure?.message ?? null,
        code: failure?.code ?? null,
      })),
    };
    const failed = result.resources.filter(({ status }) => status === 'failed');
    if (failed.length === 0) return result;
    const told = failed.slice(0, TOLD_FAILURES).map(({ folder, filename, error }) => `${folder}/${filename}: ${error}`);
    const others = failed.length > told.length ? ` And ${failed.length - told.length} others: see the result.` : '';
    const message = `${failed.length} of ${result.resources.length} could not be fetched. ${told.join(' ')}${others}`;
    throw new PartialResultError('prefetch_incomplete', message, result);
  }
}
