import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { dump } from 'js-yaml';
import { parseCdnConfig } from '../../../src/cdn/cdn-config.ts';
import { LoaderError } from '../../../src/errors.ts';

const FIELDS = {
  host: 'https://cdn.example.com',
  downloader_access_key: 'DOWNLOAD-KEY',
  downloader_access_secret: 'hush-download',
  uploader_access_key: 'UPLOAD-KEY',
  uploader_access_secret: 'hush-upload',
  bucket: 'models-bucket',
  region: 'eu-central-1',
  resource_key: 'hush-resource',
} as const;

const REQUIRED = [
  'host',
  'downloader_access_key',
  'downloader_access_secret',
  'uploader_access_key',
  'uploader_access_secret',
] as const;

/** What must be in no text that an error carries. */
const SECRETS = /DOWNLOAD-KEY|UPLOAD-KEY|hush-|0123456789/;

describe('cdn.yaml', () => {
  it('may have 64 KiB, and no more', () => {
    const text = dump(FIELDS);
    const filled = `${text}#${'x'.repeat(64 * 1024 - text.length - 1)}`;
    assert.equal(parseCdnConfig(filled).host, FIELDS.host);
    assert.throws(() => parseCdnConfig(`${filled}x`), { code: 'cdn_config_invalid', message: /64 KiB/ });
  });

  it('is read with all its fields', () => {
    assert.deepEqual(parseCdnConfig(dump(FIELDS)), {
      host: 'https://cdn.example.com',
      region: 'eu-central-1',
      bucket: 'models-bucket',
      downloader: { accessKeyId: 'DOWNLOAD-KEY', secretAccessKey: 'hush-download' },
      uploader: { accessKeyId: 'UPLOAD-KEY', secretAccessKey: 'hush-upload' },
      resourceKey: 'hush-resource',
    });
  });

  it('needs no bucket, region or resource key', () => {
    const config = parseCdnConfig(dump(without('bucket', 'region', 'resource_key')));
    assert.equal(config.region, 'us-east-1');
    assert.equal(config.bucket, undefined);
    assert.equal(config.resourceKey, undefined);
  });

  it('counts an optional field without a value as absent', () => {
    const config = parseCdnConfig(`${dump(without('bucket', 'region'))}\nbucket:\nregion: null\n`);
    assert.equal(config.region, 'us-east-1');
    assert.equal(config.bucket, undefined);
  });

  it('may hold fields that we do not know', () => {
    assert.equal(parseCdnConfig(dump({ ...FIELDS, proxy: { port: 1 } })).bucket, 'models-bucket');
  });

  it('gives a configuration that cannot be changed', () => assert.ok(Object.isFrozen(parseCdnConfig(dump(FIELDS)))));

  for (const name of REQUIRED) {
    it(`is refused without ${name}, which is named`, () => {
      assertRefused(dump(without(name)), new RegExp(`\\b${name} is missing`));
      assertRefused(`${dump(without(name))}\n${name}: null\n`, new RegExp(`\\b${name} is missing`));
    });
  }

  for (const name of Object.keys(FIELDS)) {
    for (const [kind, value] of [
      ['a number', 123456789],
      ['a list', ['hush-list']],
      ['a mapping', { inner: 'hush-inner' }],
      ['a boolean', true],
      ['an empty text', ''],
    ] as const) {
      it(`is refused when ${name} is ${kind}, and asks for quotes`, () => {
        assertRefused(dump({ ...FIELDS, [name]: value }), new RegExp(`\\b${name} must be a non-empty text; quote it`));
      });
    }
  }

  it('is refused for an access key of digits without quotes, which would lose its zeros', () => {
    const text = dump(without('downloader_access_key'));
    assertRefused(`${text}\ndownloader_access_key: 0123456789\n`, /downloader_access_key must be a non-empty text/);
    assert.equal(parseCdnConfig(`${text}\ndownloader_access_key: "0123456789"\n`).downloader.accessKeyId, '0123456789');
  });

  for (const host of [
    'cdn.example.com',
    'ftp://cdn.example.com',
    '//cdn.example.com',
    'https://',
    'file:///hush-path',
  ]) {
    it(`is refused with the host ${host}`, () => {
      assertRefused(dump({ ...FIELDS, host }), /host must be a URL/);
    });
  }

  for (const [kind, text] of [
    ['text that is not YAML', `resource_key: "hush-open\n${dump(FIELDS)}`],
    ['a broken indentation', 'host: x\n  resource_key: hush-1\n resource_key: hush-2: hush-3\n'],
    ['one name twice', `${dump(FIELDS)}\nresource_key: hush-again\n`],
    ['an unknown tag', 'resource_key: !!js/function "hush-function"\n'],
    ['two documents', `${dump(FIELDS)}\n---\n${dump(FIELDS)}`],
    ['a NUL', `resource_key: hush-\0\n`],
  ] as const) {
    it(`is refused for ${kind}`, () => assertRefused(text, /is not YAML/));
  }

  for (const [kind, text] of [
    ['a list', '- hush-item\n'],
    ['a text', 'hush-text'],
    ['a number', '0123456789'],
    ['null', 'null'],
  ] as const) {
    it(`is refused when it is ${kind}`, () => assertRefused(text, /is not a mapping/));
  }

  it('is refused when it is empty', () => {
    assertRefused('', /cdn\.yaml/);
    assertRefused('# nothing but a comment\n', /cdn\.yaml/);
  });

  it('is refused when it is binary rubbish, whatever its bytes', () => {
    for (let seed = 0; seed < 256; seed++) {
      const bytes = Buffer.from(Uint8Array.from({ length: 64 }, (_, index) => (seed + index * 37) % 256));
      assertRefused(bytes.toString('utf8'), /cdn\.yaml/);
    }
  });
});

/** It fails with `cdn_config_invalid`, says what is wrong, and tells no secret in message, stack or any cause. */
function assertRefused(text: string, message: RegExp): void {
  assert.throws(
    () => parseCdnConfig(text),
    (error) => {
      assert.ok(error instanceof LoaderError, `not a LoaderError: ${String(error)}`);
      assert.equal(error.code, 'cdn_config_invalid');
      assert.match(error.message, message);
      for (let current: unknown = error; current instanceof Error; current = current.cause) {
        assert.doesNotMatch(current.message, SECRETS);
        assert.doesNotMatch(current.stack ?? '', SECRETS);
        assert.doesNotMatch(JSON.stringify(current), SECRETS);
      }
      return true;
    },
  );
}

function without(...names: readonly (keyof typeof FIELDS)[]): Record<string, string> {
  return Object.fromEntries(Object.entries(FIELDS).filter(([name]) => !names.some((removed) => removed === name)));
}
