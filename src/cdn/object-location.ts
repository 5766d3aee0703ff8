/** Where an object lies on the CDN. */
export interface ObjectLocation {
  readonly bucket: string;
  readonly key: string;
}
