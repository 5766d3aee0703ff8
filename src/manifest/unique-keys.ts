/**
 * Whether no object in a text of JSON has two members of one name. `JSON.parse` takes the last of them and other parsers
 * the first, so that two programs could read two things out of one signed text (RFC 8259 section 4).
 *
 * The text must be one that `JSON.parse` takes.
 */
export function hasUniqueKeys(text: string): boolean {
  /** The names of each open object, the innermost last; null for an array. */
  const open: (Set<string> | null)[] = [];
  // Strings come first, so that what stands within them is passed over.
  for (const { 0: token, index } of text.matchAll(/"(?:[^"\\]|\\.)*"|[{}[\]]/g)) {
    if (token === '{') open.push(new Set());
    else if (token === '[') open.push(null);
    else if (token === '}' || token === ']') open.pop();
    else if (isName(text, index + token.length)) {
      const names = open.at(-1);
      const name = JSON.parse(token) as string;
      if (names === null || names === undefined || names.has(name)) return false;
      names.add(name);
    }
  }
  return true;
}

/** A string is a member's name when a colon follows. */
function isName(text: string, end: number): boolean {
  let at = end;
  while (' \t\n\r'.includes(text.charAt(at)) && at < text.length) at++;
  return text.charAt(at) === ':';
}
