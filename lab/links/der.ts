/** What X.509 needs of the Distinguished Encoding Rules (ITU-T X.690). */

function encode(tag: number, content: Uint8Array): Buffer {
  const { length } = content;
  const head =
    length < 0x80 ? [tag, length] : length < 0x100 ? [tag, 0x81, length] : [tag, 0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from(head), content]);
}

export const DER = {
  sequence: (...items: readonly Uint8Array[]) => encode(0x30, Buffer.concat(items)),
  set: (...items: readonly Uint8Array[]) => encode(0x31, Buffer.concat(items)),
  /** A positive number, in bytes from the highest on. */
  integer: (bytes: Uint8Array) => encode(0x02, (bytes[0] ?? 0) >= 0x80 ? Buffer.concat([Buffer.of(0), bytes]) : bytes),
  boolean: (value: boolean) => encode(0x01, Buffer.of(value ? 0xff : 0)),
  octetString: (content: Uint8Array) => encode(0x04, content),
  bitString: (content: Uint8Array, unusedBits = 0) => encode(0x03, Buffer.concat([Buffer.of(unusedBits), content])),
  utf8: (text: string) => encode(0x0c, Buffer.from(text)),
  /** RFC 5280, section 4.1.2.5: two digits of the year up to 2049, and four from then on. */
  time: (date: Date) => {
    const digits = date.toISOString().replaceAll(/[-:T]|\.\d+/g, '');
    const year = date.getUTCFullYear();
    return year >= 1950 && year < 2050 ? encode(0x17, Buffer.from(digits.slice(2))) : encode(0x18, Buffer.from(digits));
  },
  objectId: (dotted: string) => {
    const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number);
    const bytes = [40 * first + second];
    for (const arc of rest) {
      const groups = [arc & 0x7f];
      for (let left = arc >> 7; left > 0; left >>= 7) groups.unshift((left & 0x7f) | 0x80);
      bytes.push(...groups);
    }
    return encode(0x06, Buffer.from(bytes));
  },
  /** With a tag of its context; `isPrimitive` for what has no items. */
  tagged: (number: number, content: Uint8Array, { isPrimitive = false } = {}) =>
    encode((isPrimitive ? 0x80 : 0xa0) | number, content),
} as const;
