import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FaultSchedule } from '../../../../lab/faults/fault-schedule.ts';
import { apiRequestKind, PASSING_API_FAULTS } from '../../../../lab/faults/api-faults.ts';
import { LASTING_S3_FAULTS, PASSING_S3_FAULTS } from '../../../../lab/faults/s3-faults.ts';
import { s3RequestKind } from '../../../../lab/faults/s3-request.ts';

const part = (number: number, id = 'u') => ({
  method: 'PUT',
  url: `/b/k?partNumber=${number}&uploadId=${id}&x-id=UploadPart`,
  headers: {},
});
const range = (start: number) => ({ method: 'GET', url: '/b/k?x-id=GetObject', headers: { range: `bytes=${start}-` } });
const complete = (id: string) => ({ method: 'POST', url: `/b/k?uploadId=${id}`, headers: {} });
const options = { kindOf: s3RequestKind, faults: PASSING_S3_FAULTS, chance: 0.5, most: 1000 };

describe('FaultSchedule', () => {
  it('draws the same for the same requests, in whatever order they come', () => {
    const requests = Array.from({ length: 100 }, (_, index) => range(index));
    const draw = (seed: number, inOrder: typeof requests) => {
      const schedule = new FaultSchedule({
        ...options,
        faults: { odd: { meets: ['read'], fault: { kind: 'refuse' } } },
        seed,
      });
      const faults = new Map(inOrder.map((request) => [request, schedule.fault(request).kind]));
      return requests.map((request) => faults.get(request));
    };
    const drawn = draw(1, requests);
    assert.deepEqual(draw(1, requests.toReversed()), drawn);
    assert.notDeepEqual(draw(2, requests), drawn);
    const refused = drawn.filter((kind) => kind === 'refuse').length;
    assert.ok(refused > 30 && refused < 70, String(refused));
  });

  it('draws anew for a request that comes again', () => {
    const schedule = new FaultSchedule({ ...options, seed: 1 });
    const kinds = new Set(Array.from({ length: 50 }, () => schedule.fault(range(0)).kind));
    assert.ok(kinds.has('pass') && kinds.size > 3);
  });

  it('meets no request with a fault that is not for it, and only so many', () => {
    const faults = Object.fromEntries(
      Object.entries(PASSING_S3_FAULTS).filter(([, { lastsMs }]) => lastsMs === undefined),
    );
    const schedule = new FaultSchedule({ ...options, seed: 3, faults, chance: 1, most: 7 });
    for (let number = 1; number <= 20; number++) schedule.fault(part(number));
    assert.equal(schedule.met.length, 7);
    for (const { name } of schedule.met) assert.ok(faults[name]?.meets.includes('part'), name);
  });

  it('answers all requests in the same way for as long as a fault lasts', () => {
    const fault = { kind: 'refuse' } as const;
    const schedule = new FaultSchedule({
      ...options,
      seed: 1,
      faults: { outage: { meets: ['read'], fault, lastsMs: 60_000 } },
      chance: 1,
      most: 1,
    });
    assert.equal(schedule.fault(range(0)), fault);
    assert.equal(schedule.fault(complete('u')), fault);
    assert.equal(schedule.met.length, 1);
  });

  it('keeps to a fault of an upload', () => {
    const schedule = new FaultSchedule({ ...options, seed: 1, faults: LASTING_S3_FAULTS, chance: 1, most: 1 });
    const first = schedule.fault(complete('lost'));
    assert.notEqual(first.kind, 'pass');
    assert.deepEqual(schedule.fault(complete('lost')), first);
    assert.equal(schedule.fault(complete('other')).kind, 'pass');
  });

  it('draws for the Resource API too', () => {
    const schedule = new FaultSchedule({
      seed: 1,
      faults: PASSING_API_FAULTS,
      kindOf: apiRequestKind,
      chance: 1,
      most: 4,
    });
    const requests = [
      { method: 'POST', url: '/login', headers: {} },
      { method: 'POST', url: '/resources/get/models', headers: {} },
      { method: 'POST', url: '/resources/models', headers: {} },
      { method: 'GET', url: '/binary-split/key-fragment', headers: {} },
    ];
    assert.deepEqual(requests.map(apiRequestKind), ['login', 'get', 'store', 'fragment']);
    for (const request of requests) assert.notEqual(schedule.fault(request).kind, 'pass');
  });
});
