/** Why a manifest is not taken, as the end of a sentence that begins with the manifest. It quotes nothing of it. */
export class ManifestError extends Error {
  override readonly name = 'ManifestError';
}
