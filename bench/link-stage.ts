import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { CertificateAuthority } from '../lab/links/certificate-authority.ts';
import type { LinkShape } from '../lab/links/link-shape.ts';
import { ShapedLink } from '../lab/links/shaped-link.ts';
import type { Origin } from '../lab/upstream/origin.ts';
import type { LoaderPlace } from './loader-place.ts';

export interface LinkStageOptions {
  readonly shape: LinkShape;
  /** For the place of the Loader and the certificate. */
  readonly folder: string;
  readonly origin: Origin;
  readonly newPlace: (folder: string, env: Readonly<Record<string, string>>) => LoaderPlace;
}

/** What a transfer over a link was like. */
export interface LinkTransfer {
  readonly wallMs: number;
  /** The rate from the end of the first second on, as a fraction of that of the link. */
  readonly fraction: number;
  /** TLS handshakes. */
  readonly handshakes: number;
}

const FIRST_SECOND_MS = 1000;
/** More than the longest round trip, and than any pause between two requests. */
const QUIET_MS = 1000;

/** A Loader whose Resource API and CDN are behind TLS and a link that both share. */
export class LinkStage {
  /** The CDN over the link. */
  readonly endpoint: string;
  /** The certificate that clients must trust. */
  readonly caPath: string;
  readonly place: LoaderPlace;
  readonly #link: ShapedLink;
  readonly #origin: Origin;

  private constructor(parts: {
    endpoint: string;
    caPath: string;
    place: LoaderPlace;
    link: ShapedLink;
    origin: Origin;
  }) {
    this.endpoint = parts.endpoint;
    this.caPath = parts.caPath;
    this.place = parts.place;
    this.#link = parts.link;
    this.#origin = parts.origin;
  }

  static async start({ shape, folder, origin, newPlace }: LinkStageOptions): Promise<LinkStage> {
    const ca = new CertificateAuthority();
    const caPath = path.join(folder, 'ca.pem');
    await mkdir(folder, { recursive: true });
    await writeFile(caPath, ca.certificate);
    const link = ShapedLink.start(shape);
    const endpoint = await link.open(origin.s3Endpoint, ca.issue());
    const place = newPlace(folder, {
      RESOURCE_API_URL: await link.open(origin.api.url, ca.issue()),
      NODE_EXTRA_CA_CERTS: caPath,
      // At once: `untilQuiet` waits for the second look of an upload, which would be counted with the next transfer.
      UPLOAD_SECOND_LOOK_MS: '0',
    });
    await origin.moveCdn(endpoint);
    return new LinkStage({ endpoint, caPath, place, link, origin });
  }

  /** Measures what moves most of its bytes in one direction. */
  async measure(direction: 'down' | 'up', work: () => Promise<unknown>): Promise<LinkTransfer> {
    const { counts, shape } = this.#link;
    const bytes = () => (direction === 'down' ? counts.bytesDown : counts.bytesUp);
    counts.reset();
    const startedAt = performance.now();
    let early = { bytes: 0, ms: 0 };
    const timer = setTimeout(() => {
      early = { bytes: bytes(), ms: performance.now() - startedAt };
    }, FIRST_SECOND_MS);
    try {
      await work();
    } finally {
      clearTimeout(timer);
    }
    const wallMs = performance.now() - startedAt;
    const rate = (1000 * (bytes() - early.bytes)) / (wallMs - early.ms);
    return { wallMs, fraction: rate / shape.bytesPerSecond, handshakes: counts.handshakes };
  }

  /** Waits for what a transfer does after its end: until nothing has passed over the link for a second. */
  async untilQuiet(): Promise<void> {
    const { counts } = this.#link;
    let passed: number;
    do {
      passed = counts.bytesUp + counts.bytesDown;
      await sleep(QUIET_MS);
    } while (counts.bytesUp + counts.bytesDown !== passed);
  }

  /** Cuts the link for `outageMs` as soon as `work` has brought so many bytes down. Returns what it brought in all. */
  async cut(outage: 'silent' | 'reset', fromByte: number, outageMs: number, work: () => Promise<unknown>) {
    const { counts } = this.#link;
    counts.reset();
    const startedAt = performance.now();
    const cutting = this.#cut(outage, fromByte, outageMs);
    await work();
    const wallMs = performance.now() - startedAt;
    await cutting;
    return { wallMs, bytes: counts.bytesDown };
  }

  async #cut(outage: 'silent' | 'reset', fromByte: number, outageMs: number): Promise<void> {
    while (this.#link.counts.bytesDown < fromByte) await sleep(10);
    await this.#link.change({ outage });
    await sleep(outageMs);
    await this.#link.change({ outage: 'none' });
  }

  async stop(): Promise<void> {
    await this.place.stopLoader();
    await this.#link.stop();
    await this.#origin.moveCdn(this.#origin.s3Endpoint);
  }
}
