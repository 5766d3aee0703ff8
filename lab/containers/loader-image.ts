import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { shippedFolder } from '../shipped-folder.ts';
import type { ContainerEngine } from './container-engine.ts';

/**
 * Builds the last stage of a Dockerfile of the Loader, and returns the name of the image.
 *
 * The stages before it need npm and its registry. lab/build-shipped.sh does the same work outside of a container, and the
 * last stage copies from that: only the stages' contents come from elsewhere, each of its instructions is run.
 */
export async function buildLoaderImage(engine: ContainerEngine, base: string, dockerfile: string): Promise<string> {
  const ref = 'loader-under-test:latest';
  const shipped = await shippedFolder();
  const folder = await mkdtemp(path.join(tmpdir(), 'loader-image-'));
  try {
    await writeFile(path.join(folder, 'Dockerfile'), withShippedStages(dockerfile));
    const files = ['-C', folder, 'Dockerfile', '-C', shipped, 'dist', 'node_modules', 'package.json'];
    // Files of what ships are hard links of one installation.
    const tar = spawn('tar', ['--create', '--hard-dereference', ...files], { stdio: ['ignore', 'pipe', 'pipe'] });
    const [, error, [code]] = await Promise.all([
      engine.build(tar.stdout, ref, { BASE: base }),
      text(tar.stderr),
      once(tar, 'close') as Promise<[number | null]>,
    ]);
    if (code !== 0) throw new Error(`tar failed: ${error}`);
    return ref;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** What stands before the first stage, two stages that have what ships where the build would put it, the last stage. */
function withShippedStages(dockerfile: string): string {
  const [head = '', ...stages] = dockerfile.split(/^(?=FROM )/m);
  const last = stages.at(-1);
  if (last === undefined || stages.length < 2) throw new Error('the Dockerfile has no stages');
  return [
    head,
    'FROM scratch AS build\nCOPY dist /build/dist\n',
    'FROM scratch AS dependencies\nCOPY node_modules /build/node_modules\n',
    last,
  ].join('\n');
}
