import path from 'node:path';
import { curlDigest, curlDownload } from '../curl.ts';
import { interleave } from '../measure.ts';
import { Nginx } from '../peers/nginx.ts';
import { opensslDecrypt, opensslDecryptDigest } from '../peers/openssl.ts';
import { timeRow } from '../time-row.ts';
import { assertDigest, TIMED_LENGTH, type Section, type SectionContext } from './section.ts';

export const warmLoad: Section = { title: 'warm load, 300 MB from the cache', run };

async function run({ stage, table, rounds }: SectionContext): Promise<void> {
  const { signal } = stage;
  const resource = await stage.resource(TIMED_LENGTH);
  const ciphertext = await stage.ciphertext(resource);
  const loader = await stage.place.loader();
  const nginx = await Nginx.start(path.dirname(resource.plaintextPath), path.join(stage.folder, 'nginx'));
  try {
    const nginxArgs = [`${nginx.url}/${path.basename(resource.plaintextPath)}`];
    assertDigest('a warm load', await loader.loadDigest(resource.name), resource.sha256);
    assertDigest("nginx's answer", await curlDigest(nginxArgs, signal), resource.sha256);
    assertDigest("openssl's output", await opensslDecryptDigest(ciphertext, signal), resource.sha256);

    const samples = await interleave(
      {
        loader: async () => await loader.load(resource.name, resource.length),
        nginx: async () => await curlDownload(nginxArgs, resource.length, signal),
        openssl: async () => {
          const wallMs = await opensslDecrypt(ciphertext, signal);
          return { wallMs, totalMs: wallMs };
        },
      },
      rounds,
    );
    table.add(
      timeRow({
        what: 'warm load | openssl enc -d into a pipe',
        bytes: resource.length,
        // openssl has no clock of its own: both with the start of their processes.
        loaderMs: samples.loader.map((sample) => sample.wallMs),
        peerMs: samples.openssl.map((sample) => sample.wallMs),
        target: { kind: 'rate', value: 1.1 },
      }),
    );
    table.add(
      timeRow({
        what: "warm load | nginx, plaintext (curl's own clock)",
        bytes: resource.length,
        // The start of curl is the same for both, and would make the ratio look better than it is.
        loaderMs: samples.loader.map((sample) => sample.totalMs),
        peerMs: samples.nginx.map((sample) => sample.totalMs),
        target: { kind: 'rate', value: 0.75 },
      }),
    );
  } finally {
    await nginx.stop();
  }
}
