import { readFileSync } from 'node:fs';
import { systemErrorCode } from '../errors.ts';

export type EnvironmentVariables = Readonly<Record<string, string | undefined>>;

/** Reads variables one by one, and notes every problem, so that all can be reported at once. */
export class Environment {
  readonly problems: string[] = [];
  /** The secrets that were read, so that the log can leave them out. */
  readonly secrets: string[] = [];
  readonly #variables: EnvironmentVariables;

  constructor(variables: EnvironmentVariables) {
    this.#variables = variables;
  }

  /** The text of a variable. An empty text counts as unset. */
  text(name: string): string | undefined {
    const text = this.#variables[name];
    return text === '' ? undefined : text;
  }

  /** Whether a variable is set, or its file form, right or wrong. */
  isSet(name: string): boolean {
    return (this.text(name) ?? this.text(fileVariableOf(name))) !== undefined;
  }

  /** The text of a variable whose name may be in lower case, which counts if both are set, as for curl. */
  textOfEitherCase(name: string): string | undefined {
    return this.text(name.toLowerCase()) ?? this.text(name);
  }

  /** The text of a variable, or of the file that `NAME_FILE` names. */
  textOrFile(name: string): string | undefined {
    const fileVariable = fileVariableOf(name);
    const filePath = this.text(fileVariable);
    const text = this.text(name);
    if (filePath === undefined) return text;
    if (text !== undefined) {
      this.report(`${name} and ${fileVariable} are both set: set only one of them`);
      return undefined;
    }
    const content = this.file(fileVariable, filePath);
    const secret = content === undefined ? undefined : withoutLineEnd(content);
    if (secret === '') this.report(`${fileVariable}: the file ${filePath} is empty`);
    return secret === '' ? undefined : secret;
  }

  /** The content of a file that the variable `name` names; undefined, with a problem, when it can't be read. */
  file(name: string, filePath: string): string | undefined {
    try {
      return readFileSync(filePath, 'utf8');
    } catch (error) {
      this.report(`${name}: the file ${filePath} can't be read (${systemErrorCode(error) ?? 'unknown reason'})`);
      return undefined;
    }
  }

  /** Notes a problem: a sentence that begins with the variable's name and holds no secret. */
  report(problem: string): void {
    this.problems.push(problem);
  }
}

/** Editors and `echo` end a file with a line break that is not part of the secret. */
export function withoutLineEnd(text: string): string {
  return text.replace(/\r?\n$/, '');
}

/** The variable that names a file with the value of the variable `name`. */
export function fileVariableOf(name: string): string {
  return `${name}_FILE`;
}
