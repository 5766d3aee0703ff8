import { pino, type Logger } from 'pino';
import { LoaderError, MAX_CAUSES } from '../errors.ts';
import { KnownSecrets } from './known-secrets.ts';

export type { Logger };

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export const LOG_FORMATS = ['json', 'pretty'] as const;
export type LogFormat = (typeof LOG_FORMATS)[number];

export interface LoggerOptions {
  readonly level: LogLevel;
  /** Each gets every line. Unless there is one, the lines go nowhere. */
  readonly outputs?: readonly { write(line: string): void }[];
  /** Makes text for people of a line, if the lines are for people. */
  readonly makePretty?: ((line: string) => string) | undefined;
  /** Replaced wherever they stand in a line. */
  readonly secrets?: KnownSecrets;
}

/** Names under which a secret could reach a log line. Their values are replaced, at the top and one level down. */
const SECRET_NAMES = ['password', 'token', 'authorization', 'email', 'apiKey', 'key', 'secret', 'hardware'] as const;

/**
 * Makes the logger: one JSON object a line.
 *
 * It logs by allow-list. A request is its id, method and route pattern; an error is its type, code, message and stack,
 * and those of its causes. Headers, query strings, bodies and the other properties of errors (where the AWS SDK and
 * undici keep requests and responses) are never written. What is written is then searched for the known secrets.
 */
export function createLogger({ level, outputs = [], makePretty, secrets = new KnownSecrets() }: LoggerOptions): Logger {
  return pino(
    {
      level,
      base: null,
      formatters: { level: (name) => ({ level: name }) },
      timestamp: pino.stdTimeFunctions.isoTime,
      // @fastify/multipart logs what it gives to its parser, headers included, at level trace.
      redact: {
        paths: [...SECRET_NAMES.flatMap((name) => [name, `*.${name}`]), 'busboyOptions.headers'],
        censor: '[redacted]',
      },
      serializers: { req: serializeRequest, res: serializeReply, err: (error: unknown) => serializeError(error) },
      hooks: { streamWrite: (line) => secrets.redactLine(line) },
    },
    {
      write: (line) => {
        const text = makePretty?.(line) ?? line;
        for (const output of outputs) output.write(text);
      },
    },
  );
}

function serializeRequest(request: { method?: string; routeOptions?: { url?: string | undefined } }) {
  return { method: request.method, route: request.routeOptions?.url ?? '(none)' };
}

/** Fastify passes its reply, not Node's response. */
function serializeReply(reply: { statusCode?: number }) {
  return { statusCode: reply.statusCode };
}

interface SerializedError {
  readonly type: string;
  readonly message: string;
  readonly code?: string | undefined;
  readonly stack?: string | undefined;
  readonly cause?: SerializedError | undefined;
  /** What a failed disposal threw, and what it hid. */
  readonly error?: SerializedError | undefined;
  readonly suppressed?: SerializedError | undefined;
}

/** What the Loader foresees needs no stack: its message says what is wrong, and the causes say what was met. */
function serializeError(error: unknown, depth = 0, hasStack = !isForeseen(error)): SerializedError {
  if (!(error instanceof Error)) return { type: typeof error, message: 'not an Error' };
  const inner = (value: unknown) =>
    value !== undefined && depth < MAX_CAUSES ? serializeError(value, depth + 1, hasStack) : undefined;
  return {
    type: error.name,
    message: error.message,
    code: 'code' in error && typeof error.code === 'string' ? error.code : undefined,
    stack: hasStack ? error.stack : undefined,
    cause: inner(error.cause),
    ...(error instanceof SuppressedError && { error: inner(error.error), suppressed: inner(error.suppressed) }),
  };
}

function isForeseen(error: unknown): boolean {
  return error instanceof LoaderError && error.code !== 'internal_error';
}
