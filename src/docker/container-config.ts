import { isDeepStrictEqual } from 'node:util';

/** What containers get of an image's config. Every engine tells these as they are in the config. */
const FIELDS = [
  'Cmd',
  'Entrypoint',
  'Env',
  'ExposedPorts',
  'Labels',
  'StopSignal',
  'User',
  'Volumes',
  'WorkingDir',
] as const;

/** The part `config` of an image's config, or what an engine tells of it. */
export type ContainerConfig = Readonly<Record<string, unknown>>;

/** Tells whether containers get the same of both. An engine tells more fields, and null where there is nothing. */
export function isSameContainerConfig(one: ContainerConfig, other: ContainerConfig): boolean {
  return FIELDS.every((field) => isDeepStrictEqual(plain(one[field]), plain(other[field])));
}

function plain(value: unknown): unknown {
  if (value === null || value === '') return undefined;
  if (typeof value === 'object') return Object.keys(value).length === 0 ? undefined : value;
  return value;
}
