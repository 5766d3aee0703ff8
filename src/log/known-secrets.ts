import { parseJson } from '../json.ts';

const REDACTED = '[redacted]';
/** Shorter texts stand in innocent lines too: to replace them would rather tell them than hide them. */
const MIN_LENGTH = 4;
/** How many secrets of logins are kept: each login brings some, and so does each new token. */
const MAX_PASSING = 200;

/** The secrets that this process knows, so that the log can leave them out wherever they stand. */
export class KnownSecrets {
  readonly #lasting: string[];
  /** The oldest first. */
  readonly #passing = new Set<string>();
  /** The forms in which they can stand in a text, the longest first: one may be a part of another. */
  #forms: readonly string[] = [];
  /** The same as they stand within a text of JSON. */
  #escapedForms: readonly string[] = [];

  /** `lasting` are the secrets of the configuration. */
  constructor(lasting: readonly string[] = []) {
    this.#lasting = [...lasting];
    this.#update();
  }

  /** Adds a secret of the configuration that was replaced while the Loader runs. All of them are kept. */
  keep(...secrets: readonly string[]): void {
    this.#lasting.push(...secrets);
    this.#update();
  }

  /** Adds secrets of a login. Only the newest are kept. */
  add(...secrets: readonly (string | undefined)[]): void {
    for (const secret of secrets) {
      if (secret === undefined) continue;
      this.#passing.delete(secret);
      this.#passing.add(secret);
    }
    for (const oldest of this.#passing) {
      if (this.#passing.size <= MAX_PASSING) break;
      this.#passing.delete(oldest);
    }
    this.#update();
  }

  /** `text` without the secrets. */
  redact(text: string): string {
    return this.#forms.reduce((rest, form) => rest.replaceAll(form, REDACTED), text);
  }

  /** A line of JSON whose texts are without the secrets; its names stay, and it stays JSON. */
  redactLine(line: string): string {
    // Few lines have one, so that only few are parsed.
    if (!this.#escapedForms.some((form) => line.includes(form))) return line;
    const value = parseJson(line);
    return value === undefined ? this.redact(line) : `${JSON.stringify(this.#redactTexts(value))}\n`;
  }

  #redactTexts(value: unknown): unknown {
    if (typeof value === 'string') return this.redact(value);
    if (Array.isArray(value)) return value.map((item) => this.#redactTexts(item));
    if (typeof value !== 'object' || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, this.#redactTexts(inner)]));
  }

  #update(): void {
    const secrets = [...this.#lasting, ...this.#passing].filter((secret) => secret.length >= MIN_LENGTH);
    const forms = new Set(secrets.flatMap((secret) => [secret, encodeURIComponent(secret)]));
    this.#forms = [...forms].sort((a, b) => b.length - a.length);
    this.#escapedForms = this.#forms.map((form) => JSON.stringify(form).slice(1, -1));
  }
}
