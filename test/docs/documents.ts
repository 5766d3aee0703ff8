import { globSync, readFileSync } from 'node:fs';
import path from 'node:path';

export const ROOT = path.resolve(import.meta.dirname, '../..');

/** A Markdown document of the project. */
export class Document {
  /** Its path under the project's root. */
  readonly name: string;
  readonly text: string;
  readonly #lines: readonly Line[];

  constructor(name: string, text = readProjectFile(name)) {
    this.name = name;
    this.text = text;
    this.#lines = toLines(text);
  }

  /** The anchors of its headings, as GitHub makes them. */
  get anchors(): readonly string[] {
    const seen = new Map<string, number>();
    return this.#lines.flatMap(({ heading }) => {
      if (heading === undefined) return [];
      const anchor = heading.title
        .toLowerCase()
        .replace(/[^\p{L}\p{N}_\- ]/gu, '')
        .replaceAll(' ', '-');
      const earlier = seen.get(anchor) ?? 0;
      seen.set(anchor, earlier + 1);
      return [earlier === 0 ? anchor : `${anchor}-${earlier}`];
    });
  }

  /** The targets of its links, without those in code. */
  get links(): readonly string[] {
    const prose = this.#lines.filter(({ language }) => language === undefined).map(({ text }) => text);
    const withoutCode = prose.join('\n').replaceAll(/`[^`\n]*`/g, '');
    return [...withoutCode.matchAll(/\]\(([^)\s]+)\)/g)].map((match) => match[1] ?? '');
  }

  /** Code within its sentences and tables. */
  get inlineCode(): readonly string[] {
    const prose = this.#lines.filter(({ language }) => language === undefined).map(({ text }) => text);
    return prose.flatMap((text) => [...text.matchAll(/`([^`]+)`/g)].map((match) => match[1] ?? ''));
  }

  /** The contents of its fenced blocks of a language. */
  blocks(language: string): readonly string[] {
    const blocks: string[][] = [];
    let isInside = false;
    for (const line of this.#lines) {
      if (line.language !== language) {
        isInside = false;
      } else if (!isInside) {
        isInside = true; // The fence that opens it.
        blocks.push([]);
      } else if (!line.text.startsWith('```')) {
        blocks.at(-1)?.push(line.text);
      } else {
        isInside = false;
      }
    }
    return blocks.map((lines) => lines.join('\n'));
  }

  /** The part under a heading, with its smaller headings. @throws Error when there is no such heading */
  section(title: string): Document {
    const start = this.#lines.findIndex(({ heading }) => heading?.title === title);
    const level = this.#lines[start]?.heading?.level;
    if (level === undefined) throw new Error(`${this.name} has no heading "${title}"`);
    const rest = this.#lines.slice(start + 1);
    const end = rest.findIndex(({ heading }) => heading !== undefined && heading.level <= level);
    const lines = end === -1 ? rest : rest.slice(0, end);
    return new Document(this.name, lines.map(({ text }) => text).join('\n'));
  }

  /** The cells of its tables, each without its head. @throws Error when there is no table */
  get tables(): readonly (readonly (readonly string[])[])[] {
    const tables: string[][][] = [];
    let isInside = false;
    for (const { text, language } of this.#lines) {
      const isRow = language === undefined && text.startsWith('|');
      if (isRow && !isInside) tables.push([]);
      isInside = isRow;
      if (isRow) tables.at(-1)?.push(toCells(text));
    }
    if (tables.length === 0) throw new Error(`${this.name} has no table there`);
    return tables.map((rows) => rows.slice(2));
  }

  /** Its first table. */
  get table(): readonly (readonly string[])[] {
    return this.tables[0] ?? [];
  }
}

export const DOCUMENTS: readonly Document[] = globSync(['*.md', 'docs/*.md', 'test/*.md'], { cwd: ROOT })
  .sort()
  .map((name) => new Document(name));

export function readProjectFile(name: string): string {
  return readFileSync(path.join(ROOT, name), 'utf8');
}

/** The one piece of code in a cell of a table, such as `PORT` of "`PORT`". */
export function codeOf(cell: string | undefined): string {
  return /^`([^`]+)`$/.exec(cell ?? '')?.[1] ?? '';
}

interface Line {
  readonly text: string;
  /** Of the fenced block that it belongs to, fences included; undefined outside of one. */
  readonly language: string | undefined;
  readonly heading: { readonly level: number; readonly title: string } | undefined;
}

function toLines(text: string): Line[] {
  let language: string | undefined;
  return text.split('\n').map((line) => {
    const fence = /^```(\w*)\s*$/.exec(line);
    if (fence !== null && language === undefined) {
      language = fence[1] ?? '';
      return { text: line, language, heading: undefined };
    }
    if (fence !== null) {
      const closed = { text: line, language, heading: undefined };
      language = undefined;
      return closed;
    }
    const [, marks, title] = (language === undefined ? /^(#{1,6}) (.+)$/.exec(line) : null) ?? [];
    const heading = marks === undefined || title === undefined ? undefined : { level: marks.length, title };
    return { text: line, language, heading };
  });
}

/** A `|` within a cell is written as `\|`. */
function toCells(row: string): string[] {
  return row
    .split(/(?<!\\)\|/)
    .slice(1, -1)
    .map((cell) => cell.trim().replace(/\\([_*|])/g, '$1'));
}
