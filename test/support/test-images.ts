import { makeImage, makeLayer, seededBytes, type Image } from '../../lab/images/image-maker.ts';

const MB = 1_000_000;

/** A layer with one file of `megabytes`, the same for the same name. */
export function testLayer(name: string, megabytes = 1): Buffer {
  return makeLayer({ [`app/${name}`]: seededBytes(name, megabytes * MB) });
}

/** Images over one shared base, one of which is that base itself, with several tags and none among them. */
export function testImages(release = 'one', megabytes = 1): Image[] {
  const base = testLayer(`${release}-base`, 2 * megabytes);
  const runtime = testLayer(`${release}-runtime`, megabytes);
  const service = (name: string, tags: readonly string[]) =>
    makeImage({ tags, layers: [base, runtime, testLayer(`${release}-${name}`, megabytes)], config: { Cmd: [name] } });
  return [
    makeImage({ tags: ['azaion-test/base:1'], layers: [base] }),
    service('api', ['azaion-test/api:1', 'azaion-test/api:stable']),
    service('worker', ['azaion-test/worker:1']),
    service('nameless', []),
    makeImage({ tags: ['azaion-test/alone:1'], layers: [testLayer(`${release}-alone`, megabytes)] }),
  ];
}
