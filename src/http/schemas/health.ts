import type { Static } from 'typebox';
import type { ApiClientStatus } from '../../api-client/api-client.ts';
import { textEnum, Type } from '../../json-schemas.ts';

export const HEALTH = Type.Object(
  { status: textEnum(['healthy']) },
  { description: 'The process serves requests.', examples: [{ status: 'healthy' }] },
);

export const STATUS = Type.Object(
  {
    status: textEnum(['healthy']),
    authenticated: Type.Boolean({ description: 'Whether a login has succeeded since the start.' }),
    modelCacheDir: Type.String({ description: 'The folder of the cache.' }),
  },
  {
    description: 'The process serves requests.',
    examples: [{ status: 'healthy', authenticated: true, modelCacheDir: 'models' }],
  },
);

export function toStatus({ isAuthenticated }: ApiClientStatus, modelCacheDir: string): Static<typeof STATUS> {
  return { status: 'healthy', authenticated: isAuthenticated, modelCacheDir };
}
