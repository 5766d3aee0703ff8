import jwt from 'jsonwebtoken';
import { LoaderError } from '../errors.ts';

/** What the signature of a token is checked with; without either, its claims are only decoded. */
export interface TokenKeys {
  readonly publicKeyPem: string | undefined;
  readonly secret: string | undefined;
}

// A public key must never be taken for an HMAC secret, so each kind has its own algorithms.
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
 * The claims of a token that was received this moment.
 *
 * Its times are not judged: a device's clock may be wrong, and the API says by 401 when a token is no longer good.
 *
 * @throws LoaderError `token_invalid`
 */
export function readClaims(token: string, keys: TokenKeys): Record<string, unknown> {
  if (keys.publicKeyPem !== undefined) return verify(token, keys.publicKeyPem, PUBLIC_KEY_ALGORITHMS, 'JWT_PUBLIC_KEY');
  if (keys.secret !== undefined) return verify(token, keys.secret, SECRET_ALGORITHMS, 'JWT_SECRET');
  const claims = decode(token);
  if (isClaims(claims)) return claims;
  throw new LoaderError('token_invalid', 'The Resource API answered a token that is no JWT.');
}

function verify(token: string, key: string, algorithms: jwt.Algorithm[], variable: string): Record<string, unknown> {
  try {
    const claims = jwt.verify(token, key, { algorithms, ignoreExpiration: true, ignoreNotBefore: true });
    if (isClaims(claims)) return claims;
    throw new Error('the claims are no object');
  } catch {
    throw new LoaderError('token_invalid', `The token's signature does not match ${variable}.`);
  }
}

/** No cause is kept: the parser's error quotes the token's payload. */
function decode(token: string): unknown {
  try {
    return jwt.decode(token);
  } catch {
    return undefined;
  }
}

function isClaims(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
