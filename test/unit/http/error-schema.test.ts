import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { InputError, LoaderError } from '../../../src/errors.ts';
import { toErrorBody } from '../../../src/http/schemas/error.ts';

describe('the body of an error', () => {
  it('has the message and the code, and nothing of the cause', () => {
    const error = new LoaderError('api_error', 'The Resource API answered 500.', { cause: new Error('hush') });
    assert.equal(JSON.stringify(toErrorBody(error)), '{"detail":"The Resource API answered 500.","code":"api_error"}');
  });

  it('has the faults of an input as FastAPI tells them, with their place in the request', () => {
    const faults = [
      { type: 'missing', path: ['email'], message: 'Field required' },
      { type: 'value_error', path: ['resources', '0', 'folder'], message: 'must be short' },
    ];
    assert.deepEqual(toErrorBody(new InputError(faults)), {
      detail: [
        { type: 'missing', loc: ['body', 'email'], msg: 'Field required' },
        { type: 'value_error', loc: ['body', 'resources', '0', 'folder'], msg: 'Value error, must be short' },
      ],
      code: 'validation_failed',
    });
    assert.deepEqual(toErrorBody(new InputError([{ type: 'value_error', path: [], message: 'x' }], 'query')), {
      detail: [{ type: 'value_error', loc: ['query'], msg: 'Value error, x' }],
      code: 'validation_failed',
    });
  });

  it('of an input that is a part of another one names the way to it', () => {
    const error = new InputError([{ type: 'missing', path: ['x'], message: 'Field required' }]).under('parameters');
    assert.deepEqual(toErrorBody(error).detail, [
      { type: 'missing', loc: ['body', 'parameters', 'x'], msg: 'Field required' },
    ]);
  });
});
