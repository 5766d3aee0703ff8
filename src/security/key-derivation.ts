import { createHash } from 'node:crypto';

/**
 * The keys of docs/protocol.md section 1, as pure functions of their arguments.
 */

/** `base64(SHA-384(utf8(text)))`, standard alphabet, padded: 64 characters. */
export function digest(text: string): string {
  return createHash('sha384').update(text, 'utf8').digest('base64');
}

/** The digest of the hardware template with `{hardware}` filled in. */
export function deriveHardwareHash(template: string, hardware: string): string {
  return digest(fillTemplate(template, { hardware }));
}

/** The digest of the API template with `{email}`, `{password}` and `{hardware_hash}` filled in. */
export function deriveApiKey(
  template: string,
  values: { readonly email: string; readonly password: string; readonly hardwareHash: string },
): string {
  return digest(
    fillTemplate(template, { email: values.email, password: values.password, hardware_hash: values.hardwareHash }),
  );
}

/** The digest of the secret that all devices of a fleet share. */
export function deriveResourceKey(secret: string): string {
  return digest(secret);
}

/** The 32 bytes with which an envelope under `key` (one of the digests above) is encrypted. */
export function deriveAesKey(key: string): Buffer {
  return createHash('sha256').update(key, 'utf8').digest();
}

/** The 32 bytes with which the image archive is encrypted, from the fragment's raw bytes, neither trimmed nor decoded. */
export function deriveArchiveAesKey(keyFragment: Buffer): Buffer {
  return createHash('sha256').update(keyFragment).digest();
}

/** Fills in each placeholder once, in one pass: a password that contains `{email}` stays as it is. */
function fillTemplate(template: string, values: Readonly<Record<string, string>>): string {
  return template.replace(/\{(\w+)\}/g, (placeholder, name: string) => values[name] ?? placeholder);
}
