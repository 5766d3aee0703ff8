import type { Fault, SeenRequest } from './fault-proxy.ts';
import type { ScheduledFault } from './fault-schedule.ts';
import { htmlPage } from './html-page.ts';

/** What a request asks of the Resource API (docs/protocol.md section 5). */
export type ApiRequestKind = 'login' | 'get' | 'store' | 'fragment' | 'other';

export function apiRequestKind({ method, url }: SeenRequest): ApiRequestKind {
  const { pathname } = new URL(url, 'http://api');
  if (pathname === '/login') return 'login';
  if (pathname.startsWith('/resources/get/')) return 'get';
  if (pathname.startsWith('/resources/')) return 'store';
  return method === 'GET' && pathname === '/binary-split/key-fragment' ? 'fragment' : 'other';
}

/** Sends a client to another address, which must not get the token. */
export function redirect(location: string, status = 307): Fault {
  return { kind: 'answer', status, headers: { location } };
}

const ANY: readonly ApiRequestKind[] = ['login', 'get', 'store', 'fragment'];
const RETRY_AFTER = { 'retry-after': '1' };

/** Faults that pass: the same request, sent again, is answered well. */
export const PASSING_API_FAULTS: Readonly<Record<string, ScheduledFault<ApiRequestKind>>> = {
  '500 once': { meets: ANY, fault: { kind: 'answer', status: 500 } },
  '502 page': { meets: ANY, fault: htmlPage(502) },
  '503 for a second': { meets: ANY, fault: { kind: 'answer', status: 503, headers: RETRY_AFTER }, lastsMs: 1000 },
  '429 with Retry-After': { meets: ANY, fault: { kind: 'answer', status: 429, headers: RETRY_AFTER } },
  '408': { meets: ANY, fault: { kind: 'answer', status: 408 } },
  'closed without an answer': { meets: ANY, fault: { kind: 'refuse' } },
  'answer lost': { meets: ANY, fault: { kind: 'lose-answer' } },
  'closed early': { meets: ['get', 'fragment'], fault: { kind: 'cut', afterBytes: 10 } },
  'reset after some bytes': { meets: ['get', 'fragment'], fault: { kind: 'reset', afterBytes: 10 } },
  'never answered': { meets: ANY, fault: { kind: 'never-answer' } },
};
