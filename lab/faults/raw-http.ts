import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/** A connection on which a test says exactly what it wants, also what no HTTP client would. */
export class RawConnection {
  readonly socket: Socket;
  #received = Buffer.alloc(0);
  #closed = false;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.setMaxListeners(0); // Each send that waits adds two.
    socket.on('data', (chunk: Buffer) => {
      this.#received = Buffer.concat([this.#received, chunk]);
    });
    socket.on('error', () => undefined);
    socket.on('close', () => {
      this.#closed = true;
    });
  }

  static async open(port: number): Promise<RawConnection> {
    const socket = connect(port, '127.0.0.1');
    await new Promise((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    return new RawConnection(socket);
  }

  get isClosed(): boolean {
    return this.#closed;
  }

  get received(): string {
    return this.#received.toString('latin1');
  }

  get receivedLength(): number {
    return this.#received.length;
  }

  async send(data: string | Uint8Array): Promise<void> {
    if (this.socket.write(data)) return;
    await Promise.race([
      new Promise((resolve) => this.socket.once('drain', resolve)),
      new Promise((resolve) => this.socket.once('close', resolve)),
    ]);
  }

  /** Waits for the status line and a JSON body. */
  async answer(timeoutMs = 5000): Promise<{ status: number; body: { detail?: unknown; code?: string } }> {
    const deadline = Date.now() + timeoutMs;
    for (;;) {
      const match = /^HTTP\/1\.1 (\d{3}) [^]*?\r\n\r\n([^]*)$/.exec(this.received);
      const length = /content-length: (\d+)/i.exec(this.received)?.[1];
      if (match?.[2] !== undefined && length !== undefined && match[2].length >= Number(length)) {
        return { status: Number(match[1]), body: JSON.parse(match[2].slice(0, Number(length))) as { code?: string } };
      }
      if (Date.now() > deadline || this.#closed) throw new Error(`no whole answer: ${JSON.stringify(this.received)}`);
      await sleep(10);
    }
  }

  close(): void {
    this.socket.destroy();
  }
}

export const BOUNDARY = 'test-boundary';

/** The beginning of a multipart part. */
export function partHead(name: string, filename?: string): string {
  const file = filename === undefined ? '' : `; filename="${filename}"\r\nContent-Type: application/octet-stream`;
  return `--${BOUNDARY}\r\nContent-Disposition: form-data; name="${name}"${file}\r\n\r\n`;
}

export const FORM_END = `\r\n--${BOUNDARY}--\r\n`;

/** The head of a multipart POST. */
export function formHead(route: string, contentLength: number | 'chunked'): string {
  const length = contentLength === 'chunked' ? 'Transfer-Encoding: chunked' : `Content-Length: ${contentLength}`;
  return `POST ${route} HTTP/1.1\r\nHost: loader\r\nContent-Type: multipart/form-data; boundary=${BOUNDARY}\r\n${length}\r\n\r\n`;
}
