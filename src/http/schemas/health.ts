import type { Static } from 'typebox';
import type { ApiClientStatus } from '../../api-client/api-client.ts';
import { nullable, textEnum, Type } from '../../json-schemas.ts';

export const HEALTH = Type.Object(
  { status: textEnum(['healthy']) },
  { description: 'The process serves requests.', examples: [{ status: 'healthy' }] },
);

export const STATUS = Type.Object(
  {
    status: textEnum(['healthy']),
    authenticated: Type.Boolean({ description: 'Whether a login has succeeded since the start.' }),
    modelCacheDir: Type.String({ description: 'The folder of the cache.' }),
    clock_offset_ms: nullable(
      Type.Integer({
        description:
          'The time of the servers upstream minus that of the device, in ms, to a second or two; null before their first answer.',
      }),
    ),
  },
  {
    description: 'The process serves requests.',
    examples: [{ status: 'healthy', authenticated: true, modelCacheDir: 'models', clock_offset_ms: -120 }],
  },
);

export function toStatus(
  { isAuthenticated, clockOffsetMs }: ApiClientStatus,
  modelCacheDir: string,
): Static<typeof STATUS> {
  return { status: 'healthy', authenticated: isAuthenticated, modelCacheDir, clock_offset_ms: clockOffsetMs };
}
