import jwt from 'jsonwebtoken';
import { LoaderError } from '../errors.ts';
import { asRecord } from '../json.ts';

/** The keys that check the signature of a token. Without either, its claims are decoded and not checked. */
export interface TokenKeys {
  readonly publicKeyPem: string | undefined;
  readonly secret: string | undefined;
}

// Each kind of key has its own algorithms: a public key must never serve as an HMAC secret.
const PUBLIC_KEY_ALGORITHMS: jwt.Algorithm[] = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
];
const SECRET_ALGORITHMS: jwt.Algorithm[] = ['HS256', 'HS384', 'HS512'];

/**
 * Returns the claims of a token that the API has just sent.
 *
 * Its times are not checked: the clock of a device may be wrong, and the API refuses an expired token anyway.
 *
 * @throws LoaderError `token_invalid`
 */
export function readClaims(token: string, keys: TokenKeys): Record<string, unknown> {
  if (keys.publicKeyPem !== undefined) return verify(token, keys.publicKeyPem, PUBLIC_KEY_ALGORITHMS, 'JWT_PUBLIC_KEY');
  if (keys.secret !== undefined) return verify(token, keys.secret, SECRET_ALGORITHMS, 'JWT_SECRET');
  const claims = asRecord(decode(token));
  if (claims !== undefined) return claims;
  throw new LoaderError('token_invalid', 'The Resource API sent a token that is not a JWT; check RESOURCE_API_URL.');
}

function verify(token: string, key: string, algorithms: jwt.Algorithm[], variable: string): Record<string, unknown> {
  try {
    const claims = asRecord(jwt.verify(token, key, { algorithms, ignoreExpiration: true, ignoreNotBefore: true }));
    if (claims !== undefined) return claims;
    throw new Error('the claims are not an object');
  } catch {
    throw new LoaderError(
      'token_invalid',
      `The signature of the token does not match ${variable}: set the key of this Resource API.`,
    );
  }
}

/** The error of the parser is dropped: it quotes the payload of the token. */
function decode(token: string): unknown {
  try {
    return jwt.decode(token);
  } catch {
    return undefined;
  }
}
