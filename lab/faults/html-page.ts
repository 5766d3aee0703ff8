import type { Fault } from './fault-proxy.ts';

/** An answer as gateways and firewalls write it. */
export function htmlPage(status: number): Fault {
  const body = `<html><head><title>${status}</title></head><body>This page is of the gateway.</body></html>`;
  return { kind: 'answer', status, headers: { 'content-type': 'text/html' }, body };
}
