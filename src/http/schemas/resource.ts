import { Type } from '../../json-schemas.ts';

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
