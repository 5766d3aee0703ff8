/**
 * The pause that an answer asks for, in ms; undefined where it asks for none (Retry-After, RFC 9110 section 10.2.3). A
 * date is compared with that of the answer, since the clock of this device may be wrong.
 */
export function retryAfterOf(headers: Readonly<Record<string, unknown>>): number | undefined {
  const text = headers['retry-after'];
  if (typeof text !== 'string') return undefined;
  if (/^\d{1,9}$/.test(text.trim())) return Number(text) * 1000;
  const untilMs = Date.parse(text);
  const answeredMs = Date.parse(String(headers['date']));
  return Number.isNaN(untilMs)
    ? undefined
    : Math.max(0, untilMs - (Number.isNaN(answeredMs) ? Date.now() : answeredMs));
}
