import { asRecord, parseJson } from '../json.ts';

/** Hears what the engine says while it loads an image. */
export interface LoadReplyListener {
  /** `current` is the bytes of a layer's file that are registered. Some engines tell nothing of it. */
  readonly onLayerProgress: (layerId: string, current: number) => void;
}

/** No engine writes longer lines. */
const MAX_LINE_LENGTH = 64 * 1024;

/** Reads the reply to a load, piece by piece: one JSON object a line (Docker Engine API, POST /images/load). */
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
      if (line.length > MAX_LINE_LENGTH) throw new Error('the reply has a line without an end');
    }
    for (const line of lines) this.#takeLine(line);
  }

  /** To be called after the last byte. @throws Error for a reply that breaks off */
  end(): void {
    this.#takeLine(this.#rest);
    this.#rest = '';
    if (this.#lines === 0) throw new Error('the reply is empty');
  }

  /** What the engine could not do, in its words. */
  get error(): string | undefined {
    return this.#error;
  }

  #takeLine(line: string): void {
    if (line.trim() === '') return;
    this.#lines++;
    const message = asRecord(parseJson(line));
    if (message === undefined) throw new Error('the reply has a line that is no JSON object, or is cut');
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
