/** The roles of the Resource API that the Loader knows. Another role grants nothing. */
export const ROLES = ['None', 'Operator', 'Validator', 'CompanionPC', 'Admin', 'ResourceUploader', 'ApiAdmin'] as const;
export type Role = (typeof ROLES)[number];

/** The user who is logged in, from the claims of the token. */
export interface User {
  readonly id: string | undefined;
  readonly email: string | undefined;
  /** The role as the token names it, known or not. */
  readonly roleName: string;
  /** `None` for an unknown role. */
  readonly role: Role;
  /** Unix time in seconds. */
  readonly expiresAt: number | undefined;
}

/** The names of the claims: the short ones, and the URIs that .NET issues for the same claims. */
const ID_CLAIMS = ['nameid', 'http://schemas.xmlsoap.org/ws/2005/05/identity/claims/nameidentifier'];
const EMAIL_CLAIMS = [
  'unique_name',
  'email',
  'http://schemas.xmlsoap.org/ws/2005/05/identity/claims/name',
  'http://schemas.xmlsoap.org/ws/2005/05/identity/claims/emailaddress',
];
const ROLE_CLAIMS = ['role', 'http://schemas.microsoft.com/ws/2008/06/identity/claims/role'];

export function userFromClaims(claims: Readonly<Record<string, unknown>>): User {
  const roleName = firstText(claims, ROLE_CLAIMS) ?? 'None';
  const expiresAt = claims['exp'];
  return Object.freeze({
    id: firstText(claims, ID_CLAIMS),
    email: firstText(claims, EMAIL_CLAIMS),
    roleName,
    role: ROLES.find((role) => role === roleName) ?? 'None',
    expiresAt: typeof expiresAt === 'number' ? expiresAt : undefined,
  });
}

function firstText(claims: Readonly<Record<string, unknown>>, names: readonly string[]): string | undefined {
  return names.map((name) => claims[name]).find((value) => typeof value === 'string' && value !== '') as
    string | undefined;
}
