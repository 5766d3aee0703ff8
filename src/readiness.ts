import type { ErrorCode } from './errors.ts';
import type { LoaderFolders } from './loader-folders.ts';
import type { Upstream } from './upstream/upstream.ts';

export interface ReadinessOptions {
  readonly upstream: Pick<Upstream, 'missingLogin'>;
  readonly folders: Pick<LoaderFolders, 'problems'>;
}

/** A reason why the Loader can't do all of its work. */
export interface Problem {
  readonly code: ErrorCode;
  /** For people: it says what to do. */
  readonly detail: string;
}

/** Tells whether the Loader can do all of its work, and what is missing. It asks nothing over the network. */
export class Readiness {
  readonly #options: ReadinessOptions;

  constructor(options: ReadinessOptions) {
    this.#options = options;
  }

  /** None when it is ready. */
  async problems(): Promise<readonly Problem[]> {
    const folders = (await this.#options.folders.problems()).map((detail): Problem => ({
      code: 'folder_unusable',
      detail,
    }));
    return [...this.#loginProblems(), ...folders];
  }

  #loginProblems(): Problem[] {
    const { missingLogin } = this.#options.upstream;
    return missingLogin === undefined ? [] : [{ code: missingLogin.code, detail: missingLogin.message }];
  }
}
