/** What has passed over a link, in a memory that the link's thread and its user share. Lengths are in bytes. */
export class LinkCounts {
  readonly memory: SharedArrayBuffer;
  readonly #values: Float64Array;

  /** Without a memory, one of zeros is made. */
  constructor(memory = new SharedArrayBuffer(NAMES.length * Float64Array.BYTES_PER_ELEMENT)) {
    this.memory = memory;
    this.#values = new Float64Array(memory);
  }

  /** Connections that clients have made. */
  get connections(): number {
    return this.#get('connections');
  }

  /** Connections of clients that are open. */
  get openConnections(): number {
    return this.#get('openConnections');
  }

  /** What the targets have received. */
  get bytesUp(): number {
    return this.#get('bytesUp');
  }

  /** What the clients have received. */
  get bytesDown(): number {
    return this.#get('bytesDown');
  }

  get losses(): number {
    return this.#get('losses');
  }

  /** TLS handshakes, resumed ones included, of targets that are behind TLS. */
  get handshakes(): number {
    return this.#get('handshakes');
  }

  /** Those of the handshakes that resumed an earlier session. */
  get resumedHandshakes(): number {
    return this.#get('resumedHandshakes');
  }

  /** Those of the handshakes that chose HTTP/2. */
  get http2Handshakes(): number {
    return this.#get('http2Handshakes');
  }

  add(name: LinkCountName, amount: number): void {
    const index = NAMES.indexOf(name);
    this.#values[index] = (this.#values[index] ?? 0) + amount;
  }

  /** Makes all zero but `openConnections`. */
  reset(): void {
    for (const [index, name] of NAMES.entries()) if (name !== 'openConnections') this.#values[index] = 0;
  }

  #get(name: LinkCountName): number {
    return this.#values[NAMES.indexOf(name)] ?? 0;
  }
}

const NAMES = [
  'connections',
  'openConnections',
  'bytesUp',
  'bytesDown',
  'losses',
  'handshakes',
  'resumedHandshakes',
  'http2Handshakes',
] as const;
export type LinkCountName = (typeof NAMES)[number];
