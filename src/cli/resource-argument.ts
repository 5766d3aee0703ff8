import { RESOURCE_FORMATS, type ResourceName } from '../resource-name.ts';
import { UsageError } from './cli-error.ts';

/** The resource that an argument names as FOLDER/FILE. `argument` is what people know it by. @throws UsageError */
export function resourceArgument(argument: string, text: string): ResourceName {
  const slash = text.lastIndexOf('/');
  if (slash < 0) throw new UsageError(`${argument} must be FOLDER/FILE.`);
  const resource = { folder: text.slice(0, slash), name: text.slice(slash + 1) };
  for (const [what, part, format] of [
    ['folder', resource.folder, RESOURCE_FORMATS['resource-folder']],
    ['file', resource.name, RESOURCE_FORMATS['resource-filename']],
  ] as const) {
    if (!format.validate(part)) throw new UsageError(`The ${what} of ${argument} ${format.meaning}.`);
  }
  return resource;
}
