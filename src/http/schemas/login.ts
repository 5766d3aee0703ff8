import { Type } from '../../json-schemas.ts';

export const LOGIN = Type.Object(
  {
    email: Type.String({ description: "The user's email address.", examples: ['operator@example.com'] }),
    password: Type.String({ description: 'Sent to the Resource API; never stored on disk, never logged.' }),
  },
  {
    description: 'The login at the Resource API.',
    examples: [{ email: 'operator@example.com', password: 'correct horse' }],
  },
);
