/** Above so many bytes in all queues together, each queue is kept as short as possible. */
const MANY = 8 * 1024 * 1024;

/**
 * The number of bytes that wait in the queue of one stream. Dispose of it with the queue.
 *
 * A queue of some hundred KiB makes a stream faster. A hundred of them are a heap of small pieces, and the holes between
 * those of them that stay never go back to the system; so queues are short where there are many.
 */
export class QueuedBytes implements Disposable {
  /** Of the whole process, as its heap is one. */
  static #total = 0;
  #length = 0;

  get length(): number {
    return this.#length;
  }

  /** Whether the queues of all streams hold so much that this one should be short. */
  get areOfMany(): boolean {
    return QueuedBytes.#total > MANY;
  }

  add(bytes: number): void {
    this.#length += bytes;
    QueuedBytes.#total += bytes;
  }

  /** After the disposal it does nothing. */
  remove(bytes: number): void {
    const removed = Math.min(bytes, this.#length);
    this.#length -= removed;
    QueuedBytes.#total -= removed;
  }

  [Symbol.dispose](): void {
    this.remove(this.#length);
  }
}
