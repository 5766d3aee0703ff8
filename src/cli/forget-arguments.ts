import type { ResourceName } from '../resource-name.ts';
import { UsageError } from './cli-error.ts';
import { parseOptions } from './parse-options.ts';
import { resourceArgument } from './resource-argument.ts';

export interface ForgetArguments {
  readonly kind: 'forget';
  readonly resource: ResourceName;
}

export const FORGET_USAGE = `Usage:
  loader forget FOLDER/FILE

Lets this device take an older version of a resource again. A device takes no
manifest that is older than one that it has accepted; that protects from whoever
puts an old version back, and is in the way once, after an uploader's clock was
ahead. STATE_DIR must be that of the Loader, which may run meanwhile.

  -h, --help  this text

Exit codes: 0 done, 1 it could not be done, 2 wrong usage.
`;

/** Reads the arguments after `forget`. @throws UsageError */
export function parseForgetArguments(args: readonly string[]): ForgetArguments | { readonly kind: 'help' } {
  const { values, positionals } = parseOptions({
    args: [...args],
    allowPositionals: true,
    options: { help: { type: 'boolean', short: 'h', default: false } },
  });
  if (values.help) return { kind: 'help' };
  const [name, ...others] = positionals;
  if (name === undefined || others.length > 0) throw new UsageError('Name one resource, as FOLDER/FILE.');
  return { kind: 'forget', resource: resourceArgument('The resource', name) };
}
