import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { LoadReply, type LayerProgress } from '../../../src/docker/load-reply.ts';

interface Heard {
  readonly progress: readonly LayerProgress[];
  readonly error: string | undefined;
}

/** What is heard of a reply that comes in these pieces. */
function hear(pieces: readonly Uint8Array[]): Heard {
  const reply = new LoadReply();
  const progress = pieces.flatMap((piece) => reply.take(piece));
  return { progress: [...progress, ...reply.end()], error: reply.error };
}

function hearText(text: string): Heard {
  return hear([Buffer.from(text)]);
}

function split(bytes: Buffer, length: number): Buffer[] {
  const pieces: Buffer[] = [];
  for (let start = 0; start < bytes.length; start += length) pieces.push(bytes.subarray(start, start + length));
  return pieces;
}

/** As Docker replies with `quiet=0`, with a tag that no engine would have. */
const GOOD = Buffer.from(
  [
    '{"status":"Loading layer","progressDetail":{"current":32768,"total":1000000},"progress":"[=>  ]","id":"a1b2c3d4e5f6"}',
    '{"status":"Loading layer","progressDetail":{"current":1000000,"total":1000000},"id":"a1b2c3d4e5f6"}',
    '{"status":"Loading layer","progressDetail":{"current":512,"total":512},"id":"f6e5d4c3b2a1"}',
    '',
    '{"stream":"Loaded image: azaion/検出器:1.2.3\\n"}',
    '',
  ].join('\r\n'),
);
const GOOD_HEARD: Heard = {
  progress: [
    { layerId: 'a1b2c3d4e5f6', current: 32768 },
    { layerId: 'a1b2c3d4e5f6', current: 1_000_000 },
    { layerId: 'f6e5d4c3b2a1', current: 512 },
  ],
  error: undefined,
};
const BAD = Buffer.from('{"status":"x"}\n{"errorDetail":{"message":"plein — 検"},"error":"full"}\n{"stream":"more"}\n');

describe('the reply to a load', () => {
  it('tells how far each layer is', () => assert.deepEqual(hear([GOOD]), GOOD_HEARD));

  it('is the same wherever it is split in two', () => {
    for (let at = 0; at <= GOOD.length; at++) {
      assert.deepEqual(hear([GOOD.subarray(0, at), GOOD.subarray(at)]), GOOD_HEARD, `at ${at}`);
    }
    for (let at = 0; at <= BAD.length; at++) {
      assert.equal(hear([BAD.subarray(0, at), BAD.subarray(at)]).error, 'plein — 検', `at ${at}`);
    }
  });

  for (const length of [1, 2, 3, 7, 64]) {
    it(`is the same in pieces of ${length} bytes`, () => {
      assert.deepEqual(hear(split(GOOD, length)), GOOD_HEARD);
      assert.equal(hear(split(BAD, length)).error, 'plein — 検');
    });
  }

  it('tells of a layer as soon as its line is there', () => {
    const reply = new LoadReply();
    assert.deepEqual(reply.take(Buffer.from('{"id":"a","progressDetail":{"current":1}}')), []);
    assert.deepEqual(reply.take(Buffer.from('\n')), [{ layerId: 'a', current: 1 }]);
  });

  it('may lack its last line break', () => {
    assert.deepEqual(hearText('{"id":"a","progressDetail":{"current":5}}').progress, [{ layerId: 'a', current: 5 }]);
    assert.equal(hearText('{"error":"no"}').error, 'no');
  });

  for (const line of [
    '{}',
    '{"id":"a"}',
    '{"id":5,"progressDetail":{"current":1}}',
    '{"progressDetail":{"current":1}}',
    '{"id":"a","progressDetail":{}}',
    '{"id":"a","progressDetail":null}',
    '{"id":"a","progressDetail":{"current":"1"}}',
    '{"id":"a","progressDetail":5}',
    '{"status":"Loading layer"}',
    '{"stream":"Loaded image ID: sha256:abc\\n"}',
    '{"error":null,"errorDetail":null}',
  ]) {
    it(`may say what tells nothing: ${line}`, () => {
      assert.deepEqual(hearText(`${line}\n`), { progress: [], error: undefined });
    });
  }
});

describe('the error in a reply', () => {
  for (const [line, words] of [
    ['{"errorDetail":{"message":"no space left on device"},"error":"no space"}', 'no space left on device'],
    ['{"errorDetail":{"code":1,"message":"a"}}', 'a'],
    ['{"error":"b"}', 'b'],
    ['{"errorDetail":{},"error":"c"}', 'c'],
    ['{"errorDetail":{"message":5},"error":"d"}', 'd'],
    ['{"errorDetail":{}}', 'no reason given'],
    ['{"errorDetail":{"message":null},"error":5}', 'no reason given'],
    ['{"errorDetail":"text","error":"e"}', 'e'],
    ['{"error":"f","id":"a","progressDetail":{"current":1}}', 'f'],
  ] as const) {
    it(`is in the engine's words: ${line}`, () => {
      assert.deepEqual(hearText(`${line}\n`), { progress: [], error: words });
    });
  }

  it('is the first of several, and what follows is read all the same', () => {
    const heard = hearText('{"error":"first"}\n{"error":"second"}\n{"id":"a","progressDetail":{"current":1}}\n');
    assert.deepEqual(heard, { progress: [{ layerId: 'a', current: 1 }], error: 'first' });
  });

  it('is there before the reply has ended', () => {
    const reply = new LoadReply();
    reply.take(Buffer.from('{"error":"now"}\n{"half'));
    assert.equal(reply.error, 'now');
    assert.throws(() => reply.end(), /is cut/);
  });
});

describe('what is no reply of an engine', () => {
  for (const text of [
    'garbage',
    '<html>',
    '5',
    '"text"',
    'null',
    'true',
    '{"a":1}{"b":2}',
    '{"a":1',
    "{'a':1}",
    '\0',
  ]) {
    it(`is refused, with and without a line break: ${JSON.stringify(text)}`, () => {
      for (const end of ['', '\n', '\n{}\n']) {
        assert.throws(() => hearText(text + end), /no JSON object, or is cut/);
        assert.throws(() => hearText(`{}\n${text}${end}`), /no JSON object, or is cut/);
      }
    });
  }

  it('is a reply that is cut within a line', () => {
    const line = '{"stream":"Loaded image: azaion/api:1"}';
    for (let length = 1; length < line.length; length++) {
      assert.throws(() => hearText(`{}\n${line.slice(0, length)}`), /is cut/, `${length} bytes`);
    }
  });

  it('is an empty one, which may have line breaks', () => {
    for (const pieces of [[], [Buffer.alloc(0)], [Buffer.from('\n\r\n  \n')]]) {
      assert.throws(() => hear(pieces), /the reply is empty/);
    }
  });

  it('is one with a line that does not end, of which no more is kept', () => {
    const reply = new LoadReply();
    const piece = Buffer.alloc(1024, 'x');
    let taken = 0;
    assert.throws(() => {
      for (; taken < 1000; taken++) reply.take(piece);
    }, /a line without an end/);
    assert.equal(taken, 64);
  });

  it('is none with a line of 64 KiB', () => {
    const line = JSON.stringify({ stream: 'x'.repeat(64 * 1024 - 13) });
    assert.equal(line.length, 64 * 1024);
    assert.deepEqual(hear(split(Buffer.from(`${line}\n`), 1000)), { progress: [], error: undefined });
  });
});
