import assert from 'node:assert/strict';
import type { LookupAddress } from 'node:dns';
import { once } from 'node:events';
import { connect, createServer, Socket, type AddressInfo, type Server } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { NEVER } from '../../../src/async/abort.ts';
import { systemErrorCode } from '../../../src/errors.ts';
import { raceConnect } from '../../../src/net/race-connect.ts';

const V6: LookupAddress = { address: '2001:db8::1', family: 6 };
const V4: LookupAddress = { address: '192.0.2.1', family: 4 };

let server: Server;
let port: number;

before(async () => {
  server = createServer((socket) => socket.on('error', () => undefined));
  await once(server.listen(0, '127.0.0.1'), 'listening');
  ({ port } = server.address() as AddressInfo);
});

after(() => server.close());

type Behaviour = 'connects' | 'has no route' | 'is refused' | 'is silent' | { readonly connectsAfterMs: number };

/** A host whose addresses behave like this, and the order in which they were tried. */
function host(behaviours: readonly (readonly [LookupAddress, Behaviour])[]) {
  const tried: string[] = [];
  const sockets: Socket[] = [];
  const parts = {
    lookup: () => Promise.resolve(behaviours.map(([address]) => address)),
    connect: ({ address }: LookupAddress) => {
      tried.push(address);
      const behaviour = behaviours.find(([known]) => known.address === address)?.[1] ?? 'is silent';
      const socket = behave(behaviour);
      sockets.push(socket);
      return socket;
    },
  };
  return { tried, sockets, parts };
}

function behave(behaviour: Behaviour): Socket {
  if (behaviour === 'connects') return connect(port, '127.0.0.1');
  const socket = new Socket();
  if (behaviour === 'is silent') return socket;
  if (typeof behaviour === 'object') {
    setTimeout(() => socket.connect(port, '127.0.0.1'), behaviour.connectsAfterMs);
    return socket;
  }
  const code = behaviour === 'is refused' ? 'ECONNREFUSED' : 'ENETUNREACH';
  process.nextTick(() => socket.destroy(Object.assign(new Error(code), { code })));
  return socket;
}

describe('a connection to a host of several addresses', () => {
  it('takes the second address when the first has no route', async () => {
    const { parts, tried } = host([
      [V6, 'has no route'],
      [V4, 'connects'],
    ]);
    const socket = await raceConnect('cdn.example.com', port, NEVER, parts);
    assert.ok(socket.remotePort === port && !socket.destroyed);
    assert.deepEqual(tried, [V6.address, V4.address]);
    socket.destroy();
  });

  it('is not cut short on a slow link because another address has no route', { timeout: 10_000 }, async () => {
    const { parts } = host([
      [V4, { connectsAfterMs: 600 }],
      [V6, 'has no route'],
    ]);
    const socket = await raceConnect('cdn.example.com', port, NEVER, parts);
    assert.equal(socket.remotePort, port);
    socket.destroy();
  });

  it('does not wait for an address that is silent, and lets go of it', { timeout: 10_000 }, async () => {
    const { parts, sockets } = host([
      [V6, 'is silent'],
      [V4, 'connects'],
    ]);
    const socket = await raceConnect('cdn.example.com', port, NEVER, parts);
    assert.equal(socket, sockets[1]);
    assert.ok(sockets[0]?.destroyed);
    socket.destroy();
  });

  it('tries the families in turn', async () => {
    const other6 = { address: '2001:db8::2', family: 6 };
    const { parts, tried } = host([
      [V6, 'has no route'],
      [other6, 'has no route'],
      [V4, 'is refused'],
    ]);
    const failed = raceConnect('cdn.example.com', port, NEVER, parts);
    await assert.rejects(failed, (error) => systemErrorCode(error) === 'ECONNREFUSED');
    assert.deepEqual(tried, [V6.address, V4.address, other6.address]);
  });

  it('fails with the code of the only address, and where there is no address', async () => {
    const { parts } = host([[V4, 'has no route']]);
    await assert.rejects(raceConnect('cdn.example.com', port, NEVER, parts), { code: 'ENETUNREACH' });
    await assert.rejects(raceConnect('cdn.example.com', port, NEVER, host([]).parts), { code: 'ENOTFOUND' });
  });

  it('ends with its signal, and lets go of all addresses', async () => {
    const { parts, sockets } = host([[V4, 'is silent']]);
    const abort = new AbortController();
    const reason = new Error('enough');
    const connecting = raceConnect('cdn.example.com', port, abort.signal, parts);
    setImmediate(() => abort.abort(reason));
    await assert.rejects(connecting, reason);
    assert.ok(sockets[0]?.destroyed);
    const never = { ...parts, lookup: () => new Promise<never>(() => undefined) };
    await assert.rejects(raceConnect('cdn.example.com', port, AbortSignal.abort(reason), never), reason);
  });

  it('asks nobody for an address', async () => {
    const socket = await raceConnect('127.0.0.1', port, NEVER);
    assert.equal(socket.remotePort, port);
    socket.destroy();
  });
});
