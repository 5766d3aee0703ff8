/** One command of a shell line: its words, without quotes, redirections and variables that are set before it. */
export type ShellCommand = readonly string[];

/** What stands between commands, or beside them. */
const OPERATORS = ['&&', '||', '|', ';'];

/**
 * The commands of a shell script, as far as the documents use its grammar: quotes, comments, lines that go on after a
 * backslash or an operator, pipes, redirections, and variables. What is within `$(...)` is a word.
 */
export function parseShell(script: string): ShellCommand[] {
  const commands: string[][] = [];
  let command: string[] = [];
  const finish = () => {
    const words = withoutRedirections(command.filter((word) => !OPERATORS.includes(word)));
    const start = words.findIndex((word) => !/^\w+=/.test(word));
    if (start !== -1) commands.push(words.slice(start));
    command = [];
  };
  for (const token of tokenize(script)) {
    const isLast = command.at(-1);
    if (token === '\n' && isLast !== undefined && OPERATORS.includes(isLast)) continue;
    if (token === '\n') finish();
    else if (OPERATORS.includes(token)) {
      finish();
      command.push(token);
    } else command.push(token);
  }
  finish();
  return commands;
}

function withoutRedirections(words: readonly string[]): string[] {
  return words.filter((word, index) => !/^\d?[<>]/.test(word) && !/^\d?[<>]+$/.test(words[index - 1] ?? ''));
}

/** Words, operators and line breaks. */
function tokenize(script: string): string[] {
  const pattern =
    /(?<gap>[ \t]+|\\\n|(?<=^|\s)#[^\n]*)|(?<operator>\n|&&|\|\||\||;)|(?<word>(?:"(?:\$\([^)]*\)|[^"])*"|'[^']*'|\$\([^)]*\)|\\.|[^\s"'|;&\\])+)/g;
  return [...script.matchAll(pattern)].flatMap(({ groups = {} }) => {
    if (groups['gap'] !== undefined) return [];
    return [groups['operator'] ?? (groups['word'] ?? '').replaceAll(/"([^"]*)"|'([^']*)'/g, '$1$2')];
  });
}
