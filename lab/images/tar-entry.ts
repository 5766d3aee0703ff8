export type TarType = 'file' | 'directory' | 'symlink' | 'hardlink';

/** How names are written: in the header itself, as GNU's `L` and `K` entries or as PAX records before it. */
export type TarNameStyle = 'ustar' | 'gnu' | 'pax';

export interface TarEntry {
  readonly name: string;
  /** A file when it is left out; one character is written as it is, for types that have no word here. */
  readonly type?: TarType | (string & {});
  readonly content?: Uint8Array | string;
  readonly linkName?: string;
  readonly nameStyle?: TarNameStyle;
  /** Further PAX records, such as `{ size: '12' }`. */
  readonly pax?: Readonly<Record<string, string>>;
  /** A fault: the header has this size in the place of the content's. A size from 8 GiB on is written in base 256. */
  readonly claimedSize?: number;
  /** A fault: the header's checksum is one too high. */
  readonly hasBadChecksum?: boolean;
}

const BLOCK = 512;
const NAME_BYTES = 100;
const PREFIX_BYTES = 155;
const MAX_OCTAL_SIZE = 0o77777777777;
const TYPE_FLAGS: Readonly<Record<TarType, string>> = { file: '0', hardlink: '1', symlink: '2', directory: '5' };
const MODES: Readonly<Record<string, number>> = { directory: 0o755, symlink: 0o777 };
/** In the header of an entry whose name stands before it: a reader that looks only here finds the wrong one. */
const STUB = 'the-name-is-in-the-entry-before';

/** The two empty blocks that end an archive. */
export const TAR_END: Buffer = Buffer.alloc(2 * BLOCK);

/** One archive. What is in a Buffer is taken as it is. */
export function tarArchive(
  entries: readonly (TarEntry | Buffer)[],
  options: { readonly hasEndMark?: boolean } = {},
): Buffer {
  const parts = entries.flatMap((entry) => (Buffer.isBuffer(entry) ? [entry] : tarEntryParts(entry)));
  return Buffer.concat(options.hasEndMark === false ? parts : [...parts, TAR_END]);
}

/** One entry with all of its headers, padded to whole blocks. It writes nonsense where its fields are nonsense. */
export function tarEntry(entry: TarEntry): Buffer {
  return Buffer.concat(tarEntryParts(entry));
}

/** The parts are not concatenated, so that a layer is not copied at each stage. */
function tarEntryParts(entry: TarEntry): Buffer[] {
  const { name, linkName = '', nameStyle = 'ustar', type = 'file' } = entry;
  const content = toBytes(entry.content ?? '');
  const isStubbed = nameStyle !== 'ustar';
  const header = tarHeader({
    name: isStubbed ? STUB : name,
    linkName: isStubbed && linkName !== '' ? STUB : linkName,
    flag: flagOf(type),
    mode: MODES[type] ?? 0o644,
    size: entry.claimedSize ?? content.length,
    isGnu: nameStyle === 'gnu',
  });
  if (entry.hasBadChecksum === true) setChecksum(header, checksum(header) + 1);
  return [...namesBefore(entry, nameStyle), header, ...padded(content)];
}

function namesBefore(entry: TarEntry, nameStyle: TarNameStyle): Buffer[] {
  const { name, linkName } = entry;
  const parts: Buffer[] = [];
  if (nameStyle === 'gnu') {
    // The link's name first, as GNU tar does it.
    if (linkName !== undefined) parts.push(...extension('K', '././@LongLink', Buffer.from(`${linkName}\0`), true));
    parts.push(...extension('L', '././@LongLink', Buffer.from(`${name}\0`), true));
  }
  const records = {
    ...(nameStyle === 'pax' ? { path: name, ...(linkName === undefined ? {} : { linkpath: linkName }) } : {}),
    ...entry.pax,
  };
  if (Object.keys(records).length > 0) {
    const body = Object.entries(records).map(([key, value]) => paxRecord(key, value));
    parts.push(...extension('x', `PaxHeaders.0/${STUB}`, Buffer.concat(body), false));
  }
  return parts;
}

function extension(flag: string, name: string, body: Buffer, isGnu: boolean): Buffer[] {
  return [tarHeader({ name, linkName: '', flag, mode: 0o644, size: body.length, isGnu }), ...padded(body)];
}

/** `<length> <key>=<value>\n`, where the length counts its own digits too. */
function paxRecord(key: string, value: string): Buffer {
  const rest = Buffer.from(` ${key}=${value}\n`);
  let length = rest.length;
  while (String(length).length + rest.length !== length) length = String(length).length + rest.length;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}

function tarHeader(fields: {
  name: string;
  linkName: string;
  flag: string;
  mode: number;
  size: number;
  isGnu: boolean;
}): Buffer {
  const header = Buffer.alloc(BLOCK);
  const { name, prefix } = splitName(fields.name);
  if (Buffer.byteLength(fields.linkName) > NAME_BYTES) throw new Error(`no ustar link name: ${fields.linkName}`);
  header.write(name, 0);
  header.write(octal(fields.mode, 8), 100);
  header.write(octal(0, 8), 108);
  header.write(octal(0, 8), 116);
  if (fields.size <= MAX_OCTAL_SIZE) {
    header.write(octal(fields.size, 12), 124);
  } else {
    header.writeBigUInt64BE(BigInt(fields.size), 128);
    header[124] = 0x80;
  }
  header.write(octal(0, 12), 136);
  header.write(fields.flag, 156, 'latin1');
  header.write(fields.linkName, 157);
  header.write(fields.isGnu ? 'ustar  \0' : 'ustar\x0000', 257);
  header.write(prefix, 345);
  setChecksum(header, checksum(header));
  return header;
}

/** A name of more than 100 bytes has its first folders in another field. */
function splitName(name: string): { name: string; prefix: string } {
  if (Buffer.byteLength(name) <= NAME_BYTES) return { name, prefix: '' };
  for (let slash = name.indexOf('/'); slash !== -1; slash = name.indexOf('/', slash + 1)) {
    const [prefix, rest] = [name.slice(0, slash), name.slice(slash + 1)];
    if (Buffer.byteLength(rest) > NAME_BYTES) continue;
    if (rest !== '' && Buffer.byteLength(prefix) <= PREFIX_BYTES) return { name: rest, prefix };
  }
  throw new Error(`no ustar name: ${name}`);
}

/** The sum of all bytes, with blanks where it stands itself. */
function checksum(header: Buffer): number {
  return header.reduce((sum, byte, at) => sum + (at >= 148 && at < 156 ? 0x20 : byte), 0);
}

function setChecksum(header: Buffer, sum: number): void {
  header.write(`${octal(sum, 7)}\0 `, 148);
}

/** As many digits as leave room for the zero byte that ends the field. */
function octal(value: number, fieldBytes: number): string {
  return value.toString(8).padStart(fieldBytes - 1, '0');
}

function flagOf(type: string): string {
  return (TYPE_FLAGS as Readonly<Record<string, string>>)[type] ?? type;
}

function padded(content: Buffer): Buffer[] {
  const over = content.length % BLOCK;
  return over === 0 ? [content] : [content, Buffer.alloc(BLOCK - over)];
}

function toBytes(content: Uint8Array | string): Buffer {
  return typeof content === 'string'
    ? Buffer.from(content)
    : Buffer.from(content.buffer, content.byteOffset, content.byteLength);
}
