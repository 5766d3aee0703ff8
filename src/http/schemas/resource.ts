import type { Static } from 'typebox';
import { nullable, Type } from '../../json-schemas.ts';
import type { CachedResource } from '../../resources/resource-list.ts';
import { TIME } from './responses.ts';

const FOLDER = {
  description: 'One to eight path segments joined by /. The first may not be get.',
  examples: ['models'],
};

/** It has no format: where the body names the file, the name in the path is not looked at. */
export const RESOURCE_PARAMS = Type.Object({
  filename: Type.String({ description: "The resource's file name, percent-encoded.", examples: ['detector.onnx'] }),
});

export const LOAD_BODY = Type.Object(
  {
    filename: Type.Optional(
      Type.String({ format: 'resource-filename', description: 'Overrides the file name in the path.' }),
    ),
    folder: Type.String({ format: 'resource-folder', ...FOLDER }),
  },
  { description: 'Where the resource is.', examples: [{ folder: 'models' }] },
);

/** It is checked while the form streams, not by a validator. */
export const UPLOAD_FORM = Type.Object(
  {
    data: Type.Unsafe<unknown>({ type: 'string', format: 'binary', description: 'The one file.' }),
    folder: Type.Optional(Type.String({ format: 'resource-folder', default: 'models', ...FOLDER })),
  },
  { description: 'A form with one file.', examples: [{ data: 'the bytes of the model', folder: 'models' }] },
);

/** Folder and file name, joined by a slash: the last one tells them apart, since a folder may have some too. */
export const RESOURCE_PATH = Type.Object({ '*': Type.String() });

/** The same as the document shows it. */
export const RESOURCE_PATH_PARTS = Type.Object({
  folder: Type.String({ ...FOLDER, description: `${FOLDER.description} They stay slashes in the path.` }),
  filename: Type.String({ description: "The resource's file name, percent-encoded.", examples: ['detector.onnx'] }),
});

/** RFC 9110. */
export const RESOURCE_HEADERS = Type.Object({
  range: Type.Optional(Type.String({ description: 'One range of bytes; of several, the whole is sent.' })),
  'if-range': Type.Optional(Type.String({ description: 'The ETag of the version that the range is of.' })),
  'if-none-match': Type.Optional(Type.String({ description: 'ETags of the versions that the client has.' })),
  'if-modified-since': Type.Optional(Type.String({ description: 'The time of the version that the client has.' })),
});

export const RESOURCE_LIST_QUERY = Type.Object({
  folder: Type.Optional(
    Type.String({ format: 'resource-folder', description: 'Only resources of this folder.', examples: ['models'] }),
  ),
  limit: Type.Optional(
    Type.String({
      format: 'page-limit',
      description: 'Resources on a page, 1 to 200; 50 if absent.',
      examples: ['50'],
    }),
  ),
  cursor: Type.Optional(
    Type.String({ description: 'The next_cursor of the page before.', examples: ['models/classifier.onnx'] }),
  ),
});

const CACHED_RESOURCE = Type.Object({
  folder: Type.String(),
  name: Type.String(),
  bytes: nullable(Type.Integer({ description: 'Of the plaintext; null where the resource has no manifest.' })),
  stored_bytes: Type.Integer({ description: 'Of the copy in the cache.' }),
  revision: nullable(Type.Integer({ description: 'Of its manifest; null where it has none.' })),
  verified: Type.Boolean({
    description: 'Whether loads compare it with a manifest, and not only with what was fetched.',
  }),
  loaded_at: TIME,
});

export const RESOURCE_LIST = Type.Object(
  { resources: Type.Array(CACHED_RESOURCE), next_cursor: nullable(Type.String()) },
  { description: 'Copies in the cache, by folder and name. A copy whose name is not known is left out.' },
);

export function toResourceView(resource: CachedResource): Static<typeof CACHED_RESOURCE> {
  const { folder, name, bytes = null, storedBytes, revision = null, loadedAtMs } = resource;
  const loadedAt = new Date(loadedAtMs).toISOString();
  const verified = revision !== null;
  return { folder, name, bytes, stored_bytes: storedBytes, revision, verified, loaded_at: loadedAt };
}
