import type { NamedHardware } from './hardware-facts.ts';

/** What was read of CPU or graphics cards. */
export interface NamedReading extends NamedHardware {
  /** Why there are no models, where there should be some. */
  readonly untold?: string;
  /** What a person should know, though there are models. */
  readonly remark?: string;
}
