import { UsageError } from './cli-error.ts';
import { parseOptions } from './parse-options.ts';

export interface PackArguments {
  readonly kind: 'pack';
  /** What is packed: images of the engine, or a file with the tar of `docker save`; `-` is stdin. */
  readonly source: { readonly images: readonly string[] } | { readonly tarPath: string };
  readonly outputPath: string;
  readonly keyFragmentPath: string;
}

export const PACK_USAGE = `Usage:
  loader pack IMAGE... --output FILE --key-fragment-file FILE
  loader pack --from-tar FILE --output FILE --key-fragment-file FILE

Makes the encrypted image archive that a Loader unlocks (IMAGES_PATH), reads it
back and prints what it holds. It never overwrites a file.

  IMAGE...                  images of the Docker engine; without a tag: latest
  --from-tar FILE           a tar that docker save wrote, in place of images;
                            - reads it from stdin
  -o, --output FILE         the archive; it appears when it is whole
  -k, --key-fragment-file FILE
                            the key fragment, byte by byte as the Resource API
                            sends it
  -h, --help                this text

Environment: DOCKER_HOST, DOCKER_TLS_VERIFY, DOCKER_CERT_PATH,
ENGINE_TIMEOUT_MS, ENGINE_STALL_TIMEOUT_MS.
Exit codes: 0 done, 1 failed, 2 wrong usage, 130 Ctrl-C, 143 SIGTERM.
`;

/** Reads the arguments after `pack`. @throws UsageError */
export function parsePackArguments(args: readonly string[]): PackArguments | { readonly kind: 'help' } {
  const { values, positionals } = parseOptions({
    args: [...args],
    allowPositionals: true,
    options: {
      output: { type: 'string', short: 'o' },
      'key-fragment-file': { type: 'string', short: 'k' },
      'from-tar': { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) return { kind: 'help' };
  const { output, 'key-fragment-file': keyFragmentPath, 'from-tar': tarPath } = values;
  if (tarPath === undefined && positionals.length === 0) throw new UsageError('Name the images, or use --from-tar.');
  if (tarPath !== undefined && positionals.length > 0) {
    throw new UsageError('Name images or use --from-tar, not both.');
  }
  if (output === undefined) throw new UsageError('--output is missing.');
  if (keyFragmentPath === undefined) throw new UsageError('--key-fragment-file is missing.');
  if ([output, keyFragmentPath, tarPath, ...positionals].includes('')) throw new UsageError('An argument is empty.');
  const source = tarPath === undefined ? { images: [...new Set(positionals)] } : { tarPath };
  return { kind: 'pack', source, outputPath: output, keyFragmentPath };
}
