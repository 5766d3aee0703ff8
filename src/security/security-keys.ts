import { deriveAesKey, deriveApiKey, deriveHardwareHash, deriveResourceKey } from './key-derivation.ts';

export interface SecurityKeysOptions {
  /** The texts from which the keys are derived, with placeholders (docs/protocol.md section 1). */
  readonly templates: { readonly hardware: string; readonly api: string };
  /** The secret that all devices of a fleet share, where cdn.yaml names none. */
  readonly resourceSecret: string | undefined;
}

/** The AES-256 keys of this device, of 32 bytes each, derived from user, hardware and the fleet's secret. */
export class SecurityKeys {
  readonly #options: SecurityKeysOptions;

  constructor(options: SecurityKeysOptions) {
    this.#options = options;
  }

  /** The key of the envelopes that the Resource API makes for this user on this hardware. */
  apiAesKey({ email, password, hardware }: { email: string; password: string; hardware: string }): Buffer {
    const { templates } = this.#options;
    const hardwareHash = deriveHardwareHash(templates.hardware, hardware);
    return deriveAesKey(deriveApiKey(templates.api, { email, password, hardwareHash }));
  }

  /** The key of the resources' envelopes; undefined where neither cdn.yaml nor the configuration has its secret. */
  resourceAesKey(secretOfCdnConfig: string | undefined): Buffer | undefined {
    const secret = secretOfCdnConfig ?? this.#options.resourceSecret; // The secret of cdn.yaml wins.
    return secret === undefined ? undefined : deriveAesKey(deriveResourceKey(secret));
  }
}
