import { rm } from 'node:fs/promises';
import { systemErrorCode } from '../errors.ts';
import { resourceKey, type ResourceName } from '../resource-name.ts';
import { revisionPath } from '../resources/revision-memory.ts';
import { CliError } from './cli-error.ts';

/**
 * Removes the memory of the highest revision of a resource. Returns a sentence that says what was done.
 *
 * @throws CliError
 */
export async function forgetRevision(resource: ResourceName, stateDir: string): Promise<string> {
  const name = resourceKey(resource);
  try {
    await rm(revisionPath(stateDir, resource));
    return `${name} is forgotten: the next load takes whatever version the CDN has.`;
  } catch (error) {
    const code = systemErrorCode(error) ?? 'unknown reason';
    if (code === 'ENOENT') return `Nothing is remembered of ${name} in ${stateDir}: check STATE_DIR and the name.`;
    throw new CliError(`What is remembered of ${name} could not be removed from ${stateDir} (${code}).`, {
      cause: error,
    });
  }
}
