import type { CopyRecord } from '../cache/copy-record.ts';
import { objectChanged } from '../cdn/cdn-errors.ts';
import { smallPartFile, type ResourceName } from '../resource-name.ts';
import type { Session } from '../upstream/upstream.ts';
import { smallPartSha256 } from './envelope-parts.ts';

/** The two parts that a load joins. Where the object does not name its small part, the API is asked for that again. */
export class PartPair {
  readonly #resource: ResourceName;
  readonly #record: CopyRecord;
  readonly #api: Pick<Session['api'], 'fetchResource'>;

  constructor(resource: ResourceName, record: CopyRecord, api: Pick<Session['api'], 'fetchResource'>) {
    this.#resource = resource;
    this.#record = record;
    this.#api = api;
  }

  /**
   * Confirms that no upload of an older Loader began while the parts were read (docs/protocol.md section 6).
   *
   * @throws LoaderError `cdn_object_changed` when one did; those of ApiSession; the reason of `signal`
   */
  async confirm(signal: AbortSignal): Promise<void> {
    if (this.#record.isPair === true) return;
    const present = await this.#api.fetchResource(this.#resource.folder, smallPartFile(this.#resource), signal);
    if (smallPartSha256(present) !== this.#record.smallSha256) throw objectChanged();
  }
}
