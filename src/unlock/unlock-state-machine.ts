import type { LoaderError } from '../errors.ts';

/** From each state, those that may follow. The names are the original's: clients poll for them. */
const TRANSITIONS = {
  idle: ['authenticating', 'ready'],
  authenticating: ['downloading_key', 'ready', 'error'],
  downloading_key: ['decrypting', 'error'],
  decrypting: ['loading_images', 'ready', 'error'],
  loading_images: ['ready', 'error'],
  ready: ['authenticating'],
  error: ['authenticating', 'ready'],
} as const satisfies Record<string, readonly string[]>;

export type UnlockState = keyof typeof TRANSITIONS;

/** One run of the unlock. When it has ended, what it still reports is ignored. */
export interface UnlockClaim {
  /** @throws Error for a transition that is not in the table: a fault of the Loader */
  advance(state: Exclude<UnlockState, 'idle' | 'authenticating' | 'error'>): void;
  fail(error: LoaderError): void;
}

/** The state of the unlock. It changes in one synchronous step each, so that no two runs can begin. */
export class UnlockStateMachine {
  readonly #onChange: () => void;
  #state: UnlockState = 'idle';
  #error: LoaderError | undefined;
  #run: UnlockClaim | undefined;

  /** `onChange` is called after each change. */
  constructor(onChange: () => void = () => undefined) {
    this.#onChange = onChange;
  }

  get state(): UnlockState {
    return this.#state;
  }

  /** Of the last run, when it failed; it stands until the next one begins. */
  get error(): LoaderError | undefined {
    return this.#error;
  }

  get isRunning(): boolean {
    return this.#run !== undefined;
  }

  /** Begins a run. Undefined while another one is under way. */
  claim(): UnlockClaim | undefined {
    if (this.#run !== undefined) return undefined;
    const run: UnlockClaim = {
      advance: (state) => {
        if (this.#run === run) this.#enter(state);
      },
      fail: (error) => {
        if (this.#run === run) this.#enter('error', error);
      },
    };
    this.#run = run;
    this.#enter('authenticating');
    return run;
  }

  /** Everything is there already, without a run. */
  becomeReady(): void {
    if (this.#run === undefined && this.#state !== 'ready') this.#enter('ready');
  }

  #enter(state: UnlockState, error?: LoaderError): void {
    const allowed: readonly UnlockState[] = TRANSITIONS[this.#state];
    if (!allowed.includes(state)) throw new Error(`the unlock can't go from ${this.#state} to ${state}`);
    this.#state = state;
    this.#error = error;
    if (state === 'ready' || state === 'error') this.#run = undefined;
    this.#onChange();
  }
}
