import type { Static } from 'typebox';
import { NEVER, onAbort } from '../async/abort.ts';
import { LoaderError } from '../errors.ts';
import { nullable, textEnum, Type } from '../json-schemas.ts';
import type { TaskContext } from '../tasks/provider.ts';
import type { UnlockService } from '../unlock/unlock-service.ts';

/** What follows a run needs of the UnlockService. */
export type FollowedUnlocks = Pick<UnlockService, 'cancel' | 'watch'>;

/** The result of a task that has followed a run to its end. */
export const UNLOCK_RESULT = Type.Object({
  state: textEnum(['ready']),
  images: nullable(Type.Integer({ description: 'Images of the archive; null when all of them were there.' })),
  bytes: nullable(Type.Integer({ description: 'Bytes of layers that the engine took.' })),
});

type UnlockResult = Static<typeof UNLOCK_RESULT>;

/** Follows the run that `start` begins, or that is under way, to its end. */
export async function followUnlock(
  unlocks: FollowedUnlocks,
  context: TaskContext,
  start: () => Promise<void>,
): Promise<UnlockResult> {
  context.signal.throwIfAborted();
  let cancelled: Promise<unknown> | undefined;
  using _abort = onAbort(context.signal, () => {
    cancelled = unlocks.cancel();
  });
  try {
    await start();
    return await watch(unlocks, context);
  } catch (error) {
    // DELETE /unlock cancelled the run.
    if (error instanceof LoaderError && error.code === 'unlock_cancelled') {
      throw new LoaderError('task_cancelled', error.message, { cause: error });
    }
    throw error;
  } finally {
    await cancelled;
  }
}

async function watch(unlocks: FollowedUnlocks, context: TaskContext): Promise<UnlockResult> {
  let state: string | undefined;
  // The task's signal does not end this, since a cancelled run is followed until its side effects have ended.
  for await (const status of unlocks.watch(NEVER)) {
    const { progress } = status;
    if (progress !== null) context.report(progress);
    if (status.state !== state) context.log('info', status.state);
    ({ state } = status);
    if (status.state === 'error') throw new LoaderError(status.code ?? 'internal_error', status.error ?? '');
    if (status.state === 'ready') {
      return { state: status.state, images: progress?.imagesTotal ?? null, bytes: progress?.bytesTotal ?? null };
    }
  }
  throw new LoaderError('unlock_cancelled', 'The Loader stopped before the unlock had begun.');
}
