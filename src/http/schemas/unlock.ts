import type { Static } from 'typebox';
import { ERROR_CODE, nullable, textEnum, Type } from '../../json-schemas.ts';
import type { UnlockStatus } from '../../unlock/unlock-service.ts';
import type { UnlockState } from '../../unlock/unlock-state-machine.ts';
import type { ServerEvent } from '../bodies/send-events.ts';

const STATE = textEnum(
  ['idle', 'authenticating', 'downloading_key', 'decrypting', 'loading_images', 'ready', 'error'],
  { description: 'The names are those of the original.' },
);

/** The end of a run as other routes show it. */
export const UNLOCK_OUTCOME = Type.Object({
  state: STATE,
  error: nullable(Type.String()),
  code: nullable(ERROR_CODE),
});

const PROGRESS = Type.Object(
  {
    bytesDone: Type.Integer({ description: 'Bytes of layers that the engine has taken.' }),
    bytesTotal: Type.Integer({ description: 'Bytes of layers that it lacked.' }),
    imagesDone: Type.Integer(),
    imagesTotal: Type.Integer({ description: 'Images of the archive, those that were there already included.' }),
    currentImages: Type.Array(Type.String()),
    percent: Type.Integer({ description: '0 to 100; it never goes back, and is 100 only when every image is there.' }),
    bytesPerSecond: Type.Integer({ description: 'Of the last seconds.' }),
    secondsLeft: nullable(Type.Integer({ description: 'An estimate; null while there is none.' })),
  },
  { description: 'Null before the first run.' },
);

export const UNLOCK_STATE = Type.Object({ state: STATE }, { examples: [{ state: 'authenticating' }] });

export const UNLOCK_STATUS = Type.Object(
  {
    state: STATE,
    error: nullable(Type.String({ description: 'Why the last run failed, for people.' })),
    code: nullable(ERROR_CODE),
    progress: nullable(PROGRESS),
  },
  {
    $id: 'UnlockStatus',
    description: 'The state of the unlock, and how far it is.',
    examples: [{ state: 'idle', error: null, code: null, progress: null }],
  },
);

export function toUnlockState(state: UnlockState): Static<typeof UNLOCK_STATE> {
  return { state };
}

export function toUnlockStatus({ state, error, code, progress }: UnlockStatus): Static<typeof UNLOCK_STATUS> {
  const view = progress === null ? null : { ...progress, currentImages: [...progress.currentImages] };
  return { state, error, code, progress: view };
}

export function toUnlockEvent(status: UnlockStatus): ServerEvent {
  return { event: 'status', data: toUnlockStatus(status) };
}
