import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { Device } from '../../support/device.ts';
import { BOUNDARY, FORM_END, formHead, partHead, RawConnection } from '../../../lab/faults/raw-http.ts';
import { S3_SKIP } from '../../../lab/test-environment.ts';
import { digestBody, sha256 } from '../../../lab/sha256.ts';
import { eventually } from '../../../lab/waiting.ts';
import type { JsonAnswer } from '../../../lab/json-answer.ts';

interface Item {
  readonly type: string;
  readonly loc: readonly string[];
  readonly msg: string;
}

describe('a request', { skip: S3_SKIP }, () => {
  let device: Device;
  before(async () => {
    device = await Device.start();
    await device.login();
  });
  after(() => device.stop());

  function items(answer: JsonAnswer): readonly Item[] {
    assert.deepEqual([answer.status, answer.body.code], [422, 'validation_failed']);
    return answer.body.detail as readonly Item[];
  }

  async function sendForm(body: string | Uint8Array<ArrayBuffer>, name = 'm'): Promise<JsonAnswer> {
    const response = await fetch(`${device.loader.url}/upload/${name}`, {
      method: 'POST',
      headers: { 'content-type': `multipart/form-data; boundary=${BOUNDARY}` },
      body,
    });
    return await device.loader.readJson(response);
  }

  const badNames = [
    '..',
    '.',
    'a/b',
    '../../etc/passwd',
    'a\\b',
    'a"b',
    'nul\0byte',
    'line\nbreak',
    'x'.repeat(300),
    '',
    'ü'.repeat(125),
  ];
  for (const name of badNames) {
    it(`for a file named ${JSON.stringify(name).slice(0, 20)} is refused with 422`, async () => {
      const [item] = items(await device.loader.postForJson('/load/x', { filename: name, folder: 'models' }));
      assert.deepEqual([item?.type, item?.loc], ['value_error', ['body', 'filename']]);
      // As it stands in the path, where the body names none.
      if (name === '' || name === '.' || name === '..') return;
      const fromPath = await device.loader.postForJson(`/load/${encodeURIComponent(name)}`, { folder: 'models' });
      assert.deepEqual(items(fromPath)[0]?.loc, ['path', 'filename']);
      const upload = await device.loader.upload(name, randomBytes(10));
      assert.deepEqual(items(upload)[0]?.loc, ['path', 'filename']);
    });
  }

  const badFolders = [
    '..',
    'a/../b',
    '/absolute',
    'a//b',
    'a/',
    'a\\b',
    'a\0b',
    'x'.repeat(300),
    '',
    '1/2/3/4/5/6/7/8/9',
    'get',
    'GET/models',
    // With the file name m, the key of the big part has 1,025 bytes.
    Array<string>(4).fill('x'.repeat(254)).join('/'),
  ];
  for (const folder of badFolders) {
    it(`for a folder named ${JSON.stringify(folder).slice(0, 20)} is refused with 422`, async () => {
      const [item] = items(await device.loader.postForJson('/load/m', { filename: 'm', folder }));
      assert.deepEqual([item?.type, item?.loc], ['value_error', ['body', 'folder']]);
      const upload = await device.loader.upload('m', randomBytes(10), folder);
      assert.deepEqual(items(upload)[0]?.loc, ['body', 'folder']);
    });
  }

  const goodNames = [
    'plain.onnx',
    'a%22b.onnx',
    'with space & + % #?.bin',
    'модель-数据-🛰',
    '..hidden',
    'a'.repeat(249),
    '%2e%2e',
  ];
  for (const name of goodNames) {
    it(`for a file named ${name.slice(0, 20)} goes up and comes back`, async () => {
      const content = randomBytes(20_000);
      const folder = `folder/${name}`;
      assert.equal((await device.loader.upload(name, content, folder)).status, 200);
      assert.equal((await digestBody(await device.loader.load(name, folder))).sha256, sha256(content));
      await device.clearCache();
      const response = await device.loader.post(`/load/${encodeURIComponent(name)}`, { folder });
      assert.equal((await digestBody(response)).sha256, sha256(content));
    });
  }

  it("goes by the body's filename, not the path's", async () => {
    await device.upload('real', new Uint8Array([1, 2, 3]));
    const response = await device.loader.post('/load/other', { filename: 'real', folder: 'models' });
    assert.equal((await digestBody(response)).length, 3);
  });

  it('without a field is refused with 422 that names each', async () => {
    const faults = items(await device.loader.postForJson('/login', {}));
    assert.deepEqual(
      faults.map((item) => [item.type, item.loc, item.msg]),
      [
        ['missing', ['body', 'email'], 'Field required'],
        ['missing', ['body', 'password'], 'Field required'],
      ],
    );
    assert.deepEqual(items(await device.loader.postForJson('/load/m', { filename: 'm' }))[0]?.loc, ['body', 'folder']);
  });

  it('with a wrong type is refused with 422, without echoing what was sent', async () => {
    const answer = await device.loader.postForJson('/login', { email: 'a@b.c', password: 987654321 });
    const [item] = items(answer);
    assert.deepEqual([item?.type, item?.loc], ['string_type', ['body', 'password']]);
    assert.ok(!JSON.stringify(answer.body).includes('987654321'));
    assert.equal(items(await device.loader.postForJson('/login', '[1]'))[0]?.type, 'model_attributes_type');
    assert.equal(items(await device.loader.postForJson('/load/m', { filename: 7, folder: null })).length, 2);
  });

  it('with JSON that is none is refused with 422', async () => {
    const answer = await device.loader.postForJson('/login', '{"password": "hunter2-not-closed');
    assert.equal(items(answer)[0]?.type, 'json_invalid');
    assert.ok(!JSON.stringify(answer.body).includes('hunter2'));
    assert.ok(!device.loader.log().includes('hunter2'));
    assert.equal(items(await device.loader.postForJson('/login', ''))[0]?.type, 'missing');
    assert.equal(items(await device.loader.postForJson('/login', '{"__proto__": {"a": 1}}'))[0]?.type, 'json_invalid');
  });

  it('that is no JSON at all is refused with 422', async () => {
    const answer = await device.loader.postForJson('/login', 'email=a', {
      'content-type': 'application/x-www-form-urlencoded',
    });
    assert.equal(items(answer)[0]?.type, 'model_attributes_type');
  });

  it('of 10 MB of JSON is refused with 413', async () => {
    const answer = await device.loader.postForJson('/login', { email: 'x'.repeat(10_000_000), password: '' });
    assert.deepEqual([answer.status, answer.body.code], [413, 'body_too_large']);
  });

  it('of endless JSON is refused with 413 and cut off', async () => {
    const connection = await RawConnection.open(device.loader.port);
    await connection.send(
      'POST /login HTTP/1.1\r\nHost: loader\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n',
    );
    const chunk = `10000\r\n${'x'.repeat(0x10000)}\r\n`;
    for (let sent = 0; sent < 100 && !connection.isClosed && connection.receivedLength === 0; sent++)
      await connection.send(chunk);
    assert.deepEqual((await connection.answer()).status, 413);
    connection.close();
  });

  it('with a flood of headers is refused with 431', async () => {
    const connection = await RawConnection.open(device.loader.port);
    await connection.send(`GET /health HTTP/1.1\r\nHost: loader\r\n${'X-Flood: 1234567890\r\n'.repeat(2000)}\r\n`);
    const answer = await connection.answer();
    assert.deepEqual([answer.status, answer.body.code], [431, 'headers_too_large']);
    connection.close();
  });

  it('that is no HTTP is refused with 400', async () => {
    const connection = await RawConnection.open(device.loader.port);
    await connection.send('MODEL PLEASE\r\n\r\n');
    const answer = await connection.answer();
    assert.deepEqual([answer.status, answer.body.code], [400, 'malformed_request']);
    connection.close();
  });

  it('for an unknown path is answered with 404', async () => {
    const answer = await device.loader.readJson(await fetch(`${device.loader.url}/nothing/here`));
    assert.equal(answer.status, 404);
    assert.deepEqual(answer.body, { detail: 'Not Found', code: 'not_found' });
  });

  it('with a wrong method is answered with 405', async () => {
    for (const [method, route, allow] of [
      ['GET', '/login', 'POST'],
      ['DELETE', '/load/m', 'POST'],
      ['POST', '/health', 'GET, HEAD'],
      ['PUT', '/upload/m', 'POST'],
    ] as const) {
      const answer = await device.loader.readJson(await fetch(`${device.loader.url}${route}`, { method }));
      assert.equal(answer.status, 405, `${method} ${route}`);
      assert.deepEqual(answer.body, { detail: 'Method Not Allowed', code: 'method_not_allowed' });
      assert.equal(answer.headers.get('allow'), allow);
    }
  });

  it('with a path that is not valid percent-encoding is refused', async () => {
    const connection = await RawConnection.open(device.loader.port);
    await connection.send('POST /load/%ZZ HTTP/1.1\r\nHost: loader\r\nContent-Length: 0\r\n\r\n');
    assert.equal((await connection.answer()).status, 422);
    connection.close();
  });

  it('to upload without data is refused with 422', async () => {
    const answer = await sendForm(`${partHead('folder')}models${FORM_END}`);
    assert.deepEqual(items(answer)[0], { type: 'missing', loc: ['body', 'data'], msg: 'Field required' });
    const otherName = await sendForm(`${partHead('file', 'm')}abc${FORM_END}`);
    assert.deepEqual(items(otherName)[0]?.loc, ['body', 'data']);
  });

  it('to upload what is no multipart is refused with 422', async () => {
    const answer = await device.loader.postForJson('/upload/m', { data: 'x' });
    assert.deepEqual(items(answer)[0]?.loc, ['body', 'data']);
  });

  it('to upload two files is refused with 422, and stores neither', async () => {
    const answer = await sendForm(`${partHead('data', 'a')}one\r\n${partHead('data', 'b')}two${FORM_END}`, 'twofiles');
    assert.match(items(answer)[0]?.msg ?? '', /one file only/);
    await eventually(async () => (await device.pendingUploads()).length === 0);
    const load = await device.loader.readJson(await device.loader.load('twofiles'));
    assert.equal(load.body.code, 'resource_not_in_api');
  });

  it('to upload a multipart that is cut in the middle is refused with 422, and stores nothing', async () => {
    for (const body of [`${partHead('data', 'a')}half of a fi`, partHead('data', 'a').slice(0, 30), `--${BOUNDARY}`]) {
      const answer = await sendForm(body, 'cut');
      assert.equal(answer.status, 422, body);
    }
    await eventually(async () => (await device.pendingUploads()).length === 0);
    assert.equal((await device.loader.readJson(await device.loader.load('cut'))).body.code, 'resource_not_in_api');
  });

  it('to upload that breaks off in the middle stores nothing', async () => {
    const connection = await RawConnection.open(device.loader.port);
    await connection.send(formHead('/upload/broken', 30_000_000) + partHead('data', 'm'));
    // The upload to the CDN begins when its small part is whole.
    await connection.send(randomBytes(100_000));
    await eventually(async () => (await device.pendingUploads()).length === 1);
    connection.close();
    await eventually(async () => (await device.pendingUploads()).length === 0);
    assert.equal((await device.loader.readJson(await device.loader.load('broken'))).body.code, 'resource_not_in_api');
  });

  it('to upload a flood of fields is refused with 422', async () => {
    const answer = await sendForm(`${`${partHead('noise')}x\r\n`.repeat(5000)}${partHead('data', 'm')}abc${FORM_END}`);
    assert.equal(answer.status, 422);
  });

  it('to upload a field that is named as what all objects have is refused with 422', async () => {
    for (const name of ['__proto__', 'constructor', 'toString']) {
      for (const filename of [undefined, 'm']) {
        const answer = await sendForm(`${partHead(name, filename)}x\r\n${partHead('data', 'm')}abc${FORM_END}`);
        assert.match(items(answer)[0]?.msg ?? '', /no field may have a name/, name);
      }
    }
  });

  it('to upload a field of more than 16 KiB is refused with 413', async () => {
    for (const name of ['folder', 'noise']) {
      const answer = await sendForm(
        `${partHead(name)}${'x'.repeat(16 * 1024 + 1)}\r\n${partHead('data', 'm')}abc${FORM_END}`,
      );
      assert.deepEqual([answer.status, answer.body.code], [413, 'body_too_large'], name);
    }
  });

  it('to upload a part whose headers are larger than 16 KiB is refused with 422', async () => {
    const head = partHead('data', 'm').replace('\r\n', `\r\nX-Flood: ${'x'.repeat(17 * 1024)}\r\n`);
    items(await sendForm(`${head}abc${FORM_END}`));
  });

  it('that breaks off within its JSON is a quiet line in the log', async () => {
    const connection = await RawConnection.open(device.loader.port);
    const linesBefore = device.loader.logLines('The client closed the connection').length;
    await connection.send(
      'POST /login HTTP/1.1\r\nHost: loader\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"em',
    );
    await new Promise((resolve) => setTimeout(resolve, 50));
    connection.close();
    await eventually(() => device.loader.logLines('The client closed the connection').length > linesBefore);
    const lines = device.loader.log().split('\n').slice(-5);
    assert.ok(!lines.some((line) => /"level":"(error|fatal)"|internal_error/.test(line)), lines.join('\n'));
  });

  it('that is refused early leaves its connection good for the answer, though the client sends on', async () => {
    const connection = await RawConnection.open(device.loader.port);
    await connection.send(`${formHead('/upload/bad%2Fname', 5_000_000)}${partHead('data', 'm')}`);
    for (let sent = 0; sent < 40; sent++) await connection.send(randomBytes(100_000));
    const answer = await connection.answer();
    assert.deepEqual([answer.status, answer.body.code], [422, 'validation_failed']);
    connection.close();
  });
});

describe('a form', { skip: S3_SKIP }, () => {
  let device: Device;
  before(async () => {
    device = await Device.start();
    await device.login();
  });
  after(() => device.stop());

  it(
    'that is refused at its first part gets its answer, though its client reads only after its last byte',
    { timeout: 15_000 },
    async () => {
      const connection = await RawConnection.open(device.loader.port);
      const length = 20_000_000;
      const head = partHead('wrong-name', 'm');
      await connection.send(formHead('/upload/m', head.length + length + FORM_END.length) + head);
      for (let sent = 0; sent < length; sent += 1_000_000) await connection.send(randomBytes(1_000_000));
      await connection.send(FORM_END);
      const answer = await connection.answer();
      assert.deepEqual([answer.status, answer.body.code], [422, 'validation_failed']);
      connection.close();
    },
  );

  it('whose file holds almost the boundary, at the end of what arrived, is stored exactly', async () => {
    const almost = Buffer.from(`\r\n--${BOUNDARY}`).subarray(0, -1);
    const content = Buffer.concat([randomBytes(1000), almost, Buffer.from('X'), randomBytes(2000)]);
    const head = partHead('data', 'm');
    const connection = await RawConnection.open(device.loader.port);
    await connection.send(formHead('/upload/almost', head.length + content.length + FORM_END.length) + head);
    await connection.send(content.subarray(0, 1000 + almost.length));
    await new Promise((resolve) => setTimeout(resolve, 100));
    await connection.send(content.subarray(1000 + almost.length));
    // The end in two pieces, so that the parser looks behind once more.
    await connection.send(FORM_END.slice(0, 8));
    await new Promise((resolve) => setTimeout(resolve, 100));
    await connection.send(FORM_END.slice(8));
    assert.equal((await connection.answer()).status, 200);
    connection.close();
    assert.equal((await digestBody(await device.loader.load('almost'))).sha256, sha256(content));
  });
});

describe('API keys', { skip: S3_SKIP }, () => {
  it('are wanted by every route but /health, where API_KEY is set', async () => {
    const device = await Device.start({ env: { API_KEY: 'first-key, second-key' } });
    try {
      for (const [method, route] of [
        ['GET', '/status'],
        ['POST', '/login'],
        ['POST', '/load/m'],
        ['POST', '/upload/m'],
      ] as const) {
        const refusals = [{}, { authorization: 'Bearer wrong' }, { authorization: 'Basic first-key' }];
        for (const headers of refusals) {
          const answer = await device.loader.readJson(
            await fetch(`${device.loader.url}${route}?api_key=first-key`, { method, headers }),
          );
          assert.equal(answer.status, 401, route);
          assert.equal(answer.body.code, 'forbidden');
          assert.equal(answer.headers.get('www-authenticate'), 'Bearer');
        }
      }
      assert.equal((await fetch(`${device.loader.url}/health`)).status, 200);
      for (const key of ['first-key', 'second-key']) {
        const answer = await device.loader.postForJson(
          '/login',
          { email: device.email, password: device.password },
          { authorization: `Bearer ${key}` },
        );
        assert.equal(answer.status, 200);
      }
    } finally {
      await device.stop();
    }
  });
});
