import { Ajv, type ErrorObject, type SchemaObject } from 'ajv';
import { LoaderError, type ErrorCode } from '../errors.ts';
import { RESOURCE_FORMATS } from '../resource-name.ts';
import type { TaskLogLevel } from './task.ts';
import type { JsonObject, JsonValue } from '../json.ts';

/** What a run tells of itself. Bytes and percentage are never shown going back, whatever is reported. */
export interface TaskProgress {
  readonly bytesDone: number;
  /** Null while it is not known. */
  readonly bytesTotal: number | null;
  /** 0 to 100, where bytes alone do not tell it. */
  readonly percent?: number;
}

/** What a run is given beside its parameters. */
export interface TaskContext {
  /** Aborts when the task is cancelled or the Loader stops. The run ends, in whatever way, when its side effects have. */
  readonly signal: AbortSignal;
  /** Nobody waits for an answer: a schedule began the task, or it repeats one that was interrupted. */
  readonly isUnattended: boolean;
  /** May be called as often as one likes. */
  report(progress: TaskProgress): void;
  /** Adds a line to the task's log, which operators read: no secrets. */
  log(level: TaskLogLevel, text: string): void;
}

/** Does the work, and answers the task's result. */
export type TaskWork = (context: TaskContext) => Promise<JsonValue>;

/** A run whose parameters have been checked. */
export interface PreparedTask {
  /** Without secrets: what is stored and shown. */
  readonly parameters: JsonObject;
  readonly hasSecrets: boolean;
  readonly run: TaskWork;
}

/** A kind of task. */
export interface Provider {
  readonly name: string;
  /** JSON Schema of the parameters. */
  readonly schema: SchemaObject;
  /** Whether a task that was interrupted may begin anew by itself. */
  readonly isRepeatable: boolean;
  /** @throws ParametersError */
  prepare(parameters: JsonObject): PreparedTask;
  /** For work that also begins elsewhere: calls `begin` each time, with a run that follows it. */
  readonly onOutsideRun?: (begin: (parameters: JsonObject, run: TaskWork) => void) => void;
}

export interface ProviderDefinition<Parameters> {
  readonly name: string;
  /**
   * JSON Schema (draft-07) of the parameters, an object. Properties at its top marked `writeOnly` are secrets: they are
   * given to the run, and to nothing else.
   */
  readonly schema: SchemaObject & {
    readonly properties: Readonly<Record<string, SchemaObject>>;
    readonly required?: readonly string[];
  };
  /** Only where a second run does no harm, and there are no secrets, which would be missing then. */
  readonly isRepeatable: boolean;
  readonly run: (parameters: Parameters, context: TaskContext) => Promise<JsonValue>;
  readonly onOutsideRun?: Provider['onOutsideRun'];
}

/** Parameters that do not match the provider's schema. */
export class ParametersError extends LoaderError {
  /** As Ajv tells them; paths begin at the parameters. */
  readonly errors: readonly ErrorObject[];

  constructor(errors: readonly ErrorObject[]) {
    super('validation_failed', 'The parameters are not those of the provider.');
    this.errors = errors;
  }
}

/** A failure after which a part of the work is done; the task keeps `result`. */
export class PartialResultError extends LoaderError {
  readonly result: JsonValue;

  constructor(code: ErrorCode, message: string, result: JsonValue) {
    super(code, message);
    this.result = result;
  }
}

/** Makes a provider of its definition. */
export function defineProvider<Parameters>(definition: ProviderDefinition<Parameters>): Provider {
  const { name, schema, isRepeatable, run, onOutsideRun } = definition;
  // The first fault only: to tell all of those of a large list would hold up everybody else.
  const ajv = new Ajv({ formats: RESOURCE_FORMATS });
  const isValid = ajv.compile<Parameters>(schema);
  const secretNames = Object.keys(schema.properties).filter((key) => schema.properties[key]?.['writeOnly'] === true);
  if (isRepeatable && secretNames.length > 0) throw new Error(`${name} can't be repeated: its secrets are not kept`);
  return {
    name,
    schema,
    isRepeatable,
    ...(onOutsideRun === undefined ? {} : { onOutsideRun }),
    prepare: (parameters) => {
      const given: unknown = parameters;
      if (!isValid(given)) throw new ParametersError(isValid.errors ?? []);
      const isSecret = (key: string) => secretNames.includes(key);
      return {
        parameters: Object.fromEntries(Object.entries(parameters).filter(([key]) => !isSecret(key))),
        hasSecrets: Object.keys(parameters).some(isSecret),
        run: (context) => run(given, context),
      };
    },
  };
}
