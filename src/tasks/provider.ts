import { Ajv, type SchemaObject } from 'ajv';
import type { Static, TSchema } from 'typebox';
import { InputError, LoaderError, type ErrorCode } from '../errors.ts';
import type { JsonObject, JsonValue } from '../json.ts';
import { toSchemaFaults, type TextFormats } from './schema-faults.ts';
import type { TaskLogLevel } from './task.ts';

/** How far a task is. The bytes and the percentage that are shown never go back, whatever the work reports. */
export interface TaskProgress {
  readonly bytesDone: number;
  /** Null while the total is unknown. */
  readonly bytesTotal: number | null;
  /** 0 to 100, for work whose bytes alone do not show how far it is. */
  readonly percent?: number;
  /** What the work waits for, in a sentence for people; null while it goes on. */
  readonly waitingFor?: string | null;
}

/** What the work of a task gets beside its parameters. */
export interface TaskContext {
  /** Aborts when the task is cancelled or the Loader stops. The work then ends when its side effects have ended. */
  readonly signal: AbortSignal;
  /** A schedule began the task, or it repeats one that was interrupted: no client waits for it. */
  readonly isUnattended: boolean;
  /** May be called at any rate. */
  report(progress: TaskProgress): void;
  /** Adds a line to the task's log. Operators read it, so it holds no secrets. */
  log(level: TaskLogLevel, text: string): void;
}

/** Does the work, and returns the task's result. */
export type TaskWork = (context: TaskContext) => Promise<JsonValue>;

/** A task whose parameters have been checked. */
export interface PreparedTask {
  /** Without secrets: these are stored and shown. */
  readonly parameters: JsonObject;
  readonly hasSecrets: boolean;
  readonly work: TaskWork;
}

/** A kind of task. */
export interface Provider {
  readonly name: string;
  /** Schema of the parameters. */
  readonly parameters: SchemaObject;
  /** Schema of the result. */
  readonly result: SchemaObject;
  /** Whether a task that was interrupted may begin anew by itself. */
  readonly isRepeatable: boolean;
  /** @throws InputError, whose paths begin at the parameters */
  prepare(parameters: JsonObject): PreparedTask;
  /** For work that also begins elsewhere: calls `begin` each time, with work that follows it to its end. */
  readonly onOutsideWork?: (begin: (parameters: JsonObject, work: TaskWork) => void) => void;
}

/** JSON Schema of an object. */
export type ParametersSchema = TSchema & { readonly properties: Readonly<Record<string, SchemaObject>> };

export interface ProviderDefinition<Parameters extends ParametersSchema, Result extends TSchema> {
  readonly name: string;
  /**
   * Schema of the parameters. Properties at its top marked `writeOnly` are secrets: the work gets them, and they
   * are neither stored nor shown.
   */
  readonly parameters: Parameters;
  /** Schema of the result of a task that is complete. */
  readonly result: Result;
  /** The formats that `parameters` uses. */
  readonly formats?: TextFormats;
  /** True only where to do the work twice does no harm and there are no secrets, since these would be missing then. */
  readonly isRepeatable: boolean;
  readonly run: (parameters: Static<Parameters>, context: TaskContext) => Promise<Static<Result> & JsonValue>;
  readonly onOutsideWork?: Provider['onOutsideWork'];
}

/** A failure of work that was done in part; the task keeps `result`. */
export class PartialResultError extends LoaderError {
  readonly result: JsonValue;

  constructor(code: ErrorCode, message: string, result: JsonValue) {
    super(code, message);
    this.result = result;
  }
}

/** Makes a provider of its definition. */
export function defineProvider<Parameters extends ParametersSchema, Result extends TSchema>(
  definition: ProviderDefinition<Parameters, Result>,
): Provider {
  const { name, parameters: schema, result, formats = {}, isRepeatable, run, onOutsideWork } = definition;
  // It stops at the first fault: to find all of those of a long list would hold up all other requests.
  // Ajv's strict mode finds what it can't understand; the schema of schemas, which is slow to compile, would add little.
  const ajv = new Ajv({ formats, verbose: true, validateSchema: false });
  const isValid = ajv.compile<Static<Parameters>>(schema);
  const secretNames = Object.keys(schema.properties).filter((key) => schema.properties[key]?.['writeOnly'] === true);
  if (isRepeatable && secretNames.length > 0) throw new Error(`${name} can't be repeated: its secrets are not kept`);
  return {
    name,
    parameters: schema,
    result,
    isRepeatable,
    ...(onOutsideWork === undefined ? {} : { onOutsideWork }),
    prepare: (parameters) => {
      const given: unknown = parameters;
      if (!isValid(given)) throw new InputError(toSchemaFaults(isValid.errors ?? [], formats));
      const isSecret = (key: string) => secretNames.includes(key);
      return {
        parameters: Object.fromEntries(Object.entries(parameters).filter(([key]) => !isSecret(key))),
        hasSecrets: Object.keys(parameters).some(isSecret),
        work: (context) => run(given, context),
      };
    },
  };
}
