import { LoaderError } from '../errors.ts';
import { readHardwareFacts, type HardwareFacts } from './hardware-facts.ts';

const GIB = 1024 ** 3;

/** The canonical hardware string (docs/protocol.md section 2). */
export function formatHardwareString(facts: HardwareFacts): string {
  const models = facts.gpuModels.map((model) => model.trim()).filter((model) => model !== '');
  const gpus = [...new Set(models)].sort().join(', ');
  const memoryGib = Math.round(facts.memoryBytes / GIB);
  const drive = facts.driveSerial ?? 'none';
  return `CPU: ${facts.cpuModel.trim()}. GPU: ${gpus || 'none'}. Memory: ${memoryGib} GiB. DriveSerial: ${drive}`;
}

/** The hardware string of this machine. It is read once and kept; after a failure the next call reads again. */
export class HardwareFingerprint {
  readonly #hardwareId: string | undefined;
  readonly #readFacts: () => Promise<HardwareFacts>;
  #reading: Promise<string> | undefined;

  /** `hardwareId`, if given, replaces the whole string. */
  constructor(hardwareId: string | undefined, readFacts: () => Promise<HardwareFacts> = readHardwareFacts) {
    this.#hardwareId = hardwareId;
    this.#readFacts = readFacts;
  }

  /** @throws LoaderError `hardware_unreadable` */
  async hardwareString(): Promise<string> {
    if (this.#hardwareId !== undefined) return this.#hardwareId;
    this.#reading ??= this.#read().catch((error: unknown) => {
      this.#reading = undefined;
      throw error;
    });
    return await this.#reading;
  }

  async #read(): Promise<string> {
    try {
      return formatHardwareString(await this.#readFacts());
    } catch (error) {
      throw new LoaderError(
        'hardware_unreadable',
        'The hardware of this machine could not be read; set HARDWARE_ID to a string that stays the same.',
        { cause: error },
      );
    }
  }
}
