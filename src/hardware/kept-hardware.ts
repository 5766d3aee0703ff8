import path from 'node:path';
import { readSmallFile, writeSmallFile } from '../files/small-file.ts';
import { asRecord, parseJson } from '../json.ts';
import type { Logger } from '../log/logger.ts';
import { formatHardwareString, type HardwareFacts, type NamedHardware } from './hardware-facts.ts';

/** In STATE_DIR. */
export const KEPT_HARDWARE_FILE = 'hardware.json';
const VERSION = 1;
const MAX_LENGTH = 64 * 1024;

/** The hardware whose string the server accepted last, on disk, so that the next start can prefer that string. */
export class KeptHardware {
  readonly #path: string;
  readonly #logger: Logger;

  /** @param folder STATE_DIR; it is made when the hardware is first written */
  constructor(folder: string, logger: Logger) {
    this.#path = path.join(folder, KEPT_HARDWARE_FILE);
    this.#logger = logger;
  }

  /** Undefined when none was written. What can't be read or makes no sense counts as none, with a line in the log. */
  async read(): Promise<HardwareFacts | undefined> {
    const ignored = 'The kept hardware string is not used, since hardware.json in STATE_DIR ';
    try {
      const text = await readSmallFile(this.#path, MAX_LENGTH);
      if (text === undefined) return undefined;
      const facts = parse(parseJson(text));
      if (facts === undefined) this.#logger.warn(`${ignored}makes no sense`);
      return facts;
    } catch (error) {
      this.#logger.warn({ err: error }, `${ignored}can't be read`);
      return undefined;
    }
  }

  /** Writes it whole or not at all. A failure is a line in the log: the login has succeeded without it. */
  async write(facts: HardwareFacts): Promise<void> {
    try {
      const text = JSON.stringify({ version: VERSION, string: formatHardwareString(facts), facts });
      await writeSmallFile(this.#path, text);
    } catch (error) {
      this.#logger.warn({ err: error }, 'The accepted hardware string could not be kept in STATE_DIR');
    }
  }
}

/** The string stands beside its facts so that a wrong bit in either is noticed: it would make wrong keys. */
function parse(value: unknown): HardwareFacts | undefined {
  const { version, string, facts } = asRecord(value) ?? {};
  const { cpu, gpu, memoryBytes, driveSerials } = asRecord(facts) ?? {};
  if (version !== VERSION || !isNamed(cpu) || !isNamed(gpu)) return undefined;
  if (typeof memoryBytes !== 'number' || !Number.isSafeInteger(memoryBytes)) return undefined;
  if (!Array.isArray(driveSerials) || !driveSerials.every(isSerial)) return undefined;
  const parsed = { cpu, gpu, memoryBytes, driveSerials };
  return cpu.models.length > 0 && string === formatHardwareString(parsed) ? parsed : undefined;
}

function isNamed(value: unknown): value is NamedHardware {
  const { ids, models } = asRecord(value) ?? {};
  return areTexts(ids) && areTexts(models);
}

function areTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((text) => typeof text === 'string');
}

function isSerial(value: unknown): value is string | null {
  return value === null || typeof value === 'string';
}
