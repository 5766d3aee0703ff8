import type { Changes } from '../async/changes.ts';
import type { LoaderError } from '../errors.ts';

/** The states that may follow each state. The names are those of the original, since clients poll for them. */
const TRANSITIONS = {
  idle: ['authenticating', 'ready'],
  authenticating: ['downloading_key', 'ready', 'error'],
  downloading_key: ['decrypting', 'error'],
  decrypting: ['loading_images', 'ready', 'error'],
  loading_images: ['ready', 'error'],
  ready: ['authenticating', 'idle'],
  error: ['authenticating', 'ready'],
} as const satisfies Record<string, readonly string[]>;

export type UnlockState = keyof typeof TRANSITIONS;

export const UNLOCK_STATES = Object.keys(TRANSITIONS) as readonly UnlockState[];

/**
 * The right to change the state, which one unlock at a time has. The claim ends when the unlock is ready or has failed,
 * or by its disposal, which leaves the state as it is. Calls after its end are ignored.
 */
export interface UnlockClaim extends Disposable {
  /** Of the machine. */
  readonly state: UnlockState;
  /** @throws Error for a transition that is not in the table: a fault of the Loader */
  advance(state: Exclude<UnlockState, 'error'>): void;
  /** @throws Error where an unlock can't fail, since it has not begun: a fault of the Loader */
  fail(error: LoaderError): void;
}

/** The state of the unlock, which only the holder of the claim changes. Each change is one synchronous step. */
export class UnlockStateMachine {
  readonly #changes: Pick<Changes, 'announce'>;
  #state: UnlockState = 'idle';
  #error: LoaderError | undefined;
  #claim: UnlockClaim | undefined;

  /** `changes` is announced after each change. */
  constructor(changes: Pick<Changes, 'announce'>) {
    this.#changes = changes;
  }

  get state(): UnlockState {
    return this.#state;
  }

  /** The failure of the last unlock. It stands until the next one begins or all images are found. */
  get error(): LoaderError | undefined {
    return this.#error;
  }

  get isClaimed(): boolean {
    return this.#claim !== undefined;
  }

  /** Undefined while another unlock has the claim. */
  claim(): UnlockClaim | undefined {
    if (this.#claim !== undefined) return undefined;
    const state = () => this.#state;
    const claim: UnlockClaim = {
      get state() {
        return state();
      },
      advance: (state) => {
        if (this.#claim === claim) this.#enter(state);
      },
      fail: (error) => {
        if (this.#claim === claim) this.#enter('error', error);
      },
      [Symbol.dispose]: () => {
        if (this.#claim === claim) this.#claim = undefined;
      },
    };
    this.#claim = claim;
    return claim;
  }

  #enter(state: UnlockState, error?: LoaderError): void {
    const allowed: readonly UnlockState[] = TRANSITIONS[this.#state];
    if (!allowed.includes(state)) throw new Error(`the unlock can't go from ${this.#state} to ${state}`);
    this.#state = state;
    this.#error = error;
    if (state === 'ready' || state === 'error') this.#claim = undefined;
    this.#changes.announce();
  }
}
