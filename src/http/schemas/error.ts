import type { Static } from 'typebox';
import { InputError, type LoaderError } from '../../errors.ts';
import { ERROR_CODE, textEnum, Type } from '../../json-schemas.ts';

/** One fault of a request, in FastAPI's words, so that the original's clients can read it. */
const VALIDATION_ITEM = Type.Object({
  type: Type.String({ description: "FastAPI's word for the kind of fault." }),
  loc: Type.Array(Type.String(), { description: 'Where: body, path, query or header, then the fields.' }),
  msg: Type.String({ description: 'What would be right. It never quotes a value of the request.' }),
});

export type ValidationItem = Static<typeof VALIDATION_ITEM>;

export const ERROR = Type.Object(
  {
    detail: Type.String({ description: 'What went wrong and what to do, for people.' }),
    code: ERROR_CODE,
  },
  {
    $id: 'Error',
    description: 'A failure.',
    examples: [{ detail: 'The Resource API refused the email and password.', code: 'wrong_credentials' }],
  },
);

export const VALIDATION_ERROR = Type.Object(
  {
    detail: Type.Array(VALIDATION_ITEM),
    code: textEnum(['validation_failed']),
  },
  {
    $id: 'ValidationError',
    description: 'The faults of a request.',
    examples: [
      {
        detail: [{ type: 'missing', loc: ['body', 'folder'], msg: 'Field required' }],
        code: 'validation_failed',
      },
    ],
  },
);

export type ErrorBody = Static<typeof ERROR> | Static<typeof VALIDATION_ERROR>;

export function toErrorBody(error: LoaderError): ErrorBody {
  if (error instanceof InputError) return { detail: toValidationItems(error), code: 'validation_failed' };
  return { detail: error.message, code: error.code };
}

function toValidationItems({ faults, source }: InputError): ValidationItem[] {
  return faults.map(({ type, path, message }) => ({
    type,
    loc: [source, ...path],
    msg: type === 'value_error' ? `Value error, ${message}` : message,
  }));
}
