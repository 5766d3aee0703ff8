import { UsageError } from './cli-error.ts';
import { parseOptions } from './parse-options.ts';

export interface VerifyArguments {
  readonly kind: 'verify';
  /** The plaintext; `-` is stdin. */
  readonly filePath: string;
  readonly manifestPath: string;
  /** One of these keys must have signed the manifest. */
  readonly resourceKeyPath: string | undefined;
  readonly publicKeyPaths: readonly string[];
}

export const VERIFY_USAGE = `Usage:
  loader verify FILE --manifest MANIFEST --public-key PEM...
  loader verify FILE --manifest MANIFEST --resource-key-file KEY

Checks a file that was loaded, without a network: its length and its SHA-256 must
be those of the manifest, and one of the keys must have signed the manifest.

  FILE                       the file; - reads it from stdin
  -m, --manifest MANIFEST    NAME.manifest, as it lies beside NAME.big on the CDN
  -p, --public-key PEM       the public key of an uploader, Ed25519 or ECDSA
                             P-256; may be given several times
  -k, --resource-key-file KEY
                             the secret of RESOURCE_KEY
  -h, --help                 this text

Exit codes: 0 the file is whole, 1 it is not or can't be checked, 2 wrong usage,
130 Ctrl-C, 143 SIGTERM.
`;

/** Reads the arguments after `verify`. @throws UsageError */
export function parseVerifyArguments(args: readonly string[]): VerifyArguments | { readonly kind: 'help' } {
  const { values, positionals } = parseOptions({
    args: [...args],
    allowPositionals: true,
    options: {
      manifest: { type: 'string', short: 'm' },
      'public-key': { type: 'string', short: 'p', multiple: true },
      'resource-key-file': { type: 'string', short: 'k' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) return { kind: 'help' };
  const { manifest: manifestPath, 'public-key': publicKeyPaths = [], 'resource-key-file': resourceKeyPath } = values;
  const [filePath, ...others] = positionals;
  if (filePath === undefined || others.length > 0) throw new UsageError('Name one file.');
  if (manifestPath === undefined) throw new UsageError('--manifest is missing.');
  // A signature of an uploader says more than that of everyone who has the resource key: the two are no alternatives.
  if ((resourceKeyPath === undefined) === (publicKeyPaths.length === 0)) {
    throw new UsageError('Give --public-key or --resource-key-file, not both.');
  }
  const paths = [filePath, manifestPath, resourceKeyPath, ...publicKeyPaths];
  if (paths.includes('')) throw new UsageError('An argument is empty.');
  if (paths.filter((path) => path === '-').length > 1) throw new UsageError('Only one of them can be stdin.');
  return { kind: 'verify', filePath, manifestPath, resourceKeyPath, publicKeyPaths };
}
