import { Type } from '../json-schemas.ts';
import { defineProvider, type Provider } from '../tasks/provider.ts';
import type { UnlockService } from '../unlock/unlock-service.ts';
import { followUnlock, UNLOCK_RESULT, type FollowedUnlocks } from './follow-unlock.ts';

/** What the provider needs of the UnlockService. */
type Unlocks = FollowedUnlocks & Pick<UnlockService, 'start' | 'onRun'>;

const PARAMETERS = Type.Object(
  {
    email: Type.String({
      description: 'The email of the user whose key fragment is used.',
      examples: ['operator@example.com'],
    }),
    password: Type.String({ writeOnly: true, description: 'Neither stored nor shown.', examples: ['secret'] }),
  },
  { additionalProperties: false },
);

/** The unlock of the device's image archive. A run that POST /unlock begins becomes a task as well. */
export function createUnlockProvider(unlocks: Unlocks): Provider {
  let runEmail: string | undefined;
  return defineProvider({
    name: 'unlock',
    parameters: PARAMETERS,
    result: UNLOCK_RESULT,
    isRepeatable: false, // The password is not stored.
    run: ({ email, password }, context) =>
      followUnlock(unlocks, context, async () => {
        const state = await unlocks.start(email, password);
        if (state !== 'ready' && runEmail !== email) context.log('warn', 'Another caller began this unlock.');
      }),
    onOutsideWork: (begin) => {
      unlocks.onRun((email) => {
        runEmail = email;
        begin({ email }, (context) => followUnlock(unlocks, context, () => Promise.resolve()));
      });
    },
  });
}
