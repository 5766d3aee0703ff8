import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ConnectTimeoutError, findFault, NetworkFault, toNetworkFault } from '../../../src/net/network-fault.ts';

const HOST = 'api.example.com:443';

function errorOf(code: string | undefined, more: object = {}): Error {
  return Object.assign(new Error('as the library says it'), code === undefined ? {} : { code }, more);
}

describe('the fault of a call that got no answer', () => {
  for (const [code, kind, words] of [
    ['ENOTFOUND', 'unknown-name', 'DNS has no address of it (ENOTFOUND)'],
    ['EAI_AGAIN', 'unknown-name', 'DNS has no address of it (EAI_AGAIN)'],
    ['ECONNREFUSED', 'unreachable', 'nothing listens there (ECONNREFUSED)'],
    ['ENETUNREACH', 'unreachable', 'no route leads there (ENETUNREACH)'],
    ['EHOSTUNREACH', 'unreachable', 'no route leads there (EHOSTUNREACH)'],
    ['EADDRNOTAVAIL', 'unreachable', 'no route leads there (EADDRNOTAVAIL)'],
    ['ECONNRESET', 'unreachable', 'the connection broke (ECONNRESET)'],
    ['UND_ERR_SOCKET', 'unreachable', 'the connection broke (UND_ERR_SOCKET)'],
    [undefined, 'unreachable', 'the connection failed'],
    ['ETIMEDOUT', 'late', 'there was no answer in time (ETIMEDOUT)'],
    ['UND_ERR_HEADERS_TIMEOUT', 'late', 'there was no answer in time (UND_ERR_HEADERS_TIMEOUT)'],
    ['HPE_INVALID_CONSTANT', 'no-http', 'what listens there does not speak HTTP (HPE_INVALID_CONSTANT)'],
    ['SELF_SIGNED_CERT_IN_CHAIN', 'unknown-ca', 'its certificate comes from a CA that is not trusted'],
    ['UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'unknown-ca', 'its certificate comes from a CA that is not trusted'],
    ['ERR_SSL_WRONG_VERSION_NUMBER', 'no-tls', 'what listens there does not speak TLS'],
    ['ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION', 'tls-refused', 'the TLS handshake failed'],
    ['EPROTO', 'tls-refused', 'the TLS handshake failed (EPROTO)'],
    ['INVALID_PURPOSE', 'tls-refused', 'the TLS handshake failed (INVALID_PURPOSE)'],
  ] as const) {
    it(`is ${kind} for ${code ?? 'an error without a code'}, with its host and the error itself`, () => {
      const error = errorOf(code);
      const fault = toNetworkFault(error, HOST);
      assert.deepEqual([fault.kind, fault.host, fault.code, fault.cause], [kind, HOST, code, error]);
      assert.ok(fault.message.startsWith(words), fault.message);
    });
  }

  it('tells whether the certificate is too old or too new, and the time of this device', () => {
    const now = `, or the clock of this device is wrong, which says ${new Date().toISOString().slice(0, 13)}`;
    const expired = toNetworkFault(errorOf('CERT_HAS_EXPIRED'), HOST);
    assert.equal(expired.kind, 'certificate-date');
    assert.ok(expired.message.includes(` has expired${now}`), expired.message);
    const early = toNetworkFault(errorOf('CERT_NOT_YET_VALID'), HOST);
    assert.equal(early.kind, 'certificate-date');
    assert.ok(early.message.includes(` is not valid yet${now}`), early.message);
  });

  it('names the hosts of a certificate, which come from outside, in few printable characters', () => {
    const ofNames = (subjectaltname: unknown) =>
      toNetworkFault(errorOf('ERR_TLS_CERT_ALTNAME_INVALID', { cert: { subjectaltname } }), HOST);
    assert.equal(ofNames('DNS:other.example.com').kind, 'other-host');
    assert.equal(ofNames('DNS:a\u001b[2J').message, 'its certificate is for other hosts (DNS:a?[2J)');
    assert.equal(ofNames('x'.repeat(300)).message, `its certificate is for other hosts (${'x'.repeat(200)})`);
    for (const none of [undefined, 5, '']) assert.equal(ofNames(none).message, 'its certificate is for other hosts');
    assert.equal(toNetworkFault(errorOf('HOSTNAME_MISMATCH', { cert: undefined }), HOST).kind, 'other-host');
  });

  it('is late in the words of the timeout', () => {
    const fault = toNetworkFault(new ConnectTimeoutError('no connection came about within 5000 ms'), HOST);
    assert.deepEqual([fault.kind, fault.message], ['late', 'no connection came about within 5000 ms']);
  });

  it('names the proxy through which the call went', () => {
    const fault = toNetworkFault(errorOf('ECONNRESET'), HOST, 'proxy:3128');
    assert.equal(fault.message, 'the connection broke (ECONNRESET); it went through the proxy proxy:3128');
  });

  it('is the one that is known already, however deep it lies', () => {
    const known = new NetworkFault('proxy-refused', 'proxy:3128', 'the proxy refuses it');
    const wrapped = new Error('outer', { cause: new TypeError('fetch failed', { cause: known }) });
    assert.equal(toNetworkFault(wrapped, HOST), known);
    assert.equal(findFault(errorOf('ECONNRESET')), undefined);
    const circle = new Error('circle');
    circle.cause = circle;
    assert.equal(findFault(circle), undefined);
  });
});
