import { createPublicKey } from 'node:crypto';
import path from 'node:path';
import { parseDockerHost, type DockerHost, type DockerTls } from '../docker/docker-host.ts';
import type { Environment } from './environment.ts';

/** A variable, as the documents show it. */
export interface Variable {
  readonly name: string;
  /** The text that counts when the variable is unset. */
  readonly fallback: string | undefined;
  /** What the variable is for, for people: it ends without a full stop. */
  readonly about: string;
  /** Whether its value may stand in the file that `NAME_FILE` names. */
  readonly hasFileForm: boolean;
  /** Whether its name may also be written in lower case, as that of other programs' variables for proxies. */
  readonly hasLowerCaseForm?: boolean;
}

/** One row of the table of the configuration: the variables that it takes, and what it makes of them. */
export interface Row<T> {
  readonly variables: readonly Variable[];
  /** Returns the value. When a text is wrong, it reports the problem, and its result is never used. */
  readonly read: (environment: Environment) => T;
}

/** The value that each row of a table gives. */
export type ValuesOf<Table extends Readonly<Record<string, Row<unknown>>>> = {
  readonly [Key in keyof Table]: Table[Key] extends Row<infer T> ? T : never;
};

export interface About {
  readonly about: string;
}

interface Fallback<T> extends About {
  readonly fallback: T;
}

/** Returns the problem with a text, as it stands after the variable's name, or undefined when the text is right. */
type Check = (text: string) => string | undefined;

const RIGHT: Check = () => undefined;

/** A text that has a default. */
export function text(name: string, options: Fallback<string>, check = RIGHT): Row<string> {
  return {
    variables: [{ name, fallback: options.fallback, about: options.about, hasFileForm: false }],
    read: (environment) => checked(environment, name, environment.text(name) ?? options.fallback, check),
  };
}

/** A text that may be unset. */
export function optionalText(name: string, { about }: About): Row<string | undefined> {
  return {
    variables: [{ name, fallback: undefined, about, hasFileForm: false }],
    read: (environment) => environment.text(name),
  };
}

/** A public key in PEM, which may stand in a file. It may be unset. */
export function publicKey(name: string, { about }: About): Row<string | undefined> {
  return {
    variables: [{ name, fallback: undefined, about, hasFileForm: true }],
    read: (environment) => {
      const pem = environment.textOrFile(name);
      if (pem !== undefined && !isPublicKey(pem)) {
        environment.report(`${name} must be a public key in PEM, with -----BEGIN PUBLIC KEY-----`);
      }
      return pem;
    },
  };
}

export interface IntegerOptions extends Fallback<number> {
  readonly min: number;
  readonly max: number;
}

export function integer(name: string, options: IntegerOptions): Row<number> {
  const { min, max, fallback, about } = options;
  const check: Check = (value) =>
    /^\d+$/.test(value) && Number(value) >= min && Number(value) <= max
      ? undefined
      : `must be a whole number from ${min} to ${max}, not "${value}"`;
  return mapped(text(name, { fallback: String(fallback), about }, check), Number);
}

/** A whole number that may be unset. */
export function optionalInteger(
  name: string,
  { min, max, about }: Omit<IntegerOptions, 'fallback'>,
): Row<number | undefined> {
  const row = optionalText(name, { about });
  return {
    ...row,
    read: (environment) => {
      const value = row.read(environment);
      if (value === undefined) return undefined;
      if (!/^\d+$/.test(value) || Number(value) < min || Number(value) > max) {
        environment.report(`${name} must be a whole number from ${min} to ${max}, not "${value}"`);
      }
      return Number(value);
    },
  };
}

/** A span of time. Node's timers take at most 2^31 - 1 ms. */
export function milliseconds(name: string, options: Fallback<number>): Row<number> {
  return integer(name, { ...options, min: 1, max: 2_147_483_647 });
}

/** A number of MiB, as bytes. */
export function mebibytes(name: string, options: IntegerOptions): Row<number> {
  return mapped(integer(name, options), (count) => count * 1024 * 1024);
}

/** A number of days as milliseconds. */
export function days(name: string, options: IntegerOptions): Row<number> {
  return mapped(integer(name, options), (count) => count * DAY_MS);
}

const DAY_MS = 24 * 60 * 60 * 1000;

export function oneOf<const T extends string>(name: string, values: readonly T[], options: Fallback<T>): Row<T> {
  const find = (value: string) => values.find((known) => known === value);
  const check: Check = (value) =>
    find(value) === undefined ? `must be one of ${values.join(', ')}, not "${value}"` : undefined;
  return mapped(text(name, options, check), (value) => find(value) ?? options.fallback);
}

/** Yes or no. */
export function flag(name: string, { about }: About): Row<boolean> {
  return mapped(oneOf(name, ['true', 'false'], { fallback: 'false', about }), (value) => value === 'true');
}

/** A URL without slashes at its end, to which paths are appended. */
export function baseUrl(name: string, options: Fallback<string>): Row<string> {
  const check: Check = (value) => {
    const url = URL.canParse(value) ? new URL(value) : undefined;
    if (url === undefined || !['http:', 'https:'].includes(url.protocol)) {
      return 'must be a URL with http:// or https://';
    }
    const isBare = !/[\s?#]/.test(value) && url.username === '' && url.password === '';
    return isBare ? undefined : 'must have no user, password, query, fragment or white space';
  };
  return mapped(text(name, options, check), (url) => url.replace(/\/+$/, ''));
}

/** A text in which each of `placeholders` stands in braces. Without one of them, different users would get one key. */
export function template(name: string, placeholders: readonly string[], options: Fallback<string>): Row<string> {
  return text(name, options, (value) => {
    const missing = placeholders.map((placeholder) => `{${placeholder}}`).filter((braced) => !value.includes(braced));
    return missing.length > 0 ? `lacks ${missing.join(', ')}` : undefined;
  });
}

export function imageTag(name: string, options: Fallback<string>): Row<string> {
  return text(name, options, (value) =>
    /^\w[\w.-]{0,127}$/.test(value) ? undefined : `must be a tag of Docker images, not "${value}"`,
  );
}

/** A repository as Docker writes it, in lower case. A registry before it has a dot or a port, or is localhost. */
const REPOSITORY =
  /^(?:(?:localhost|[\w-]+(?:\.[\w-]+)+|[\w-]+(?=:\d))(?::\d+)?\/)?[a-z0-9]+(?:(?:[._]|__|-+|\/)[a-z0-9]+)*$/;

/** Repositories of images, separated by commas. The list is empty where the variable is unset. */
export function repositories(name: string, options: About): Row<readonly string[]> {
  const row = optionalText(name, options);
  return {
    ...row,
    read: (environment) => {
      const names = splitList(row.read(environment) ?? '');
      const wrong = names.filter((repository) => !REPOSITORY.test(repository));
      if (wrong.length > 0) {
        environment.report(`${name} must be repositories without tags, separated by commas, not "${wrong.join(', ')}"`);
      }
      return Object.freeze(names);
    },
  };
}

/** A name with or without a dot before it, and without a port. */
const HOST_NAME = /^\.?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*$/;

/** Names of hosts in lower case, separated by commas. Unset, it is an empty list. */
export function hostNames(name: string, options: About): Row<readonly string[]> {
  const row = optionalText(name, options);
  return {
    ...row,
    read: (environment) => {
      const names = splitList(row.read(environment) ?? '').map((host) => host.toLowerCase());
      const wrong = names.filter((host) => !HOST_NAME.test(host));
      if (wrong.length > 0) {
        environment.report(
          `${name} must be names of hosts without ports, separated by commas, such as loader.example.com, or .example.com for all under it; not "${wrong.join(', ')}"`,
        );
      }
      return Object.freeze(names);
    },
  };
}

/** The Docker engine, in the three variables that the docker command knows. */
export function dockerHost(rows: {
  readonly host: Row<string>;
  readonly tlsVerify: Row<string | undefined>;
  readonly certPath: Row<string | undefined>;
}): Row<DockerHost> {
  const row = group(rows);
  return {
    ...row,
    read: (environment) => {
      const { host, tlsVerify, certPath } = row.read(environment);
      // Like docker, the Loader counts every value of DOCKER_TLS_VERIFY but an empty one as set.
      const tls = tlsVerify === undefined ? undefined : readTls(environment, certPath);
      try {
        return Object.freeze(parseDockerHost(host, tls));
      } catch (error) {
        environment.report(`DOCKER_HOST ${error instanceof Error ? error.message : String(error)}`);
        return { kind: 'unix', socketPath: '' };
      }
    },
  };
}

function readTls(environment: Environment, folder: string | undefined): DockerTls | undefined {
  if (folder === undefined) {
    environment.report(
      'DOCKER_TLS_VERIFY is set, but DOCKER_CERT_PATH is not: set it to the folder with ca.pem, cert.pem and key.pem',
    );
    return undefined;
  }
  const read = (name: string) => environment.file('DOCKER_CERT_PATH', path.join(folder, name)) ?? '';
  const tls = { ca: read('ca.pem'), cert: read('cert.pem'), key: read('key.pem') };
  environment.secrets.push(tls.key);
  return tls;
}

/** Several rows as one object. */
export function group<Table extends Readonly<Record<string, Row<unknown>>>>(table: Table): Row<ValuesOf<Table>> {
  return {
    variables: Object.values(table).flatMap((row) => row.variables),
    read: (environment) => {
      const values = Object.entries(table).map(([key, row]) => [key, row.read(environment)] as const);
      return Object.freeze(Object.fromEntries(values)) as ValuesOf<Table>;
    },
  };
}

/** Several optional rows as one object. At most one of them may be set. */
export function atMostOne<Table extends Readonly<Record<string, Row<string | undefined>>>>(
  table: Table,
  why: string,
): Row<ValuesOf<Table>> {
  const row = group(table);
  return {
    ...row,
    read: (environment) => {
      const values = row.read(environment);
      if (Object.values(values).filter((value) => value !== undefined).length > 1) {
        const names = row.variables.map(({ name }) => name).join(' and ');
        environment.report(`${names} are both set: ${why}`);
      }
      return values;
    },
  };
}

function mapped<T, U>(row: Row<T>, map: (value: T) => U): Row<U> {
  return { ...row, read: (environment) => map(row.read(environment)) };
}

function checked(environment: Environment, name: string, value: string, check: Check): string {
  const problem = check(value);
  if (problem !== undefined) environment.report(`${name} ${problem}`);
  return value;
}

/** The items of a list that is separated by commas. */
export function splitList(list: string): string[] {
  return list
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '');
}

function isPublicKey(pem: string): boolean {
  try {
    // createPublicKey also takes a private key, and derives the public one.
    return pem.includes('-----BEGIN PUBLIC KEY-----') && createPublicKey(pem).type === 'public';
  } catch {
    return false;
  }
}
