import { interleave } from '../measure.ts';
import { AwsCli } from '../peers/aws-cli.ts';
import { timeRow } from '../time-row.ts';
import { assertDigest, TIMED_LENGTH, type Section, type SectionContext } from './section.ts';

export const coldLoad: Section = { title: 'cold load, 300 MB from S3, with the cache cleared', run };

async function run({ stage, table, rounds }: SectionContext): Promise<void> {
  const resource = await stage.resource(TIMED_LENGTH);
  const aws = new AwsCli(stage, resource, await stage.ciphertext(resource));
  const loader = await stage.place.loader();
  await aws.seed();
  await stage.place.clearCache();
  assertDigest('a cold load', await loader.loadDigest(resource.name), resource.sha256);
  await stage.place.untilCached(resource.name);
  assertDigest("the peer's output", await aws.downloadDigest(), resource.sha256);

  const samples = await interleave(
    {
      loader: async () => {
        await stage.place.clearCache();
        const { wallMs } = await loader.load(resource.name, resource.length);
        await stage.place.untilCached(resource.name);
        return wallMs;
      },
      aws: () => aws.download(),
    },
    rounds,
  );
  table.add(
    timeRow({
      what: 'cold load | aws s3 cp | openssl enc -d',
      bytes: resource.length,
      loaderMs: samples.loader,
      peerMs: samples.aws,
      target: { kind: 'time', value: 0.6 },
    }),
  );
}
