import { Readable } from 'node:stream';
import { Pool } from 'undici';

/** What the engine said before an error, as much of it as the error tells. */
const KEPT_LINES = 10;

export interface EngineAnswer {
  readonly status: number;
  readonly body: Buffer;
}

/** A tar as it is, or anything else as JSON. */
export type EngineBody = Buffer | Readable | Readonly<Record<string, unknown>>;

/** Requests to the socket of a Docker engine. The command `docker` may not be installed. */
export class EngineSocket {
  readonly #pool: Pool;

  /** `host` as in DOCKER_HOST, with a Unix socket. */
  constructor(host: string) {
    if (!host.startsWith('unix://')) throw new Error(`no Unix socket: ${host}`);
    this.#pool = new Pool('http://docker', { socketPath: host.slice('unix://'.length) });
  }

  async close(): Promise<void> {
    await this.#pool.close();
  }

  async ask(method: 'GET' | 'POST' | 'DELETE', path: string, body?: EngineBody): Promise<EngineAnswer> {
    const isTar = Buffer.isBuffer(body) || body instanceof Readable;
    const response = await this.#pool.request({
      method,
      path,
      headers: body === undefined ? {} : { 'content-type': isTar ? 'application/x-tar' : 'application/json' },
      body: body === undefined ? null : isTar ? body : JSON.stringify(body),
    });
    return { status: response.statusCode, body: Buffer.from(await response.body.arrayBuffer()) };
  }

  /** @throws Error with the engine's words, unless it did what it was asked for */
  async insist(method: 'GET' | 'POST' | 'DELETE', path: string, body?: EngineBody): Promise<Buffer> {
    return insistOn(await this.ask(method, path, body));
  }

  /**
   * For requests that the engine answers in lines of JSON while it works: they begin with status 200, and a failure is in
   * one of the lines. Returns what it said.
   */
  async insistOnLines(path: string, body: EngineBody): Promise<string[]> {
    const text = (await this.insist('POST', path, body)).toString();
    const said: string[] = [];
    for (const line of text.split('\n').filter((line) => line.trim() !== '')) {
      const { stream = '', error } = JSON.parse(line) as { stream?: string; error?: string };
      if (error !== undefined) throw new Error([...said.slice(-KEPT_LINES), error].join('\n'));
      if (stream.trim() !== '') said.push(...stream.trim().split('\n'));
    }
    return said;
  }
}

/** @throws Error with the engine's words, unless it did what it was asked for */
export function insistOn({ status, body }: EngineAnswer): Buffer {
  if (status >= 300) throw new Error(`the engine answered ${status}: ${body.toString().trim()}`);
  return body;
}
