import { asRecord, parseJson } from '../json.ts';

/** How far the engine is with a layer. Some engines do not report it. */
export interface LayerProgress {
  readonly layerId: string;
  /** Bytes of the layer's file that are registered. */
  readonly current: number;
}

/** No engine writes longer lines. */
const MAX_LINE_LENGTH = 64 * 1024;

/** Reads the reply to a load, piece by piece: one JSON object a line (Docker Engine API, POST /images/load). */
export class LoadReply {
  readonly #decoder = new TextDecoder();
  #rest = '';
  #error: string | undefined;
  #lines = 0;

  /** Returns what the next bytes say about layers. @throws Error for bytes that are no reply of an engine */
  take(bytes: Uint8Array): LayerProgress[] {
    const lines = (this.#rest + this.#decoder.decode(bytes, { stream: true })).split('\n');
    this.#rest = lines.pop() ?? '';
    for (const line of [...lines, this.#rest]) {
      if (line.length > MAX_LINE_LENGTH) throw new Error('the reply has a line without an end');
    }
    return lines.flatMap((line) => this.#takeLine(line));
  }

  /**
   * Does the same for a last line without a line break. Call it after the last byte.
   *
   * @throws Error for a reply that breaks off
   */
  end(): LayerProgress[] {
    const told = this.#takeLine(this.#rest);
    this.#rest = '';
    if (this.#lines === 0) throw new Error('the reply is empty');
    return told;
  }

  /** What the engine could not do, in its words. */
  get error(): string | undefined {
    return this.#error;
  }

  #takeLine(line: string): LayerProgress[] {
    if (line.trim() === '') return [];
    this.#lines++;
    const message = asRecord(parseJson(line));
    if (message === undefined) throw new Error('the reply has a line that is no JSON object, or is cut');
    const detail = asRecord(message['errorDetail']);
    if (detail !== undefined || typeof message['error'] === 'string') {
      this.#error ??= [detail?.['message'], message['error'], 'no reason given'].find(
        (text) => typeof text === 'string',
      );
      return [];
    }
    const layerId = message['id'];
    const current = asRecord(message['progressDetail'])?.['current'];
    return typeof layerId === 'string' && typeof current === 'number' ? [{ layerId, current }] : [];
  }
}
