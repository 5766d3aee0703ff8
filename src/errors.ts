/**
 * Every failure that the Loader can answer with: one class, stable codes, one table to HTTP statuses.
 *
 * A status of `'route'` means that the route decides, because the contract gives it one status for all its failures:
 * 401 for POST /login, 500 for POST /load and POST /upload. docs/operating.md shows this table; a test keeps the two the same.
 */
export const ERRORS = {
  // The request itself.
  validation_failed: { status: 422, meaning: 'a field is missing, has the wrong type or a value that is not allowed' },
  malformed_request: { status: 400, meaning: 'the bytes received are not a valid HTTP request' },
  forbidden: { status: 401, meaning: 'the API key is missing or unknown' },
  not_found: { status: 404, meaning: 'no such path' },
  method_not_allowed: { status: 405, meaning: 'the path exists, but not with this method' },
  cross_site: { status: 403, meaning: 'a page of another site sent the request' },
  host_not_allowed: { status: 403, meaning: 'no API key is set, and the Host header has a name not in ALLOWED_HOSTS' },
  request_timeout: { status: 408, meaning: 'the request headers did not arrive in time' },
  body_too_large: { status: 413, meaning: 'a JSON body or a form field is larger than its limit' },
  url_too_long: { status: 414, meaning: 'the path and the query are longer than 8,192 characters' },
  headers_too_large: { status: 431, meaning: 'the request headers are larger than 16 KiB, or more than 100' },
  too_many_connections: { status: 503, meaning: 'there are more than 1,000 connections' },
  shutting_down: { status: 503, meaning: 'the Loader is stopping and takes no new requests' },
  folder_unusable: { status: 503, meaning: "MODEL_CACHE_DIR or STATE_DIR can't be written, or is full" },
  internal_error: { status: 500, meaning: 'a fault in the Loader; its log has the details under the request id' },
  // The session.
  not_authenticated: { status: 'route', meaning: 'no user has logged in since the start: POST /login first' },
  wrong_credentials: { status: 'route', meaning: 'the Resource API refused the email and password' },
  token_invalid: {
    status: 'route',
    meaning: 'the token is no JWT, or its signature does not match the configured key',
  },
  token_refused: { status: 'route', meaning: 'the Resource API refused even a fresh token: the user lacks the right' },
  hardware_unreadable: { status: 'route', meaning: 'a part of the hardware string could not be read' },
  cdn_config_invalid: {
    status: 'route',
    meaning: 'cdn.yaml is unreadable, incomplete or encrypted for other hardware',
  },
  resource_key_missing: { status: 'route', meaning: 'neither RESOURCE_KEY nor cdn.yaml holds the resource key' },
  // The Resource API.
  api_unreachable: { status: 'route', meaning: 'no connection to the Resource API' },
  api_timeout: { status: 'route', meaning: 'the Resource API did not answer within UPSTREAM_TIMEOUT_MS' },
  api_error: { status: 'route', meaning: 'the Resource API answered with an error status' },
  api_invalid_response: {
    status: 'route',
    meaning: 'the Resource API sent a response that its contract does not allow',
  },
  api_redirected: { status: 'route', meaning: 'the Resource API redirects to another address' },
  // The CDN.
  cdn_unreachable: { status: 'route', meaning: 'no connection to the CDN' },
  cdn_timeout: { status: 'route', meaning: 'the CDN stopped sending or taking bytes for STALL_TIMEOUT_MS' },
  cdn_access_denied: { status: 'route', meaning: 'the CDN refused the access key of cdn.yaml' },
  cdn_signature_refused: {
    status: 'route',
    meaning: 'the CDN refused a signature: the secret of cdn.yaml is wrong, or a proxy changes requests',
  },
  cdn_bucket_missing: { status: 'route', meaning: 'the CDN has no bucket of the name in cdn.yaml' },
  cdn_foreign_answer: { status: 'route', meaning: 'a page that no S3 server sends came in the place of an answer' },
  cdn_upload_lost: { status: 'route', meaning: 'the CDN has lost an upload that had not ended: upload again' },
  cdn_error: { status: 'route', meaning: 'the CDN answered with an error' },
  cdn_invalid_response: { status: 'route', meaning: 'the CDN did not send the range that it was asked for' },
  cdn_version_unknown: {
    status: 'route',
    meaning: 'nothing in the answers of the CDN tells one version of the big part from another',
  },
  cdn_object_changed: { status: 'route', meaning: 'the big part was replaced while it was read: load again' },
  // The way to both.
  tls_date_wrong: {
    status: 'route',
    meaning: 'a certificate has expired or is not valid yet, or the clock of the device is wrong',
  },
  tls_ca_unknown: { status: 'route', meaning: 'a certificate comes from a CA that is not trusted' },
  tls_other_host: { status: 'route', meaning: 'a certificate is for other hosts than the one that was asked' },
  tls_failed: { status: 'route', meaning: 'a server does not speak TLS, or refused the handshake' },
  proxy_unreachable: { status: 'route', meaning: 'no connection to the proxy' },
  proxy_refused: { status: 'route', meaning: 'the proxy refused the connection, or asks for a password' },
  clock_wrong: {
    status: 'route',
    meaning: 'the CDN refused the time of a request, even after it was set by the clock of the CDN',
  },
  // Resources.
  upload_superseded: {
    status: 'route',
    meaning:
      'another upload of the resource ended at the same time and its version stands: upload again if yours should',
  },
  upload_unfinished: {
    status: 'route',
    meaning: 'the two parts are of two versions, since an upload is under way or was broken off: load again later',
  },
  resource_not_in_api: { status: 'route', meaning: 'the Resource API has no small part of that name' },
  resource_not_in_cdn: { status: 'route', meaning: 'neither cache nor CDN has a big part of that name' },
  envelope_invalid: { status: 'route', meaning: 'an envelope is damaged, or encrypted under another key' },
  manifest_invalid: {
    status: 'route',
    meaning:
      'the manifest of a resource is broken, is for another one, or is signed by none of the keys that count here',
  },
  manifest_missing: { status: 'route', meaning: 'the big part says that it has a manifest, and the CDN has none' },
  manifest_required: { status: 'route', meaning: 'the resource has no manifest, and this device takes none without' },
  manifest_outdated: {
    status: 'route',
    meaning: 'the manifest is of an older revision than one that this device has accepted',
  },
  resource_damaged: { status: 'route', meaning: 'a part of the resource does not match its manifest' },
  cache_unusable: { status: 'route', meaning: 'the local cache could not be read or written, and was needed' },
  disk_full_ahead: {
    status: 'route',
    meaning: 'the disk of the cache, or CACHE_MAX_BYTES, has no room for a big part',
  },
  // The unlock. Its failures are told by GET /unlock/status.
  archive_not_found: { status: 404, meaning: 'no image archive at IMAGES_PATH, and its images are not loaded' },
  archive_unreadable: { status: 'route', meaning: 'the image archive exists, but it cannot be read' },
  archive_key_wrong: { status: 'route', meaning: 'the image archive is encrypted under another key fragment' },
  archive_invalid: { status: 'route', meaning: 'the image archive is broken, cut, or not what docker save writes' },
  archive_changed: { status: 'route', meaning: 'the image archive was replaced while it was unlocked: unlock again' },
  key_fragment_invalid: { status: 'route', meaning: 'the Resource API has no key fragment for this user' },
  unlock_cancelled: { status: 'route', meaning: 'the unlock was cancelled by DELETE /unlock, or the Loader stopped' },
  // The Docker engine.
  engine_unreachable: { status: 'route', meaning: 'no Docker engine listens at DOCKER_HOST' },
  engine_forbidden: { status: 'route', meaning: "the Loader's user may not use the Docker engine's socket" },
  engine_invalid_response: { status: 'route', meaning: 'the server at DOCKER_HOST is not a Docker engine' },
  engine_error: { status: 'route', meaning: 'the Docker engine refused a request or an image' },
  engine_disk_full: { status: 'route', meaning: 'the disk of the Docker engine is full' },
  engine_stalled: {
    status: 'route',
    meaning: 'the Docker engine neither took nor sent a byte for ENGINE_STALL_TIMEOUT_MS',
  },
  engine_image_missing: { status: 'route', meaning: 'the Docker engine reported success, but the image is not there' },
  // The tasks. The codes of 'route' are those that a task ends with.
  task_not_found: { status: 404, meaning: 'no task has this uid, or it was removed because the history was full' },
  provider_busy: { status: 409, meaning: 'a task of the same provider is in progress' },
  task_not_repeatable: { status: 409, meaning: 'the parameters of the task are not kept whole, or no longer fit' },
  task_store_unavailable: { status: 503, meaning: "the tasks' database in STATE_DIR can't be used; the log says why" },
  task_cancelled: { status: 'route', meaning: 'the task was cancelled' },
  task_interrupted: { status: 'route', meaning: 'the Loader stopped, or died, while the task ran' },
  prefetch_incomplete: { status: 'route', meaning: 'some resources could not be fetched: the result tells which' },
  schedule_not_found: { status: 404, meaning: 'no schedule has this id' },
  too_many_schedules: { status: 409, meaning: 'there are 1,000 schedules: delete some' },
  // The client.
  client_stalled: { status: 'route', meaning: 'the client stopped sending or reading for CLIENT_STALL_TIMEOUT_MS' },
  client_closed: { status: 'route', meaning: 'the client closed the connection before its request was finished' },
} as const satisfies Record<string, { status: number | 'route'; meaning: string }>;

/** A stable name of a failure, as it stands in the `code` of an error body. */
export type ErrorCode = keyof typeof ERRORS;

/** A failure with a code for programs and a message for people. The message holds no secret: it leaves the Loader. */
export class LoaderError extends Error {
  override readonly name = 'LoaderError';
  readonly code: ErrorCode;

  /** `options.cause` is logged by type, code and message only, and is never answered. */
  constructor(code: ErrorCode, message: string, options?: { cause: unknown }) {
    super(message, options);
    this.code = code;
  }
}

export interface PassingErrorOptions {
  readonly cause?: unknown;
  /** The pause that a server asks for (Retry-After, RFC 9110 section 10.2.3), in ms. */
  readonly retryAfterMs?: number | undefined;
  /** It may pass, but rarely does, such as an answer that breaks the protocol. */
  readonly isDoubtful?: boolean;
}

/** A failure that may pass by itself: the same request may succeed later. */
export class PassingError extends LoaderError {
  readonly retryAfterMs: number | undefined;
  readonly isDoubtful: boolean;
  readonly #options: PassingErrorOptions;
  readonly #message: string;

  constructor(code: ErrorCode, message: string, options: PassingErrorOptions = {}, note?: string) {
    super(code, note === undefined ? message : `${message} ${note}`, { cause: options.cause });
    this.retryAfterMs = options.retryAfterMs;
    this.isDoubtful = options.isDoubtful ?? false;
    this.#options = options;
    this.#message = message;
  }

  /** The same failure with a sentence on what was tried, in the place of an earlier one. */
  withNote(note: string | undefined): PassingError {
    return note === undefined ? this : new PassingError(this.code, this.#message, this.#options, note);
  }
}

/** One fault of an input. */
export interface InputFault {
  /** FastAPI's word for the kind of fault, such as `missing` or `value_error`. */
  readonly type: string;
  /** The fields that lead to the fault, from the outside in; empty for the input as a whole. */
  readonly path: readonly string[];
  /** What would be right. It never quotes the input, which may be a password. */
  readonly message: string;
}

/** The part of a request that an input comes from, in FastAPI's words. */
export type InputSource = 'body' | 'path' | 'query' | 'header';

/** An input that can't be taken, with what is wrong in it. */
export class InputError extends LoaderError {
  readonly faults: readonly InputFault[];
  readonly source: InputSource;

  constructor(faults: readonly InputFault[], source: InputSource = 'body') {
    super('validation_failed', faults.map(({ path, message }) => [...path, message].join(': ')).join('; '));
    this.faults = faults;
    this.source = source;
  }

  /** The same faults where the input is the field `name` of a larger one. */
  under(name: string): InputError {
    const faults = this.faults.map((fault) => ({ ...fault, path: [name, ...fault.path] }));
    return new InputError(faults, this.source);
  }
}

/** The error of whatever is asked for while the process stops. */
export function shuttingDown(): LoaderError {
  return new LoaderError('shutting_down', 'The Loader is stopping; ask again when it has started.');
}

/** Tells whether `error` is a LoaderError with one of `codes`. */
export function hasErrorCode(error: unknown, ...codes: ErrorCode[]): error is LoaderError {
  return error instanceof LoaderError && codes.includes(error.code);
}

/** At most this many causes are followed, since a chain may be a circle. */
export const MAX_CAUSES = 5;

/** The `code` of a system or library error such as `ENOSPC` or `ECONNREFUSED`, looked for along the chain of causes. */
export function systemErrorCode(error: unknown): string | undefined {
  let current = error;
  for (let depth = 0; depth < MAX_CAUSES && current instanceof Error; depth++) {
    if ('code' in current && typeof current.code === 'string') return current.code;
    current = current instanceof AggregateError ? current.errors[0] : current.cause;
  }
  return undefined;
}

/** SQLite's primary result code of an error of `node:sqlite` (sqlite.org/rescode.html). */
export function sqliteErrorCode(error: unknown): number | undefined {
  if (!(error instanceof Error) || !('errcode' in error) || typeof error.errcode !== 'number') return undefined;
  return error.errcode & 0xff;
}

/** `error` as an Error, whatever was thrown. */
export function toError(error: unknown): Error {
  return error instanceof Error ? error : new Error('a value that is no Error was thrown');
}

/**
 * `error` as the Loader tells it: itself where it has a code, otherwise `internal_error` with `error` as its cause. An
 * error that a failed disposal hid (SuppressedError) is found again.
 */
export function asLoaderError(error: unknown): LoaderError {
  if (error instanceof SuppressedError) return asLoaderError(error.suppressed);
  if (error instanceof LoaderError) return error;
  return new LoaderError('internal_error', 'Internal error: the log of the Loader has the details.', { cause: error });
}
