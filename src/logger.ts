import { pino, type Logger } from 'pino';
import { MAX_CAUSES } from './errors.ts';

export type { Logger };

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export interface LoggerOptions {
  readonly level: LogLevel;
  /** A file that gets the same lines as stdout; it is created with its folders, and appended to. */
  readonly file?: string | undefined;
}

/** Names under which a secret could reach a log line; their values are replaced, at the top and one level down. */
const SECRET_NAMES = ['password', 'token', 'authorization', 'email', 'apiKey', 'key', 'secret', 'hardware'] as const;

/**
 * Makes the logger: JSON lines on stdout and, if asked, in a file.
 *
 * It logs by allow-list. A request is its id, method and route pattern; an error is its type, code, message and stack,
 * and those of its causes. Headers, query strings, bodies and the other properties of errors (where the AWS SDK and
 * undici keep requests and responses) are never written.
 */
export function createLogger(options: LoggerOptions): Logger {
  const streams: { stream: ReturnType<typeof pino.destination>; level: 'trace' }[] = [
    { stream: pino.destination({ dest: 1, sync: true }), level: 'trace' },
  ];
  if (options.file !== undefined) {
    const file = pino.destination({ dest: options.file, mkdir: true, sync: true });
    // A full disk must not end the process; stdout has the lines all the same.
    file.on('error', (error: Error) => {
      process.stderr.write(`LOG_FILE can't be written: ${error.message}\n`);
    });
    streams.push({ stream: file, level: 'trace' });
  }
  return pino(
    {
      level: options.level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      // @fastify/multipart logs what it gives to its parser, headers included, at level trace.
      redact: {
        paths: [...SECRET_NAMES.flatMap((name) => [name, `*.${name}`]), 'busboyOptions.headers'],
        censor: '[redacted]',
      },
      serializers: { req: serializeRequest, res: serializeReply, err: serializeError },
    },
    pino.multistream(streams),
  );
}

function serializeRequest(request: { method?: string; routeOptions?: { url?: string | undefined } }) {
  return { method: request.method, route: request.routeOptions?.url ?? '(none)' };
}

/** Fastify hands its reply over, not Node's response. */
function serializeReply(reply: { statusCode?: number }) {
  return { statusCode: reply.statusCode };
}

interface SerializedError {
  readonly type: string;
  readonly message: string;
  readonly code?: string | undefined;
  readonly stack?: string | undefined;
  readonly cause?: SerializedError | undefined;
}

function serializeError(error: unknown, depth = 0): SerializedError {
  if (!(error instanceof Error)) return { type: typeof error, message: 'not an Error' };
  return {
    type: error.name,
    message: error.message,
    code: 'code' in error && typeof error.code === 'string' ? error.code : undefined,
    stack: error.stack,
    cause: error.cause !== undefined && depth < MAX_CAUSES ? serializeError(error.cause, depth + 1) : undefined,
  };
}
