import { Type } from '../json-schemas.ts';
import { defineProvider, type Provider } from '../tasks/provider.ts';
import type { UnlockService } from '../unlock/unlock-service.ts';
import { followUnlock, UNLOCK_RESULT, type FollowedUnlocks } from './follow-unlock.ts';
import { untilLoggedIn, type LoginGate } from './until-logged-in.ts';

export interface ReleaseProviderOptions {
  readonly upstream: LoginGate;
  readonly unlocks: FollowedUnlocks & Pick<UnlockService, 'startRelease'>;
}

const PARAMETERS = Type.Object({}, { additionalProperties: false });

/** The unlock of the device's image archive with the login of the Loader: it has no secret, so a schedule can run it. */
export function createReleaseProvider({ upstream, unlocks }: ReleaseProviderOptions): Provider {
  return defineProvider({
    name: 'release',
    parameters: PARAMETERS,
    result: UNLOCK_RESULT,
    isRepeatable: true,
    run: async (_parameters, context) => {
      await untilLoggedIn(upstream, context);
      return await followUnlock(unlocks, context, async () => {
        await unlocks.startRelease();
      });
    },
  });
}
