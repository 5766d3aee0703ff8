export interface JsonAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: { readonly detail?: unknown; readonly code?: string; readonly [name: string]: unknown };
}

/** The body of an answer. @throws Error when the status is not 200 */
export function bodyOf({ status, body }: JsonAnswer): JsonAnswer['body'] {
  if (status === 200) return body;
  throw new Error(`the Loader answered ${status} ${JSON.stringify(body)}`);
}
