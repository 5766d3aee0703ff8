import { createHash, generateKeyPairSync, randomBytes, sign, type KeyObject } from 'node:crypto';
import { isIP } from 'node:net';
import { DER } from './der.ts';

export interface CertificateOptions {
  /** Host names and IPv4 addresses; the loopback ones unless given. */
  readonly hosts?: readonly string[];
  /** Yesterday unless given. */
  readonly validFrom?: Date;
  /** Next week unless given. */
  readonly validUntil?: Date;
}

/** In PEM. */
export interface ServerCertificate {
  readonly certificate: string;
  readonly key: string;
}

interface Subject {
  readonly name: string;
  readonly publicKey: KeyObject;
  readonly validFrom: Date;
  readonly validUntil: Date;
  readonly extensions: readonly Uint8Array[];
}

const DAY_MS = 24 * 3600_000;
const ECDSA_WITH_SHA256 = DER.sequence(DER.objectId('1.2.840.10045.4.3.2'));
const SERVER_AUTH = DER.objectId('1.3.6.1.5.5.7.3.1');

/**
 * A certificate authority of a test's own (RFC 5280), which no machine trusts. Its certificates may have any dates and
 * hosts. It is here since Node makes no certificates, and openssl is not on every machine.
 */
export class CertificateAuthority {
  /** Its own certificate, in PEM, for those who must trust it. */
  readonly certificate: string;
  readonly #name: string;
  readonly #keys = newKeys();

  constructor(name = 'Authority of a test') {
    this.#name = name;
    this.certificate = this.#certify({
      name,
      publicKey: this.#keys.publicKey,
      validFrom: new Date(0),
      validUntil: new Date('2100-01-01'),
      extensions: [
        extension('2.5.29.19', DER.sequence(DER.boolean(true)), { isCritical: true }), // An authority.
        extension('2.5.29.15', DER.bitString(Buffer.of(0b0000_0110), 1), { isCritical: true }), // It signs.
      ],
    });
  }

  issue({ hosts = ['localhost', '127.0.0.1'], ...dates }: CertificateOptions = {}): ServerCertificate {
    const { publicKey, privateKey } = newKeys();
    const key = privateKey.export({ type: 'pkcs8', format: 'pem' });
    const names = hosts.map((host) =>
      isIP(host) === 4
        ? DER.tagged(7, Buffer.from(host.split('.').map(Number)), { isPrimitive: true })
        : DER.tagged(2, Buffer.from(host), { isPrimitive: true }),
    );
    const certificate = this.#certify({
      name: hosts[0] ?? 'no host',
      publicKey,
      validFrom: dates.validFrom ?? new Date(Date.now() - DAY_MS),
      validUntil: dates.validUntil ?? new Date(Date.now() + 7 * DAY_MS),
      extensions: [
        extension('2.5.29.19', DER.sequence(), { isCritical: true }), // No authority.
        extension('2.5.29.15', DER.bitString(Buffer.of(0b1000_0000), 7), { isCritical: true }), // Signatures.
        extension('2.5.29.37', DER.sequence(SERVER_AUTH)),
        extension('2.5.29.17', DER.sequence(...names)),
      ],
    });
    return { certificate, key };
  }

  #certify({ name, publicKey, validFrom, validUntil, extensions }: Subject): string {
    const content = DER.sequence(
      DER.tagged(0, DER.integer(Buffer.of(2))), // Version 3.
      DER.integer(Buffer.concat([Buffer.of(1), randomBytes(15)])),
      ECDSA_WITH_SHA256,
      commonName(this.#name),
      DER.sequence(DER.time(validFrom), DER.time(validUntil)),
      commonName(name),
      publicKey.export({ type: 'spki', format: 'der' }),
      DER.tagged(
        3,
        DER.sequence(
          ...extensions,
          extension('2.5.29.14', DER.octetString(keyId(publicKey))),
          extension('2.5.29.35', DER.sequence(DER.tagged(0, keyId(this.#keys.publicKey), { isPrimitive: true }))),
        ),
      ),
    );
    const signature = sign('sha256', content, this.#keys.privateKey);
    const der = DER.sequence(content, ECDSA_WITH_SHA256, DER.bitString(signature));
    const lines = der.toString('base64').match(/.{1,64}/g) ?? [];
    return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`;
  }
}

function newKeys() {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' });
}

function commonName(name: string): Buffer {
  return DER.sequence(DER.set(DER.sequence(DER.objectId('2.5.4.3'), DER.utf8(name))));
}

function extension(id: string, value: Uint8Array, { isCritical = false } = {}): Buffer {
  const critical = isCritical ? [DER.boolean(true)] : [];
  return DER.sequence(DER.objectId(id), ...critical, DER.octetString(value));
}

function keyId(key: KeyObject): Buffer {
  return createHash('sha1')
    .update(key.export({ type: 'spki', format: 'der' }))
    .digest();
}
