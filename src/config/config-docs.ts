import { fileVariableOf } from './environment.ts';
import { group, type Variable } from './kinds.ts';
import { VARIABLES } from './variables.ts';

/** Every variable, in the order in which the documents show them. */
export const VARIABLE_DOCS: readonly Variable[] = group(VARIABLES).variables;

const HELP_WIDTH = 100;

/** The table of docs/configuration.md. */
export function configurationTable(): string {
  const cells = VARIABLE_DOCS.map((variable) => [
    `\`${variable.name}\``,
    variable.fallback === undefined ? '(unset)' : `\`${variable.fallback}\``,
    meaningOf(variable),
  ]);
  const rows = [['variable', 'default', 'meaning'], ...cells];
  const widths = [0, 1, 2].map((column) => Math.max(...rows.map((row) => (row[column] ?? '').length)));
  const line = (row: readonly string[]) => `| ${row.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join(' | ')} |`;
  const [head = [], ...body] = rows;
  return [line(head), line(widths.map((width) => '-'.repeat(width))), ...body.map(line)].join('\n');
}

/** The text of .env.example: every variable, commented out, with its default. */
export function envExample(): string {
  const blocks = VARIABLE_DOCS.map(
    (variable) => `# ${meaningOf(variable)}\n#${variable.name}=${variable.fallback ?? ''}`,
  );
  return `# The variables of the Loader, with their defaults. This file is made by \`npm run docs:config\`.\n\n${blocks.join('\n\n')}\n`;
}

/** What `--help` prints. */
export function helpText(): string {
  const blocks = VARIABLE_DOCS.map((variable) => {
    const fallback = variable.fallback === undefined ? '' : ` (default: ${variable.fallback})`;
    return `  ${variable.name}${fallback}\n${wrapped(meaningOf(variable), '      ')}`;
  });
  return `The Loader takes no arguments. It is configured by environment variables:\n\n${blocks.join('\n')}\n`;
}

function meaningOf({ name, about, hasFileForm, hasLowerCaseForm = false }: Variable): string {
  if (hasFileForm) return `${about}; or ${fileVariableOf(name)}`;
  return hasLowerCaseForm ? `${about}; or ${name.toLowerCase()}` : about;
}

function wrapped(text: string, indent: string): string {
  const lines = [''];
  for (const word of text.split(' ')) {
    const last = lines.at(-1) ?? '';
    const longer = last === '' ? word : `${last} ${word}`;
    if (indent.length + longer.length <= HELP_WIDTH) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines.map((line) => indent + line).join('\n');
}
