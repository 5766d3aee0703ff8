import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { SERVICES_FOLDER } from '../services/services.ts';
import type { ContainerEngine } from './container-engine.ts';

const run = promisify(execFile);
const SCRIPT = path.join(import.meta.dirname, 'base-image.sh');
/** For the packages of a minimal Debian, over a slow line, in ms. */
const MAKE_TIMEOUT_MS = 240_000;
/** What node:26-slim gives to its containers. */
const CONFIG = [
  'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  'ENTRYPOINT ["docker-entrypoint.sh"]',
  'CMD ["node"]',
];

/**
 * The name of an image that stands in for node:26-slim, with this process's Node. It is made once for each version of
 * Node and of its script. Needs root, and Debian's packages.
 */
export async function baseImage(engine: ContainerEngine, onMake: () => void): Promise<string> {
  const script = await readFile(SCRIPT);
  const key = createHash('sha256').update(script).update(process.version).update(CONFIG.join()).digest('hex');
  const ref = `loader-base:${key.slice(0, 16)}`;
  if (await engine.hasImage(ref)) return ref;
  onMake();
  const folder = await mkdtemp(path.join(SERVICES_FOLDER, 'base-image-'));
  try {
    const tar = path.join(folder, 'base.tar');
    const env = { ...process.env, TMPDIR: folder };
    await run('bash', [SCRIPT, process.execPath, tar], { env, timeout: MAKE_TIMEOUT_MS, maxBuffer: 1 << 26 });
    await engine.importImage(createReadStream(tar), ref, CONFIG);
    return ref;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
