import { appendFileSync } from 'node:fs';
import path from 'node:path';
import type { S3Service } from './services/services.ts';

/**
 * What test/run.ts hands to the test files through their environment. A test file that runs alone, with
 * `node --test`, finds none of it: then tests that need S3 or Docker are skipped.
 */
const { env } = process;

/** The real S3 server of this run; undefined with the reason in `S3_SKIP_REASON`. */
export const S3: S3Service | undefined =
  env['LOADER_TEST_S3_ENDPOINT'] === undefined
    ? undefined
    : {
        endpoint: env['LOADER_TEST_S3_ENDPOINT'],
        accessKey: env['LOADER_TEST_S3_KEY'] ?? '',
        accessSecret: env['LOADER_TEST_S3_SECRET'] ?? '',
      };

/** For the `skip` option of tests that need the real S3 server: false, or why they can't run. */
export const S3_SKIP: string | false =
  S3 === undefined ? (env['LOADER_TEST_S3_SKIP'] ?? 'no S3 server: run this through npm test') : false;

/**
 * The real Docker engine of this run, as in DOCKER_HOST; undefined with the reason in `DOCKER_SKIP`. It is empty at
 * first, and all test files share it: each removes what it loaded, and no more. One that must have an engine for itself,
 * to kill it for instance, starts one with `startDockerd` and a name of its own that begins with `dockerd`.
 */
export const DOCKER_HOST: string | undefined = env['LOADER_TEST_DOCKER_HOST'];

/** For the `skip` option of tests that need the real Docker engine: false, or why they can't run. */
export const DOCKER_SKIP: string | false =
  DOCKER_HOST === undefined ? (env['LOADER_TEST_DOCKER_SKIP'] ?? 'no Docker engine: run this through npm test') : false;

/**
 * For the `skip` option of tests that start an engine of their own with `{ version: '26.1' }`: false, or why they can't
 * run.
 */
export const DOCKER_26_SKIP: string | false =
  env['LOADER_TEST_DOCKER_26'] === undefined
    ? (env['LOADER_TEST_DOCKER_26_SKIP'] ?? 'no Docker 26.1: run this through npm test')
    : false;

/**
 * The engine of this run that can run containers, as in DOCKER_HOST, and an image on it that stands in for the
 * Dockerfile's BASE; undefined with the reason in `CONTAINER_SKIP`.
 */
export const CONTAINERS: { readonly host: string; readonly base: string } | undefined =
  env['LOADER_TEST_CONTAINER_HOST'] === undefined
    ? undefined
    : { host: env['LOADER_TEST_CONTAINER_HOST'], base: env['LOADER_TEST_CONTAINER_BASE'] ?? '' };

/** For the `skip` option of tests that run containers: false, or why they can't run. */
export const CONTAINER_SKIP: string | false =
  CONTAINERS === undefined ? (env['LOADER_TEST_CONTAINER_SKIP'] ?? 'no containers: run this through npm test') : false;

/** Folder of this run: logs of all Loaders, and the secrets that must not be in them. */
export const RUN_FOLDER = env['LOADER_TEST_RUN_FOLDER'] ?? path.resolve(import.meta.dirname, '../.services/run');
export const LOG_FOLDER = path.join(RUN_FOLDER, 'logs');
export const SECRETS_FILE = path.join(RUN_FOLDER, 'secrets.txt');

/** Notes secrets of this run, so that the last test can look for them in all logs and answers. */
export function noteSecrets(...secrets: readonly string[]): void {
  appendFileSync(SECRETS_FILE, secrets.map((secret) => `${JSON.stringify(secret)}\n`).join(''));
}
