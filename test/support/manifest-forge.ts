import { parseEnvelope } from '../../src/manifest/dsse-envelope.ts';
import { parseStatement, type Manifest } from '../../src/manifest/manifest.ts';
import { ResourceKeyMac, type ManifestSigner } from '../../src/manifest/manifest-keys.ts';
import { sealManifest } from '../../src/manifest/sealed-manifest.ts';
import { deriveAesKey, deriveResourceKey } from '../../src/security/key-derivation.ts';
import type { Device } from './device.ts';

/** The manifests of a device's bucket, as somebody who has the resource key could replace them. */
export class ManifestForge {
  readonly #device: Device;
  readonly #mac: ResourceKeyMac;

  constructor(device: Device) {
    this.#device = device;
    this.#mac = new ResourceKeyMac(deriveAesKey(deriveResourceKey(device.origin.resourceKey)));
  }

  /** Key of the manifest on the CDN. */
  keyOf(name: string, folder = 'models'): string {
    return `${folder}/${name}.manifest`;
  }

  async bytes(name: string): Promise<Buffer> {
    return (await this.#device.readObject(this.keyOf(name))).bytes;
  }

  async read(name: string): Promise<Manifest> {
    return parseStatement(parseEnvelope(await this.bytes(name)).payload);
  }

  async write(name: string, bytes: Buffer): Promise<void> {
    await this.#device.writeObject(this.keyOf(name), { bytes });
  }

  /** Replaces the manifest of a resource by a changed one, with a right signature unless `signers` are given. */
  async change(
    name: string,
    change: (manifest: Manifest) => Partial<Manifest>,
    signers: readonly ManifestSigner[] = [this.#mac],
  ): Promise<void> {
    const manifest = await this.read(name);
    await this.write(name, sealManifest({ ...manifest, ...change(manifest) }, signers));
  }
}
