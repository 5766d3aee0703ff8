import type { EnvironmentVariables } from './environment.ts';

export interface Lookalike {
  readonly name: string;
  /** A sentence that names the variable, and never holds its value. */
  readonly warning: string;
}

/** Beginnings of names that are meant for the Loader alone. */
const OWN_PREFIX = /^(?:LOADER|AZAION)_+(?=.)/;
/** What Kubernetes and Docker links set for a service that is called `loader`. */
const SERVICE_LINK = /_SERVICE_HOST$|_SERVICE_PORT(?:_\w+)?$|_PORT(?:_\d+_(?:TCP|UDP)(?:_\w+)?)?$/;

/** Proxies of other protocols, which are often set together with those that the Loader reads. */
const OTHER_PROXY = /^(?:all|ftp|rsync|socks)_proxy$/i;

/** Finds the set variables that the Loader does not read, but that were probably meant for it. */
export function findLookalikes(variables: EnvironmentVariables, knownNames: readonly string[]): Lookalike[] {
  return Object.keys(variables)
    .filter((name) => (variables[name] ?? '') !== '' && !knownNames.includes(name) && !OTHER_PROXY.test(name))
    .flatMap((name) => {
      const meant = mostSimilar(name, knownNames);
      if (meant === undefined && !isOwn(name)) return [];
      const question = meant === undefined ? '' : ` Did you mean ${meant}?`;
      return [{ name, warning: `The variable ${name} is not known, and has no effect.${question}` }];
    });
}

function isOwn(name: string): boolean {
  return OWN_PREFIX.test(name) && !SERVICE_LINK.test(name);
}

/** The known name that `name` was probably meant to be. */
function mostSimilar(name: string, knownNames: readonly string[]): string | undefined {
  const bare = isOwn(name) ? name.replace(OWN_PREFIX, '') : name;
  return knownNames
    .filter((known) => isSimilar(bare, known))
    .map((known) => ({ known, distance: editDistance(bare.toUpperCase(), known) }))
    .sort((a, b) => a.distance - b.distance)
    .at(0)?.known;
}

/** Whether two names have the same letters, or a few typing errors, or words in common. */
function isSimilar(name: string, known: string): boolean {
  const upper = name.toUpperCase();
  if (upper.replaceAll(/[_-]/g, '') === known.replaceAll('_', '')) return true;
  if (editDistance(upper, known) <= allowedErrors(known)) return true;
  const words = upper.split('_');
  const knownWords = known.split('_');
  const lacksWords = words.length >= 2 && words.every((word) => knownWords.includes(word));
  const beginsAlike = knownWords.length >= 2 && knownWords.slice(0, 2).every((word, index) => words[index] === word);
  return lacksWords || beginsAlike;
}

/** HOST is too short to allow any, since HOME is a variable of its own. */
function allowedErrors(known: string): number {
  if (known.length < 6) return 0;
  return known.length < 10 ? 1 : 2;
}

/** How many characters must be inserted, removed or replaced to turn `a` into `b`. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 0; i < a.length; i++) {
    const next = [i + 1];
    for (let j = 0; j < b.length; j++) {
      const replaced = (row[j] ?? 0) + (a[i] === b[j] ? 0 : 1);
      next.push(Math.min(replaced, (row[j + 1] ?? 0) + 1, (next[j] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
