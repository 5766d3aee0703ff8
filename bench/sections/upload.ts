import { interleave } from '../measure.ts';
import { AwsCli } from '../peers/aws-cli.ts';
import { timeRow } from '../time-row.ts';
import { assertDigest, TIMED_LENGTH, type Section, type SectionContext } from './section.ts';

export const upload: Section = { title: 'upload of 300 MB', run };

async function run({ stage, table, rounds }: SectionContext): Promise<void> {
  const resource = await stage.resource(TIMED_LENGTH);
  const aws = new AwsCli(stage, resource, await stage.ciphertext(resource));
  const loader = await stage.place.loader();
  // A name of its own: the other sections' ciphertext belongs to the resource as it is.
  const name = `uploaded-${resource.name}`;
  await loader.upload(name, resource.plaintextPath);
  await stage.place.untilCached(name);
  await stage.place.clearCache();
  assertDigest('an upload', await loader.loadDigest(name), resource.sha256);
  await stage.place.untilCached(name);
  await aws.upload();
  assertDigest("the peer's upload", await aws.downloadDigest(), resource.sha256);

  const samples = await interleave(
    {
      loader: async () => {
        const { wallMs } = await loader.upload(name, resource.plaintextPath);
        await stage.place.untilCached(name);
        return wallMs;
      },
      aws: () => aws.upload(),
    },
    rounds,
  );
  table.add(
    timeRow({
      what: 'upload | openssl enc | aws s3 cp -',
      bytes: resource.length,
      loaderMs: samples.loader,
      peerMs: samples.aws,
      target: { kind: 'time', value: 0.7 },
    }),
  );
}
