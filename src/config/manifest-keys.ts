import { createPrivateKey, createPublicKey } from 'node:crypto';
import { PublicKey, SigningKey } from '../manifest/manifest-keys.ts';
import type { About, Row } from './kinds.ts';

/** The private key that signs the manifests of uploads, in PEM, which may stand in a file. It may be unset. */
export function signingKey(name: string, { about }: About): Row<SigningKey | undefined> {
  return {
    variables: [{ name, fallback: undefined, about, hasFileForm: true }],
    read: (environment) => {
      const pem = environment.textOrFile(name);
      if (pem === undefined) return undefined;
      environment.secrets.push(pem);
      try {
        return new SigningKey(createPrivateKey(pem));
      } catch {
        // The cause is not told: it may quote the text.
        environment.report(`${name} must be a private key in PEM without a passphrase, of Ed25519 or ECDSA P-256`);
        return undefined;
      }
    },
  };
}

const PEM_BLOCK = /-----BEGIN PUBLIC KEY-----[^-]*-----END PUBLIC KEY-----/g;

/** Public keys in PEM, one after the other, which may stand in a file. The list is empty where the variable is unset. */
export function publicKeys(name: string, { about }: About): Row<readonly PublicKey[]> {
  return {
    variables: [{ name, fallback: undefined, about, hasFileForm: true }],
    read: (environment) => {
      const text = environment.textOrFile(name);
      if (text === undefined) return Object.freeze([]);
      try {
        const blocks = text.match(PEM_BLOCK) ?? [];
        // What is no key would be passed over unseen, and with it a key that was cut.
        if (blocks.length === 0 || text.replaceAll(PEM_BLOCK, '').trim() !== '')
          throw new Error('not only public keys');
        return Object.freeze(blocks.map((pem) => new PublicKey(createPublicKey(pem))));
      } catch {
        environment.report(
          `${name} must be public keys in PEM, with -----BEGIN PUBLIC KEY-----, of Ed25519 or ECDSA P-256, and nothing else`,
        );
        return Object.freeze([]);
      }
    },
  };
}
