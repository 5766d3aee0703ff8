import { randomBytes } from 'node:crypto';
import path from 'node:path';
import { readSmallFile, writeSmallFile } from '../files/small-file.ts';
import type { Logger } from '../log/logger.ts';
import { MacKey } from '../manifest/manifest-keys.ts';

/** Under STATE_DIR. */
const FILE = 'device.key';
const KEY_LENGTH = 32;

/** The key that authenticates this device's records of its copies: random, and kept in STATE_DIR. It is read once. */
export class DeviceKey {
  readonly #path: string;
  readonly #logger: Logger;
  #mac: Promise<MacKey> | undefined;

  constructor(stateDir: string, logger: Logger) {
    this.#path = path.join(stateDir, FILE);
    this.#logger = logger;
  }

  /** It never fails: where STATE_DIR can't be used, the key is good for this process, and the next one makes records anew. */
  async mac(): Promise<MacKey> {
    this.#mac ??= this.#read();
    return await this.#mac;
  }

  async #read(): Promise<MacKey> {
    try {
      const key = Buffer.from((await readSmallFile(this.#path, 2 * KEY_LENGTH)) ?? '', 'hex');
      if (key.length === KEY_LENGTH) return deviceMac(key);
    } catch (error) {
      this.#logger.warn({ err: error }, 'The key of this device can not be read: its copies are compared anew');
    }
    const key = randomBytes(KEY_LENGTH);
    try {
      await writeSmallFile(this.#path, key.toString('hex'));
    } catch (error) {
      this.#logger.warn({ err: error }, 'The key of this device could not be kept in STATE_DIR');
    }
    return deviceMac(key);
  }
}

function deviceMac(key: Buffer): MacKey {
  return new MacKey(`device-${MacKey.idOf(key)}`, key);
}
