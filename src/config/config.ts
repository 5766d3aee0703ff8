import { Environment, fileVariableOf, type EnvironmentVariables } from './environment.ts';
import { group, type Row, type ValuesOf } from './kinds.ts';
import { findLookalikes } from './lookalikes.ts';
import { ENGINE_VARIABLES, STATE_VARIABLES, VARIABLES } from './variables.ts';

/** Everything that can be set from outside, read once at the start. */
export type Config = ValuesOf<typeof VARIABLES>;

/** The part of it that concerns the Docker engine. */
export type EngineConfig = ValuesOf<typeof ENGINE_VARIABLES>;

/** The configuration of a process, and what its log must know of it. */
export interface TakenConfig {
  readonly config: Config;
  /** The secrets among its values, which the log must leave out. */
  readonly secrets: readonly string[];
  /** Probable mistakes. They name variables, and never hold their values. */
  readonly warnings: readonly string[];
}

/** Lists everything that is wrong with the environment. The lines hold no secret. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(`The configuration is wrong:\n${problems.map((problem) => `  - ${problem}`).join('\n')}`);
    this.problems = problems;
  }
}

/** Every name that the Loader reads from the environment. */
export const VARIABLE_NAMES: readonly string[] = group(VARIABLES).variables.flatMap(
  ({ name, hasFileForm, hasLowerCaseForm = false }) => [
    name,
    ...(hasFileForm ? [fileVariableOf(name)] : []),
    ...(hasLowerCaseForm ? [name.toLowerCase()] : []),
  ],
);

/** Reads the configuration. An empty value counts as unset. @throws ConfigError */
export function loadConfig(variables: EnvironmentVariables = process.env): Config {
  return read(group(VARIABLES), new Environment(variables));
}

/** Reads what a command that only uses the engine needs; other variables may be wrong. @throws ConfigError */
export function loadEngineConfig(variables: EnvironmentVariables = process.env): EngineConfig {
  return read(group(ENGINE_VARIABLES), new Environment(variables));
}

/** Reads what a command that only uses the state needs. @throws ConfigError */
export function loadStateConfig(variables: EnvironmentVariables = process.env): ValuesOf<typeof STATE_VARIABLES> {
  return read(group(STATE_VARIABLES), new Environment(variables));
}

/**
 * Reads the configuration, and removes its variables from `variables`, together with those that look like them:
 * programs that the Loader starts inherit the environment, and must find no secret there. @throws ConfigError
 */
export function takeConfig(variables: Record<string, string | undefined> = process.env): TakenConfig {
  const environment = new Environment(variables);
  const config = read(group(VARIABLES), environment);
  const lookalikes = findLookalikes(variables, VARIABLE_NAMES);
  for (const name of [...VARIABLE_NAMES, ...lookalikes.map((lookalike) => lookalike.name)]) {
    // Assigning undefined would leave the text "undefined" in process.env.
    Reflect.deleteProperty(variables, name);
  }
  return { config, secrets: environment.secrets, warnings: lookalikes.map(({ warning }) => warning) };
}

function read<T>(row: Row<T>, environment: Environment): T {
  const values = row.read(environment);
  if (environment.problems.length > 0) throw new ConfigError(environment.problems);
  return values;
}
