interface Entry {
  readonly dueMs: number;
  /** Entries of the same time run in the order in which they came. */
  readonly order: number;
  readonly work: (dueMs: number) => void;
}

/**
 * Work by the time at which it is due. It gets that time and not the present one, so that what follows from it does not
 * drift when a timer is late. A caller makes the time pass, a test in no time at all.
 */
export class Agenda {
  /** A binary heap. */
  readonly #entries: Entry[] = [];
  readonly #onSooner: () => void;
  #count = 0;

  /** `onSooner` is called when the first due time has become an earlier one. */
  constructor(onSooner: () => void = () => undefined) {
    this.#onSooner = onSooner;
  }

  /** When the first entry is due; undefined when there is none. */
  get firstDueMs(): number | undefined {
    return this.#entries[0]?.dueMs;
  }

  add(dueMs: number, work: (dueMs: number) => void): void {
    const entry = { dueMs, order: this.#count++, work };
    const entries = this.#entries;
    let index = entries.push(entry) - 1;
    while (index > 0) {
      const parent = (index - 1) >> 1;
      const above = entries[parent];
      if (above === undefined || isBefore(above, entry)) break;
      entries[index] = above;
      index = parent;
    }
    entries[index] = entry;
    if (index === 0) this.#onSooner();
  }

  /** Does all that is due at `nowMs`, and what becomes due on the way. */
  runUntil(nowMs: number): void {
    for (let due = this.firstDueMs; due !== undefined && due <= nowMs; due = this.firstDueMs) {
      this.#takeFirst()?.work(due);
    }
  }

  #takeFirst(): Entry | undefined {
    const entries = this.#entries;
    const first = entries[0];
    const last = entries.pop();
    if (last === undefined || entries.length === 0) return first;
    let index = 0;
    for (;;) {
      let childIndex = 2 * index + 1;
      let child = entries[childIndex];
      const right = entries[childIndex + 1];
      if (child !== undefined && right !== undefined && isBefore(right, child)) {
        child = right;
        childIndex++;
      }
      if (child === undefined || isBefore(last, child)) break;
      entries[index] = child;
      index = childIndex;
    }
    entries[index] = last;
    return first;
  }
}

function isBefore(a: Entry, b: Entry): boolean {
  return a.dueMs < b.dueMs || (a.dueMs === b.dueMs && a.order < b.order);
}
