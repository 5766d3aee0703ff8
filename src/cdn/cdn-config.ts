import { load as parseYaml } from 'js-yaml';
import { LoaderError } from '../errors.ts';
import { asRecord } from '../json.ts';

export interface AccessKeyPair {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
}

/** The CDN's configuration, from cdn.yaml (docs/protocol.md section 6). */
export interface CdnConfig {
  readonly host: string;
  readonly region: string;
  /** With a bucket, the folder is part of the key; without one, the folder is the bucket. */
  readonly bucket: string | undefined;
  readonly downloader: AccessKeyPair;
  readonly uploader: AccessKeyPair;
  readonly resourceKey: string | undefined;
}

/** Characters of the file. Each field is a URL or a key; the parser takes seconds for megabytes. */
const MAX_LENGTH = 64 * 1024;

/**
 * Parses a decrypted cdn.yaml.
 *
 * @throws LoaderError `cdn_config_invalid`, naming the field. Neither message nor cause quotes the text: it holds
 * secrets, and the YAML parser's errors show the lines around a fault.
 */
export function parseCdnConfig(text: string): CdnConfig {
  if (text.length > MAX_LENGTH) throw new LoaderError('cdn_config_invalid', 'cdn.yaml has more than 64 KiB.');
  let document: unknown;
  try {
    document = parseYaml(text);
  } catch {
    throw new LoaderError('cdn_config_invalid', 'cdn.yaml is not YAML.');
  }
  const record = asRecord(document);
  if (record === undefined) {
    throw new LoaderError('cdn_config_invalid', 'cdn.yaml is not a mapping of names to values.');
  }
  const fields = new Map<string, unknown>(Object.entries(record));
  return Object.freeze({
    host: parseHost(requireText(fields, 'host')),
    region: optionalText(fields, 'region') ?? 'us-east-1',
    bucket: optionalText(fields, 'bucket'),
    downloader: {
      accessKeyId: requireText(fields, 'downloader_access_key'),
      secretAccessKey: requireText(fields, 'downloader_access_secret'),
    },
    uploader: {
      accessKeyId: requireText(fields, 'uploader_access_key'),
      secretAccessKey: requireText(fields, 'uploader_access_secret'),
    },
    resourceKey: optionalText(fields, 'resource_key'),
  });
}

function optionalText(fields: ReadonlyMap<string, unknown>, name: string): string | undefined {
  const value = fields.get(name);
  if (value === undefined || value === null) return undefined;
  // YAML takes an access key of digits only for a number, which would lose its leading zeros.
  if (typeof value !== 'string' || value === '') {
    throw new LoaderError('cdn_config_invalid', `cdn.yaml: ${name} must be a non-empty text; quote it.`);
  }
  return value;
}

function requireText(fields: ReadonlyMap<string, unknown>, name: string): string {
  const value = optionalText(fields, name);
  if (value === undefined) throw new LoaderError('cdn_config_invalid', `cdn.yaml: ${name} is missing.`);
  return value;
}

function parseHost(host: string): string {
  const url = URL.canParse(host) ? new URL(host) : undefined;
  if (url === undefined || !['http:', 'https:'].includes(url.protocol)) {
    throw new LoaderError('cdn_config_invalid', 'cdn.yaml: host must be a URL with http:// or https://.');
  }
  return host;
}
