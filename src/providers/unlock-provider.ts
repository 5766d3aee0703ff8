import type { Static } from 'typebox';
import { LoaderError } from '../errors.ts';
import type { UnlockService } from '../unlock/unlock-service.ts';
import { defineProvider, type Provider, type TaskContext } from '../tasks/provider.ts';
import { nullable, textEnum, Type } from '../json-schemas.ts';
import { NEVER, onAbort } from '../async/abort.ts';

/** What the provider needs of the UnlockService. */
type Unlocks = Pick<UnlockService, 'start' | 'cancel' | 'watch' | 'onRun'>;

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

const RESULT = Type.Object({
  state: textEnum(['ready']),
  images: nullable(Type.Integer({ description: 'Images of the archive; null when all of them were there.' })),
  bytes: nullable(Type.Integer({ description: 'Bytes of layers that the engine took.' })),
});

type UnlockResult = Static<typeof RESULT>;

/** The unlock of the device's image archive. A run that POST /unlock begins becomes a task as well. */
export function createUnlockProvider(unlocks: Unlocks): Provider {
  let runEmail: string | undefined;
  return defineProvider({
    name: 'unlock',
    parameters: PARAMETERS,
    result: RESULT,
    isRepeatable: false, // The password is not stored.
    run: ({ email, password }, context) =>
      follow(unlocks, context, async () => {
        const state = await unlocks.start(email, password);
        if (state !== 'ready' && runEmail !== email) context.log('warn', 'Another caller began this unlock.');
      }),
    onOutsideWork: (begin) => {
      unlocks.onRun((email) => {
        runEmail = email;
        begin({ email }, (context) => follow(unlocks, context, () => Promise.resolve()));
      });
    },
  });
}

/** Follows the run that `start` begins, or that is under way, to its end. */
async function follow(unlocks: Unlocks, context: TaskContext, start: () => Promise<void>): Promise<UnlockResult> {
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

async function watch(unlocks: Unlocks, context: TaskContext): Promise<UnlockResult> {
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
