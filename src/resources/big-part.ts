import type { Patience } from '../async/outage.ts';
import type { WorkMemory } from '../files/work-memory.ts';
import type { Logger } from '../log/logger.ts';
import type { Manifest } from '../manifest/manifest.ts';
import type { Session } from '../upstream/upstream.ts';
import type { SmallPart } from './envelope-parts.ts';
import type { PlaintextRange, PlaintextReaderOptions } from './plaintext-reader.ts';
import type { TransferSource } from './transfer-source.ts';

/** The big part of an envelope at one of its two places. Dispose of it, whether it was read or not. */
export interface BigPart extends AsyncDisposable {
  /** Bytes. */
  readonly length: number;
  /** The source of a copy for the cache; undefined where the cache has one. */
  readonly source: TransferSource | undefined;
  /** The manifest of its version that was accepted; undefined where the resource has none. */
  readonly manifest: Manifest | undefined;
  /** Bytes of the plaintext. @throws LoaderError `envelope_invalid` for another key, as far as the end is read here */
  plaintextLength(small: SmallPart): number;
  /** Yields a range of the plaintext, once, after key and end were proven; pieces belong to the consumer. */
  plaintext(small: SmallPart, range: PlaintextRange): AsyncGenerator<Buffer, void, undefined>;
}

/** What reading big parts takes. */
export interface BigPartReading extends Pick<PlaintextReaderOptions, 'budget' | 'pool'> {
  readonly session: Pick<Session, 'api' | 'cdn' | 'resourceAesKey'>;
  /** Of what is read without the cache, together with all transfers. */
  readonly memory: WorkMemory;
  readonly patience: Patience;
  readonly signal: AbortSignal;
  readonly logger: Logger;
}
