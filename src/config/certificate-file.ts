import { X509Certificate } from 'node:crypto';
import type { About, Row } from './kinds.ts';

/** The certificates in the PEM file that the variable names. Unset, it is an empty list. */
export function certificateFile(name: string, { about }: About): Row<readonly string[]> {
  return {
    variables: [{ name, fallback: undefined, about, hasFileForm: false }],
    read: (environment) => {
      const filePath = environment.text(name);
      const pem = filePath === undefined ? undefined : environment.file(name, filePath);
      if (pem === undefined) return [];
      const certificates = pem.match(/-----BEGIN CERTIFICATE-----[^]*?-----END CERTIFICATE-----/g) ?? [];
      if (certificates.length === 0 || !certificates.every(isCertificate)) {
        environment.report(
          `${name}: the file ${filePath} must hold certificates in PEM, with -----BEGIN CERTIFICATE-----`,
        );
      }
      return Object.freeze(certificates);
    },
  };
}

function isCertificate(pem: string): boolean {
  try {
    new X509Certificate(pem);
    return true;
  } catch {
    return false;
  }
}
