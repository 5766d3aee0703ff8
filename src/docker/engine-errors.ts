import { LoaderError, systemErrorCode } from '../errors.ts';
import { AnswerTooLongError } from '../net/bounded-call.ts';
import { errors } from '../net/undici-parts.ts';

const NO_SPACE = /no space left on device|disk quota exceeded/i;
const MAX_WORDS = 500;

/** The failures of the Docker engine at `place`, as DOCKER_HOST names it. Each message says what to do. */
export class EngineErrors {
  readonly #place: string;

  constructor(place: string) {
    this.#place = place;
  }

  /** For a call that failed before its answer was complete. */
  failed(error: unknown): LoaderError {
    const code = systemErrorCode(error) ?? 'unknown';
    const options = { cause: error };
    if (code === 'EACCES' || code === 'EPERM') {
      return new LoaderError(
        'engine_forbidden',
        `The Loader may not use the Docker engine's socket ${this.#place}: add its user to the group of the socket (usually docker).`,
        options,
      );
    }
    if (code === 'ENOENT' || code === 'ECONNREFUSED') {
      return new LoaderError(
        'engine_unreachable',
        `No Docker engine listens at ${this.#place} (${code}): start it, or set DOCKER_HOST to where it listens.`,
        options,
      );
    }
    if (error instanceof errors.HTTPParserError) return this.notAnEngine(error);
    if (error instanceof AnswerTooLongError) {
      return new LoaderError(
        'engine_invalid_response',
        `The answer of ${this.#place} is longer than any that a Docker engine sends: set DOCKER_HOST to where one listens.`,
        options,
      );
    }
    return new LoaderError(
      'engine_unreachable',
      `The connection to the Docker engine at ${this.#place} failed (${code}): see whether it runs.`,
      options,
    );
  }

  /** For an answer that is not complete after `timeoutMs`. */
  late(timeoutMs: number, cause: unknown): LoaderError {
    return new LoaderError(
      'engine_stalled',
      `The Docker engine at ${this.#place} did not answer within ${timeoutMs} ms; restart it.`,
      { cause },
    );
  }

  /** For a stream in which nothing came for `timeoutMs`. */
  silent(timeoutMs: number): LoaderError {
    return new LoaderError(
      'engine_stalled',
      `The Docker engine at ${this.#place} sent nothing for ${timeoutMs} ms: restart it; if it is only slow, set a higher ENGINE_STALL_TIMEOUT_MS.`,
    );
  }

  brokenReply(cause: unknown): LoaderError {
    return new LoaderError(
      'engine_invalid_response',
      `The Docker engine at ${this.#place} broke off its reply, or sent one that no Docker engine sends: see whether it runs.`,
      { cause },
    );
  }

  tooOld(version: string, minVersion: string): LoaderError {
    return new LoaderError(
      'engine_error',
      `The Docker engine at ${this.#place} speaks API ${version}, but the Loader needs ${minVersion} or later: update it.`,
    );
  }

  notAnEngine(cause?: unknown): LoaderError {
    return new LoaderError(
      'engine_invalid_response',
      `The server at ${this.#place} is not a Docker engine: set DOCKER_HOST to where it listens.`,
      { cause },
    );
  }

  /** For what the engine could not do, in its own words. They hold no secret of ours: the engine gets none. */
  refused(words: string): LoaderError {
    const text = words.slice(0, MAX_WORDS);
    return NO_SPACE.test(text)
      ? new LoaderError('engine_disk_full', `The disk of the Docker engine is full: make room there. It said: ${text}`)
      : new LoaderError('engine_error', `The Docker engine refused: ${text}`);
  }
}
