/** A fact of the hardware that no source has told. The message says why, and what to do. */
export class UntoldError extends Error {
  override readonly name = 'UntoldError';
}
