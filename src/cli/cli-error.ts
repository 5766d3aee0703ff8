/** A failure of a command, as a sentence for people that says what to do. It holds no secret. */
export class CliError extends Error {
  override readonly name: string = 'CliError';
}

/** The arguments of the command are wrong. */
export class UsageError extends CliError {
  override readonly name = 'UsageError';
}
