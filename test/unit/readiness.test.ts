import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { LoaderError } from '../../src/errors.ts';
import { Readiness } from '../../src/readiness.ts';

async function problems(missingLogin: LoaderError | undefined, folders: readonly string[]) {
  const readiness = new Readiness({
    upstream: { missingLogin },
    folders: { problems: () => Promise.resolve(folders) },
  });
  return await readiness.problems();
}

describe('a Loader', () => {
  it('is ready when a user is logged in and its folders can be used', async () => {
    assert.deepEqual(await problems(undefined, []), []);
  });

  it('tells all that is missing, each with its code', async () => {
    const missingLogin = new LoaderError('not_authenticated', 'No user is logged in.');
    assert.deepEqual(await problems(missingLogin, ['STATE_DIR is full']), [
      { code: 'not_authenticated', detail: 'No user is logged in.' },
      { code: 'folder_unusable', detail: 'STATE_DIR is full' },
    ]);
  });
});
