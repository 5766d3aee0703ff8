import { createHash } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import type { Logger } from '../log/logger.ts';
import { compareHardware } from './compare-hardware.ts';
import { formatHardwareString, type HardwareFacts } from './hardware-facts.ts';
import type { KeptHardware } from './kept-hardware.ts';
import { hardwareUnreadable, readHardware, type HardwareReading } from './read-hardware.ts';

export interface HardwareFingerprintOptions {
  /** If given, it replaces the whole string, and nothing is read or kept. */
  readonly hardwareId: string | undefined;
  readonly kept: Pick<KeptHardware, 'read' | 'write'>;
  readonly logger: Logger;
  readonly read?: () => Promise<HardwareReading>;
}

const DIGEST_LENGTH = 12;

/**
 * The hardware string of this machine. It is read for each login until the server has accepted it. The string that the
 * server accepted last, if there is one, is preferred while only such facts have changed as may change by themselves.
 */
export class HardwareFingerprint {
  readonly #options: HardwareFingerprintOptions;
  #reading: Promise<string> | undefined;
  #accepted: string | undefined;
  #latest: string | undefined;
  /** The facts of a string that is not kept yet. */
  #unkept: HardwareFacts | undefined;

  constructor(options: HardwareFingerprintOptions) {
    this.#options = options;
    this.#accepted = options.hardwareId;
    this.#latest = options.hardwareId;
  }

  /** @throws LoaderError `hardware_unreadable`, which says which facts are missing */
  async hardwareString(): Promise<string> {
    if (this.#accepted !== undefined) return this.#accepted;
    this.#reading ??= this.#read().finally(() => {
      this.#reading = undefined;
    });
    this.#latest = await this.#reading;
    return this.#latest;
  }

  /**
   * Tells the string of the last login from others, and is no part of any key: the first 12 hex digits of its SHA-256.
   * Undefined before it was read.
   */
  get digest(): string | undefined {
    if (this.#latest === undefined) return undefined;
    return createHash('sha256').update(this.#latest, 'utf8').digest('hex').slice(0, DIGEST_LENGTH);
  }

  /** Call it when the server has accepted the string: what it sent could be decrypted. It is kept for the next start. */
  async accept(hardware: string): Promise<void> {
    this.#accepted ??= hardware;
    const unkept = this.#unkept;
    this.#unkept = undefined;
    if (unkept !== undefined && formatHardwareString(unkept) === hardware) await this.#options.kept.write(unkept);
  }

  async #read(): Promise<string> {
    const { kept, logger, read = readHardware } = this.#options;
    const reading = await read();
    for (const remark of reading.remarks) logger.warn(remark);
    const keptFacts = await kept.read();
    this.#unkept = undefined;
    if (keptFacts !== undefined) {
      const change = compareHardware(keptFacts, reading);
      // Only names of facts are logged: their values make keys.
      if (change.real.length > 0) {
        logger.warn(
          { changed: change.real },
          'The hardware has changed, and with it the hardware string and all keys: the server must accept the new string',
        );
      } else if (change.byItself.length > 0) {
        logger.warn(
          { changed: change.byItself, reasons: [...reading.untold.values()] },
          'The hardware string that the server accepted last is used, since only such facts have changed as may change by themselves',
        );
        return formatHardwareString(keptFacts);
      }
    }
    if (reading.untold.size > 0) throw hardwareUnreadable(reading.untold);
    if (!isDeepStrictEqual(keptFacts, reading.facts)) this.#unkept = reading.facts;
    return formatHardwareString(reading.facts);
  }
}
