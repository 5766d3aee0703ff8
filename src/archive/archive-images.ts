/** What makes an image that image. */
export interface WantedImage {
  /** `sha256:` and the digest of the config. */
  readonly id: string;
  readonly tags: readonly string[];
  readonly diffIds: readonly string[];
}
