import { CURL } from './debian-tools.ts';
import { runPipeline, runProcess } from './run-process.ts';

/** One transfer, as curl and the clock saw it. */
export interface Transfer {
  /** With curl's own start and end. */
  readonly wallMs: number;
  /** curl's time_total: what the server is answerable for. */
  readonly totalMs: number;
  /** curl's time_starttransfer. */
  readonly firstByteMs: number;
}

/** Without ~/.curlrc and proxies, which are no part of what is measured. */
const BASE_ARGS = ['-q', '-sS', '--noproxy', '*'];
const REPORT = '%{http_code} %{size_download} %{time_starttransfer} %{time_total}';

/** Downloads to /dev/null. @throws Error unless the answer is 200 with `length` bytes */
export async function curlDownload(args: readonly string[], length: number, signal: AbortSignal): Promise<Transfer> {
  const result = await runProcess(CURL, [...BASE_ARGS, '-o', '/dev/null', '-w', REPORT, ...args], { signal });
  const [status = NaN, size = NaN, firstByte = NaN, total = NaN] = result.stdout.split(' ').map(Number);
  if (status !== 200 || size !== length) throw new Error(`curl got ${status} with ${size} bytes, not ${length}`);
  return { wallMs: result.wallMs, totalMs: total * 1000, firstByteMs: firstByte * 1000 };
}

/** Sends a request whose answer is short. @throws Error unless it is 200 */
export async function curlSend(args: readonly string[], signal: AbortSignal): Promise<Transfer> {
  const result = await runProcess(CURL, [...BASE_ARGS, '-w', `\n${REPORT}`, ...args], { signal });
  const lines = result.stdout.split('\n');
  const [status, , firstByte = NaN, total = NaN] = (lines.at(-1) ?? '').split(' ').map(Number);
  if (status !== 200) throw new Error(`curl got ${result.stdout}`);
  return { wallMs: result.wallMs, totalMs: total * 1000, firstByteMs: firstByte * 1000 };
}

/** SHA-256 of what curl receives. */
export async function curlDigest(args: readonly string[], signal: AbortSignal): Promise<string> {
  const { stdout } = await runPipeline('"$@" | sha256sum', [CURL, ...BASE_ARGS, '-f', ...args], { signal });
  return stdout.slice(0, 64);
}
