/** What the engine says while it loads an image (Docker Engine API, POST /images/load): one JSON object per line. */
export interface LoadReplyListener {
  /** Bytes of a layer's file that are registered, of how many. Engines may say nothing of it. */
  readonly onLayerProgress: (layerId: string, current: number) => void;
}

/** No engine writes longer lines. */
const MAX_LINE_LENGTH = 64 * 1024;

/** Reads a load's reply, in pieces as it comes. */
export class LoadReply {
  readonly #listener: LoadReplyListener;
  readonly #decoder = new TextDecoder();
  #rest = '';
  #error: string | undefined;
  #lines = 0;

  constructor(listener: LoadReplyListener) {
    this.#listener = listener;
  }

  /** @throws Error for what is no reply of an engine */
  take(bytes: Uint8Array): void {
    const lines = (this.#rest + this.#decoder.decode(bytes, { stream: true })).split('\n');
    this.#rest = lines.pop() ?? '';
    for (const line of [...lines, this.#rest]) {
      if (line.length > MAX_LINE_LENGTH) throw new Error('it has a line without an end');
    }
    for (const line of lines) this.#takeLine(line);
  }

  /** To be called after the last byte. @throws Error for a reply that breaks off */
  end(): void {
    this.#takeLine(this.#rest);
    this.#rest = '';
    if (this.#lines === 0) throw new Error('it is empty');
  }

  /** What the engine could not do, in its words. */
  get error(): string | undefined {
    return this.#error;
  }

  #takeLine(line: string): void {
    if (line.trim() === '') return;
    this.#lines++;
    const message = parseLine(line);
    const detail = asRecord(message['errorDetail']);
    if (detail !== undefined || typeof message['error'] === 'string') {
      this.#error ??= [detail?.['message'], message['error'], 'no reason given'].find(
        (text) => typeof text === 'string',
      );
      return;
    }
    const current = asRecord(message['progressDetail'])?.['current'];
    if (typeof message['id'] === 'string' && typeof current === 'number') {
      this.#listener.onLayerProgress(message['id'], current);
    }
  }
}

function parseLine(line: string): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    // A line that is cut is no JSON either.
  }
  const record = asRecord(value);
  if (record === undefined) throw new Error('it has a line that is no JSON object, or is cut');
  return record;
}

function asRecord(value: unknown): Readonly<Record<string, unknown>> | undefined {
  const isRecord = typeof value === 'object' && value !== null && !Array.isArray(value);
  return isRecord ? (value as Record<string, unknown>) : undefined;
}
