import { fileVariableOf, withoutLineEnd, type Environment } from './environment.ts';
import { group, splitList, type About, type Row } from './kinds.ts';

/** A text that is kept out of the log, and may stand in a file. It may be unset. */
export function secret(name: string, { about }: About): Row<string | undefined> {
  return {
    variables: [{ name, fallback: undefined, about, hasFileForm: true }],
    read: (environment) => {
      const value = environment.textOrFile(name);
      if (value !== undefined) environment.secrets.push(value);
      return value;
    },
  };
}

/** A secret that may stand in a file, which may be replaced while the Loader runs. */
export interface RotatedSecret<T> {
  readonly initial: T;
  /** The variable that names the file, and its path, if it stands in one. */
  readonly variable: string;
  readonly path: string | undefined;
}

/** Several secrets, separated by commas. The list is empty where the variable is unset. */
export function secretList(name: string, { about }: About): Row<RotatedSecret<readonly string[]>> {
  return {
    variables: [{ name, fallback: undefined, about, hasFileForm: true }],
    read: (environment) => {
      const value = environment.textOrFile(name);
      const secrets = value === undefined ? [] : parseSecretList(value);
      if (secrets === undefined) {
        environment.report(`${name} must be one or more keys of visible ASCII characters, separated by commas`);
      }
      environment.secrets.push(...(secrets ?? []));
      return rotated(environment, name, secrets ?? []);
    },
  };
}

/** The keys in a text; undefined when it holds none: every route would be open. */
export function parseSecretList(text: string): readonly string[] | undefined {
  const secrets = splitList(text);
  return secrets.length > 0 && secrets.every((key) => /^[\x21-\x7e]+$/.test(key)) ? Object.freeze(secrets) : undefined;
}

/** The account that the Loader logs in with by itself. */
export interface OwnAccount {
  readonly email: string;
  readonly password: RotatedSecret<string>;
}

/** Email and password of the Loader's own account: both are set, or neither. */
export function ownAccount(rows: {
  readonly email: Row<string | undefined>;
  readonly password: Row<string | undefined>;
}): Row<OwnAccount | undefined> {
  const row = group(rows);
  const [emailName, passwordName] = row.variables.map(({ name }) => name) as [string, string];
  return {
    ...row,
    read: (environment) => {
      const { email, password } = row.read(environment);
      if (email === undefined && password === undefined) return undefined;
      if (email === undefined)
        environment.report(`${passwordName} is set, but ${emailName} is not: set both or neither`);
      if (password === undefined && !environment.isSet(passwordName)) {
        environment.report(
          `${emailName} is set, but no password: set ${fileVariableOf(passwordName)} to a file that holds it, or ${passwordName}`,
        );
      }
      return Object.freeze({
        email: email ?? '',
        password: rotated(environment, passwordName, password ?? ''),
      });
    },
  };
}

/** The secret in a file; undefined when there is none. */
export function parseSecret(text: string): string | undefined {
  const value = withoutLineEnd(text);
  return value === '' ? undefined : value;
}

function rotated<T>(environment: Environment, name: string, initial: T): RotatedSecret<T> {
  const variable = fileVariableOf(name);
  return Object.freeze({ initial, variable, path: environment.text(variable) });
}
