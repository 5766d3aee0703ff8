import { lookup, type LookupAddress } from 'node:dns';
import { connect, isIP, type Socket } from 'node:net';
import { promisify } from 'node:util';
import { onAbort, unlessAborted } from '../async/abort.ts';
import { systemErrorCode } from '../errors.ts';

/** What the tests replace. */
export interface RaceConnectParts {
  readonly lookup: (hostname: string) => Promise<readonly LookupAddress[]>;
  readonly connect: (address: LookupAddress, port: number) => Socket;
}

/** How long one address may be silent before the next one is tried beside it, in ms (RFC 8305 section 5). */
const NEXT_ADDRESS_MS = 250;
/** These say that this machine has no way to the address, and nothing about the host. */
const NO_ROUTE: readonly string[] = ['ENETUNREACH', 'EHOSTUNREACH', 'EADDRNOTAVAIL', 'EAFNOSUPPORT'];

const PARTS: RaceConnectParts = {
  lookup: async (hostname) => await promisify(lookup)(hostname, { all: true }),
  connect: ({ address, family }, port) => connect({ host: address, port, family }),
};

/**
 * Connects to a host of several addresses, as "happy eyeballs" do: the first address that takes the connection wins, and
 * one that is silent holds up no other. It is ours since Node gives up an address after half a second before it tries the
 * next one, so that a slow link with a useless IPv6 address never connects at all.
 *
 * @throws the reason of `signal`; the system's error, that of the most telling address first
 */
export async function raceConnect(
  hostname: string,
  port: number,
  signal: AbortSignal,
  parts: RaceConnectParts = PARTS,
): Promise<Socket> {
  return await race(await unlessAborted(addressesOf(hostname, parts), signal), port, signal, parts);
}

async function addressesOf(hostname: string, parts: RaceConnectParts): Promise<readonly LookupAddress[]> {
  const family = isIP(hostname);
  return family === 0 ? interleaved(await parts.lookup(hostname)) : [{ address: hostname, family }];
}

/** The families in turn, beginning with that of the first address, which the resolver prefers. */
function interleaved(addresses: readonly LookupAddress[]): LookupAddress[] {
  const first = addresses.filter(({ family }) => family === addresses[0]?.family);
  const second = addresses.filter(({ family }) => family !== addresses[0]?.family);
  const length = Math.max(first.length, second.length);
  const pairs = Array.from({ length }, (_, index) => [first[index], second[index]]);
  return pairs.flat().filter((address) => address !== undefined);
}

async function race(
  addresses: readonly LookupAddress[],
  port: number,
  signal: AbortSignal,
  parts: RaceConnectParts,
): Promise<Socket> {
  const { promise, resolve, reject } = Promise.withResolvers<Socket>();
  const waiting = [...addresses];
  const racing = new Set<Socket>();
  const failures: Error[] = [];
  let timer: NodeJS.Timeout | undefined;

  const tryNext = () => {
    clearTimeout(timer);
    const address = waiting.shift();
    if (address === undefined) return;
    const socket = parts.connect(address, port);
    racing.add(socket);
    socket.once('connect', () => resolve(socket));
    socket.on('error', (error) => {
      racing.delete(socket);
      failures.push(error);
      if (racing.size === 0 && waiting.length === 0) reject(mostTelling(failures));
      else tryNext();
    });
    timer = setTimeout(tryNext, NEXT_ADDRESS_MS);
  };

  using _listener = onAbort(signal, reject);
  try {
    if (addresses.length === 0) reject(mostTelling([]));
    tryNext();
    const winner = await promise;
    racing.delete(winner);
    winner.removeAllListeners('error');
    return winner;
  } finally {
    clearTimeout(timer);
    waiting.length = 0;
    for (const loser of racing) loser.destroy();
  }
}

/** All failures as one. The code of the first counts. */
function mostTelling(failures: readonly Error[]): Error {
  const isNoRoute = (error: Error) => NO_ROUTE.includes(systemErrorCode(error) ?? '');
  const [first, ...others] = [...failures].sort((a, b) => Number(isNoRoute(a)) - Number(isNoRoute(b)));
  if (first === undefined) return Object.assign(new Error('no address'), { code: 'ENOTFOUND' });
  return others.length === 0 ? first : new AggregateError([first, ...others], 'no address could be reached');
}
