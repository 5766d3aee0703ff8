import { NEVER } from '../async/abort.ts';
import { RetryCounter } from '../async/retry.ts';
import { runTool, type Tool } from './run-tool.ts';

/** Where the facts of the hardware come from. */
export interface HardwareSources {
  /** Where the kernel shows CPU and devices: `/proc` and `/sys`. */
  readonly procRoot: string;
  readonly sysRoot: string;
  /** @throws UntoldError */
  readonly runTool: (tool: Tool, options?: string) => Promise<string>;
  /** Bytes of the memory that the kernel has. */
  readonly readMemory: () => Promise<number>;
  /** The longest pause before a source that failed is asked again, in ms. */
  readonly pauseMs: number;
}

/** The sources of this machine. */
export const MACHINE: HardwareSources = {
  procRoot: '/proc',
  sysRoot: '/sys',
  runTool,
  readMemory: async () => {
    // It is imported here because it is large and needed only once, or never where HARDWARE_ID is set. Its `cpu()` and
    // `graphics()` are not used: the one drops the first word of each model, the other gives other names as soon as
    // clinfo is installed, none without lspci, and has no deadline.
    const { mem } = await import('systeminformation');
    return (await mem()).total;
  },
  pauseMs: 500,
};

/** Asks a source, and once more after a short pause if it fails. @throws the error of the second time */
export async function askTwice<T>({ pauseMs }: HardwareSources, ask: () => Promise<T>): Promise<T> {
  const failures = new RetryCounter({ attempts: 2, baseDelayMs: pauseMs, isRetryable: () => true });
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      await failures.pauseOrThrow(error, NEVER);
    }
  }
}
