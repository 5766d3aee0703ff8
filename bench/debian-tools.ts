import { access, constants } from 'node:fs/promises';
import { installDebianPackages } from '../lab/services/services.ts';

/** By path, since another program of the same name may come first in PATH. */
export const NGINX = '/usr/sbin/nginx';
export const AWS = '/usr/bin/aws';
export const RCLONE = '/usr/bin/rclone';
export const CURL = '/usr/bin/curl';
export const OPENSSL = '/usr/bin/openssl';
/** Comes with the engine, from some versions of Debian on in a package of its own; who uses it does without, too. */
export const DOCKER = '/usr/bin/docker';

const PACKAGES = { [NGINX]: 'nginx-light', [AWS]: 'awscli', [RCLONE]: 'rclone', [CURL]: 'curl', [OPENSSL]: 'openssl' };

/** Installs what is not there of the peers and clients. Needs root only for that. */
export async function ensureDebianTools(): Promise<void> {
  const missing: string[] = [];
  for (const [command, packageName] of Object.entries(PACKAGES)) {
    await access(command, constants.X_OK).catch(() => missing.push(packageName));
  }
  if (missing.length === 0) return;
  console.log(`Installing ${missing.join(', ')} from Debian ...`);
  await installDebianPackages(missing);
}
