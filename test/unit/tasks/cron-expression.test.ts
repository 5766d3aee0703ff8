import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { CronExpression } from '../../../src/tasks/cron-expression.ts';
import { InputError, type InputFault } from '../../../src/errors.ts';

/** The next `count` times after `from`, in UTC, without what they end with. */
function times(pattern: string, timezone: string, from: string, count: number): (string | null)[] {
  const cron = new CronExpression(pattern, timezone);
  const found: (string | null)[] = [];
  let timeMs: number | null = Date.parse(from);
  while (found.length < count && timeMs !== null) {
    timeMs = cron.next(timeMs);
    found.push(timeMs === null ? null : new Date(timeMs).toISOString().replace(/(:00)?\.000Z$/, ''));
  }
  return found;
}

function faultOf(pattern: string, timezone: string): InputFault | undefined {
  try {
    new CronExpression(pattern, timezone);
  } catch (error) {
    assert.ok(error instanceof InputError);
    assert.equal(error.faults.length, 1);
    return error.faults[0];
  }
  return assert.fail('it is good');
}

describe('a cron pattern', () => {
  it('has its times in its time zone', () => {
    const from = '2026-01-05T00:00:00Z'; // A Monday.
    assert.deepEqual(times('30 3 * * *', 'UTC', from, 2), ['2026-01-05T03:30', '2026-01-06T03:30']);
    assert.deepEqual(times('30 3 * * *', 'Europe/Berlin', from, 2), ['2026-01-05T02:30', '2026-01-06T02:30']);
    assert.deepEqual(times('30 3 * * *', 'Asia/Kathmandu', from, 1), ['2026-01-05T21:45']);
    assert.deepEqual(times('30 3 * * 6-7', 'UTC', from, 3), [
      '2026-01-10T03:30',
      '2026-01-11T03:30',
      '2026-01-17T03:30',
    ]);
    assert.deepEqual(times('0 0 1 */3 *', 'UTC', from, 3), [
      '2026-04-01T00:00',
      '2026-07-01T00:00',
      '2026-10-01T00:00',
    ]);
    assert.deepEqual(times('0 0 29 2 *', 'UTC', from, 2), ['2028-02-29T00:00', '2032-02-29T00:00']);
    assert.deepEqual(times('*/20 9-10 * * MON', 'UTC', from, 7), [
      '2026-01-05T09:00',
      '2026-01-05T09:20',
      '2026-01-05T09:40',
      '2026-01-05T10:00',
      '2026-01-05T10:20',
      '2026-01-05T10:40',
      '2026-01-12T09:00',
    ]);
  });

  it('may have seconds first', () => {
    assert.deepEqual(times('*/20 59 23 * * *', 'UTC', '2026-12-31T23:58:59.999Z', 4), [
      '2026-12-31T23:59',
      '2026-12-31T23:59:20',
      '2026-12-31T23:59:40',
      '2027-01-01T23:59',
    ]);
    assert.deepEqual(times('5 * * * * *', 'UTC', '2026-01-01T00:00:05.000Z', 1), ['2026-01-01T00:01:05']);
  });

  it('has a next time that is later, be it by a millisecond, and on a full second', () => {
    const cron = new CronExpression('* * * * *', 'UTC');
    const minuteMs = Date.parse('2026-01-01T00:01:00Z');
    assert.equal(cron.next(minuteMs - 1), minuteMs);
    assert.equal(cron.next(minuteMs), minuteMs + 60_000);
    assert.equal(cron.next(minuteMs + 1), minuteMs + 60_000);
    assert.equal(cron.next(minuteMs - 1), minuteMs); // It remembers nothing.
  });

  it('has no further time where it has none', () => {
    assert.equal(new CronExpression('0 0 30 2 *', 'UTC').next(Date.now()), null);
    assert.equal(new CronExpression('0 0 31 4,6,9,11 *', 'Europe/Berlin').next(Date.now()), null);
    assert.equal(new CronExpression('* * * * *', 'UTC').next(Date.parse('9999-01-01T00:00:00Z')), null);
  });

  it('is asked for its next time in the twinkling of an eye', () => {
    const start = performance.now();
    for (let index = 0; index < 200; index++) new CronExpression('59 23 29 2 *', 'Europe/Berlin').next(Date.now());
    assert.ok(performance.now() - start < 2_000);
  });

  const COUNT =
    'cron must have five (minutes, hours, days of the month, months, days of the week), or six with seconds before them';
  const STEPS = 'or lists, ranges and steps of these, such as 1,15 or 1-5 or */10';
  for (const [pattern, message] of [
    ['', `${COUNT}, and has one field`],
    [' ', `${COUNT}, and has one field`],
    ['now', `${COUNT}, and has one field`],
    ['@daily', `${COUNT}, and has one field`],
    ['2030-01-01T00:00:00', `${COUNT}, and has one field`],
    ['; DROP TABLE', `${COUNT}, and has 3 fields`],
    ['* * * *', `${COUNT}, and has 4 fields`],
    ['0 0 0 1 1 * 2030', `${COUNT}, and has 7 fields`],
    ['* * * * * * * *', `${COUNT}, and has 8 fields`],
    ['60 * * * *', `the minutes of cron must be *, or 0 to 59, ${STEPS}`],
    ['a * * * *', `the minutes of cron must be *, or 0 to 59, ${STEPS}`],
    ['*/0 * * * *', `the minutes of cron must be *, or 0 to 59, ${STEPS}`],
    ['5-1 * * * *', `the minutes of cron must be *, or 0 to 59, ${STEPS}`],
    ['60 * * * * *', `the seconds of cron must be *, or 0 to 59, ${STEPS}`],
    ['* 24 * * *', `the hours of cron must be *, or 0 to 23, ${STEPS}`],
    ['* * 0 * *', `the days of the month of cron must be *, or 1 to 31 or L, ${STEPS}`],
    ['* * * 13 *', `the months of cron must be *, or 1 to 12 or JAN to DEC, ${STEPS}`],
    ['* * * * 8', `the days of the week of cron must be *, or 0 to 7 or SUN to SAT, ${STEPS}`],
    ['0 * * * * MONDAY', `the days of the week of cron must be *, or 0 to 7 or SUN to SAT, ${STEPS}`],
  ] as const) {
    it(`is none, and what is wrong with it is told: ${JSON.stringify(pattern)}`, () => {
      assert.deepEqual(faultOf(pattern, 'UTC'), { type: 'value_error', path: ['cron'], message });
    });
  }

  for (const timezone of ['', 'Europe/Atlantis', 'Berlin', 'local', '../UTC', 'UTC+1', '+02:00', '-0330']) {
    it(`has no such time zone: ${JSON.stringify(timezone)}`, () => {
      assert.deepEqual(faultOf('nor a pattern', timezone), {
        type: 'value_error',
        path: ['timezone'],
        message: 'timezone must be an IANA time zone, such as UTC or Europe/Berlin',
      });
    });
  }
});

/** Local times of three zones, the last of which moves its clocks by half an hour. */
describe('where clocks go forward', () => {
  for (const [timezone, pattern, from, expected] of [
    // 02:00 becomes 03:00 at 01:00 UTC.
    [
      'Europe/Berlin',
      '30 2 * * *',
      '2026-03-28T00:00:00Z',
      ['2026-03-28T01:30', '2026-03-29T01:00', '2026-03-30T00:30'],
    ],
    ['Europe/Berlin', '0 30 2 * * *', '2026-03-28T12:00:00Z', ['2026-03-29T01:00', '2026-03-30T00:30']],
    ['Europe/Berlin', '30 2 * * 0,6', '2026-03-28T12:00:00Z', ['2026-03-29T01:00', '2026-04-04T00:30']],
    ['Europe/Berlin', '0 3 * * *', '2026-03-28T12:00:00Z', ['2026-03-29T01:00', '2026-03-30T01:00']],
    ['Europe/Berlin', '59 1 * * *', '2026-03-28T12:00:00Z', ['2026-03-29T00:59', '2026-03-29T23:59']],
    ['America/New_York', '30 2 * * *', '2026-03-07T12:00:00Z', ['2026-03-08T07:00', '2026-03-09T06:30']],
    ['Australia/Lord_Howe', '15 2 * * *', '2026-10-02T20:00:00Z', ['2026-10-03T15:30', '2026-10-04T15:15']],
  ] as const) {
    it(`a time that is skipped becomes the first one after the gap: ${pattern} in ${timezone}`, () =>
      assert.deepEqual(times(pattern, timezone, from, expected.length), expected));
  }

  for (const [timezone, pattern, from, expected] of [
    [
      'Europe/Berlin',
      '*/30 * * * *',
      '2026-03-29T00:20:00Z',
      ['2026-03-29T00:30', '2026-03-29T01:00', '2026-03-29T01:30'],
    ],
    [
      'Europe/Berlin',
      '15 * * * *',
      '2026-03-28T23:50:00Z',
      ['2026-03-29T00:15', '2026-03-29T01:15', '2026-03-29T02:15'],
    ],
    [
      'America/New_York',
      '*/30 * * * *',
      '2026-03-08T06:20:00Z',
      ['2026-03-08T06:30', '2026-03-08T07:00', '2026-03-08T07:30'],
    ],
    [
      'Australia/Lord_Howe',
      '*/10 * * * *',
      '2026-10-03T15:15:00Z',
      ['2026-10-03T15:20', '2026-10-03T15:30', '2026-10-03T15:40'],
    ],
  ] as const) {
    it(`steps and wildcards go on: ${pattern} in ${timezone}`, () =>
      assert.deepEqual(times(pattern, timezone, from, expected.length), expected));
  }
});

describe('where clocks go back', () => {
  for (const [timezone, pattern, from, expected] of [
    // 03:00 becomes 02:00 at 01:00 UTC.
    [
      'Europe/Berlin',
      '30 2 * * *',
      '2026-10-24T00:00:00Z',
      ['2026-10-24T00:30', '2026-10-25T00:30', '2026-10-26T01:30'],
    ],
    ['Europe/Berlin', '0 30 2 * * *', '2026-10-24T12:00:00Z', ['2026-10-25T00:30', '2026-10-26T01:30']],
    ['Europe/Berlin', '30 2 * * 0,6', '2026-10-24T12:00:00Z', ['2026-10-25T00:30', '2026-10-31T01:30']],
    ['America/New_York', '30 1 * * *', '2026-10-31T12:00:00Z', ['2026-11-01T05:30', '2026-11-02T06:30']],
    ['Australia/Lord_Howe', '45 1 * * *', '2026-04-03T20:00:00Z', ['2026-04-04T14:45', '2026-04-05T15:15']],
  ] as const) {
    it(`a fixed time that comes twice counts once, the first time: ${pattern} in ${timezone}`, () =>
      assert.deepEqual(times(pattern, timezone, from, expected.length), expected));
  }

  for (const [timezone, pattern, from, expected] of [
    [
      'Europe/Berlin',
      '*/30 * * * *',
      '2026-10-24T23:50:00Z',
      ['2026-10-25T00:00', '2026-10-25T00:30', '2026-10-25T01:00', '2026-10-25T01:30', '2026-10-25T02:00'],
    ],
    [
      'Europe/Berlin',
      '15 * * * *',
      '2026-10-24T23:50:00Z',
      ['2026-10-25T00:15', '2026-10-25T01:15', '2026-10-25T02:15'],
    ],
    [
      'America/New_York',
      '30 * * * *',
      '2026-11-01T05:00:00Z',
      ['2026-11-01T05:30', '2026-11-01T06:30', '2026-11-01T07:30'],
    ],
    [
      'Australia/Lord_Howe',
      '*/20 * * * *',
      '2026-04-04T14:25:00Z',
      ['2026-04-04T14:40', '2026-04-04T15:10', '2026-04-04T15:30'],
    ],
  ] as const) {
    it(`steps and wildcards go on through both: ${pattern} in ${timezone}`, () =>
      assert.deepEqual(times(pattern, timezone, from, expected.length), expected));
  }
});

describe('a list or a range of hours', () => {
  it('is no fixed time: what is skipped is left out, and what comes twice counts twice', () => {
    assert.deepEqual(times('0 2,14 * * *', 'Europe/Berlin', '2026-03-28T18:00:00Z', 2), [
      '2026-03-29T12:00',
      '2026-03-30T00:00',
    ]);
    assert.deepEqual(times('0 2-3 * * *', 'Europe/Berlin', '2026-10-24T18:00:00Z', 3), [
      '2026-10-25T00:00',
      '2026-10-25T01:00',
      '2026-10-25T02:00',
    ]);
  });
});
