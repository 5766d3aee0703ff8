import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { PassingError } from '../../src/errors.ts';
import { toLinkError, type Link } from '../../src/link-errors.ts';
import { NetworkFault } from '../../src/net/network-fault.ts';

const LINK: Link = {
  who: 'The CDN',
  setting: 'host in cdn.yaml',
  unreachable: 'cdn_unreachable',
  timeout: 'cdn_timeout',
  invalid: 'cdn_invalid_response',
};

describe('a fault of the network', () => {
  for (const [kind, code, advice] of [
    ['unknown-name', 'cdn_unreachable', /check host in cdn\.yaml, and DNS/],
    ['unreachable', 'cdn_unreachable', /check host in cdn\.yaml/],
    ['late', 'cdn_timeout', /network/],
    ['no-http', 'cdn_invalid_response', /check host in cdn\.yaml/],
    ['certificate-date', 'tls_date_wrong', /set the clock/],
    ['unknown-ca', 'tls_ca_unknown', /UPSTREAM_CA_FILE/],
    ['other-host', 'tls_other_host', /check host in cdn\.yaml/],
    ['no-tls', 'tls_failed', /https:\/\//],
    ['tls-refused', 'tls_failed', /versions of TLS/],
  ] as const) {
    it(`${kind} is ${code}, and names the host and what to do`, () => {
      const fault = new NetworkFault(kind, 'cdn.example.com:443', 'it is so');
      const error = toLinkError(fault, LINK);
      assert.deepEqual([error.code, error.cause], [code, fault]);
      assert.match(error.message, /^The CDN at cdn\.example\.com:443 gave no answer: it is so; .+\.$/);
      assert.match(error.message, advice);
    });
  }

  for (const [kind, code, advice] of [
    ['proxy-unreachable', 'proxy_unreachable', /check HTTP_PROXY and HTTPS_PROXY/],
    ['proxy-refused', 'proxy_refused', /NO_PROXY/],
    ['proxy-password', 'proxy_refused', /user:password@host/],
  ] as const) {
    it(`${kind} is ${code}, and names the proxy and what to do`, () => {
      const error = toLinkError(new NetworkFault(kind, 'proxy:3128', 'it is so'), LINK);
      assert.equal(error.code, code);
      assert.match(error.message, /^The CDN could not be asked through the proxy proxy:3128: it is so; /);
      assert.match(error.message, advice);
    });
  }

  for (const [kinds, passes] of [
    [['unknown-name', 'unreachable', 'late', 'proxy-unreachable'], 'passes by itself'],
    [['no-http', 'no-tls', 'tls-refused', 'proxy-refused'], 'rarely passes by itself'],
    [['certificate-date', 'unknown-ca', 'other-host', 'proxy-password'], 'stays'],
  ] as const) {
    for (const kind of kinds) {
      it(`${kind} ${passes}`, () => {
        const error = toLinkError(new NetworkFault(kind, 'cdn.example.com:443', 'it is so'), LINK);
        const isPassing = error instanceof PassingError;
        assert.equal(isPassing, passes !== 'stays');
        if (isPassing) assert.equal(error.isDoubtful, passes === 'rarely passes by itself');
      });
    }
  }
});
