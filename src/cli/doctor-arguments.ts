import type { ResourceName } from '../resource-name.ts';
import { UsageError } from './cli-error.ts';
import { parseOptions } from './parse-options.ts';
import { resourceArgument } from './resource-argument.ts';

export interface DoctorArguments {
  readonly kind: 'doctor';
  /** In the place of LOGIN_EMAIL. */
  readonly email: string | undefined;
  /** Holds the password of `email`; `-` is stdin. */
  readonly passwordPath: string | undefined;
  readonly resource: ResourceName | undefined;
}

export const DOCTOR_USAGE = `Usage:
  loader doctor [--resource FOLDER/FILE] [--email EMAIL --password-file FILE]

Looks at all that a Loader needs, with the configuration of the environment:
variables, folders, hardware string, Resource API, clock, login, keys, CDN,
Docker engine and image archive. Each line says what is there, or what is wrong
and what to do. It stores nothing and changes no image, and it may run beside a
Loader. Run it as the Loader's user, in its container if it has one.

  -r, --resource FOLDER/FILE  opens this resource, which proves its key
  -e, --email EMAIL           logs in with this account in the place of that of
                              LOGIN_EMAIL and LOGIN_PASSWORD_FILE
  -p, --password-file FILE    its password; - reads it from stdin
  -h, --help                  this text

Exit codes: 0 all is well, 1 something is wrong, 2 wrong usage, 130 Ctrl-C,
143 SIGTERM.

  printf %s "$PASSWORD" | loader doctor -e operator@example.com -p -
`;

/** Reads the arguments after `doctor`. @throws UsageError */
export function parseDoctorArguments(args: readonly string[]): DoctorArguments | { readonly kind: 'help' } {
  const { values, positionals } = parseOptions({
    args: [...args],
    allowPositionals: true,
    options: {
      email: { type: 'string', short: 'e' },
      'password-file': { type: 'string', short: 'p' },
      resource: { type: 'string', short: 'r' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) return { kind: 'help' };
  const { email, 'password-file': passwordPath, resource } = values;
  if (positionals.length > 0) throw new UsageError(`There is no argument ${positionals.join(' ')}.`);
  if ((email === undefined) !== (passwordPath === undefined)) {
    throw new UsageError('--email and --password-file go together.');
  }
  if ([email, passwordPath, resource].includes('')) throw new UsageError('An argument is empty.');
  return {
    kind: 'doctor',
    email,
    passwordPath,
    resource: resource === undefined ? undefined : resourceArgument('--resource', resource),
  };
}
