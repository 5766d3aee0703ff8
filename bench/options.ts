import { parseArgs } from 'node:util';

/** The sections of the bench, by the letter that `--only` takes. */
export const SECTION_LETTERS = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j'] as const;
export type SectionLetter = (typeof SECTION_LETTERS)[number];

export interface BenchOptions {
  readonly sections: readonly SectionLetter[];
  readonly rounds: number;
  /** The length of the image archive, in 10^6 bytes. */
  readonly archiveMb: number;
  /** A commit to measure this checkout against, in the place of its peers. */
  readonly against?: string;
}

/** The targets of the unlock are for this length. */
const DEFAULT_ARCHIVE_MB = 1770;
/** A smaller one is enough to compare two Loaders. */
const DEFAULT_AGAINST_ARCHIVE_MB = 300;
/** The sections that `--against` has rows of. */
const AGAINST_LETTERS = ['a', 'b', 'c', 'g', 'i'] as const;
const MIN_ARCHIVE_MB = 10;

export const USAGE = `npm run bench [-- --only a,b] [--rounds N] [--archive-mb N] [--against COMMIT]

  --only        sections to run, of ${SECTION_LETTERS.join(', ')}; all of them unless given
  --rounds      timed rounds, of which the median counts; 5 unless given
  --archive-mb  size of the image archive that is unlocked; ${DEFAULT_ARCHIVE_MB} unless given, ${DEFAULT_AGAINST_ARCHIVE_MB} with --against
  --against     a commit that is built beside and measured in the peers' place, in the sections ${AGAINST_LETTERS.join(', ')}`;

/** @throws Error that names the wrong option */
export function parseOptions(args: readonly string[]): BenchOptions {
  const { values } = parseArgs({
    args: [...args],
    options: {
      only: { type: 'string' },
      rounds: { type: 'string' },
      'archive-mb': { type: 'string' },
      against: { type: 'string' },
    },
  });
  const rounds = Number(values.rounds ?? '5');
  if (!Number.isInteger(rounds) || rounds < 1) throw new Error('--rounds must be a whole number from 1 on');
  const { against } = values;
  const defaultMb = against === undefined ? DEFAULT_ARCHIVE_MB : DEFAULT_AGAINST_ARCHIVE_MB;
  const archiveMb = Number(values['archive-mb'] ?? defaultMb);
  if (!Number.isInteger(archiveMb) || archiveMb < MIN_ARCHIVE_MB) {
    throw new Error(`--archive-mb must be a whole number from ${MIN_ARCHIVE_MB} on`);
  }
  const possible: readonly SectionLetter[] = against === undefined ? SECTION_LETTERS : AGAINST_LETTERS;
  const letters = values.only?.split(',') ?? [...possible];
  const unknown = letters.filter((letter) => possible.every((known) => known !== letter));
  if (unknown.length > 0) throw new Error(`--only knows no section "${unknown.join(', ')}"`);
  const sections = possible.filter((letter) => letters.includes(letter));
  return { sections, rounds, archiveMb, ...(against === undefined ? {} : { against }) };
}
