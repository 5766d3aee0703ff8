import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'node:test';
import { formatHardwareString, type Fact, type HardwareFacts } from '../../../src/hardware/hardware-facts.ts';
import { HardwareFingerprint } from '../../../src/hardware/hardware-fingerprint.ts';
import type { HardwareReading } from '../../../src/hardware/read-hardware.ts';
import { makeLogger } from '../../support/task-lab.ts';

const GIB = 1024 ** 3;
const FACTS: HardwareFacts = {
  cpu: { ids: ['0x41:0xd42'], models: ['Cortex-A78AE'] },
  gpu: { ids: ['0x10de:0x2204'], models: ['GA102 [GeForce RTX 3090]'] },
  memoryBytes: 31.4 * GIB,
  driveSerials: ['S4X7NF0M'],
};
const STRING = formatHardwareString(FACTS);

/** What is kept on disk. */
let keptFacts: HardwareFacts | undefined;
let writes: number;
let reads: number;
let logLines: string[];
/** What is read of the machine. */
let read: () => Promise<HardwareReading>;

beforeEach(() => {
  keptFacts = undefined;
  writes = 0;
  reads = 0;
  read = () => Promise.resolve(readingOf(FACTS));
});

function readingOf(facts: HardwareFacts, untold: ReadonlyMap<Fact, string> = new Map()): HardwareReading {
  return { facts, untold, remarks: [] };
}

/** A fingerprint as after a start. */
function start(hardwareId?: string): HardwareFingerprint {
  const log = makeLogger();
  logLines = log.logLines;
  return new HardwareFingerprint({
    hardwareId,
    kept: {
      read: () => Promise.resolve(keptFacts),
      write: (facts) => {
        writes++;
        keptFacts = facts;
        return Promise.resolve();
      },
    },
    logger: log.logger,
    read: () => {
      reads++;
      return read();
    },
  });
}

describe('the hardware string', () => {
  it('is read for each login until the server has accepted it, and never again', async () => {
    const fingerprint = start();
    assert.equal(reads, 0);
    assert.equal(await fingerprint.hardwareString(), STRING);
    read = () => Promise.resolve(readingOf({ ...FACTS, driveSerials: ['late'] }));
    const late = await fingerprint.hardwareString();
    assert.match(late, /DriveSerial: late$/);
    await fingerprint.accept(late);
    read = () => Promise.reject(new Error('it was read'));
    assert.equal(await fingerprint.hardwareString(), late);
    assert.equal(reads, 2);
  });

  it('is read once for concurrent callers', async () => {
    const { promise, resolve } = Promise.withResolvers<HardwareReading>();
    read = () => promise;
    const fingerprint = start();
    const callers = Promise.all(Array.from({ length: 20 }, () => fingerprint.hardwareString()));
    resolve(readingOf(FACTS));
    assert.equal(new Set(await callers).size, 1);
    assert.equal(reads, 1);
  });

  it('is read again after a failure, of which all who waited are told', async () => {
    const fault = new Error('no sysfs');
    read = () => Promise.reject(fault);
    const fingerprint = start();
    const results = await Promise.allSettled([fingerprint.hardwareString(), fingerprint.hardwareString()]);
    for (const result of results) assert.ok(result.status === 'rejected' && result.reason === fault);
    assert.equal(reads, 1);
    read = () => Promise.resolve(readingOf(FACTS));
    assert.equal(await fingerprint.hardwareString(), STRING);
  });

  it('is replaced as a whole by HARDWARE_ID, and nothing is read or kept then', async () => {
    const fingerprint = start('device 7');
    assert.equal(await fingerprint.hardwareString(), 'device 7');
    await fingerprint.accept('device 7');
    assert.deepEqual([reads, writes], [0, 0]);
  });

  it('is not made when a name is missing, and the error says which', async () => {
    read = () => Promise.resolve(readingOf({ ...FACTS, gpu: { ...FACTS.gpu, models: [] } }, new Map([['GPU', 'why']])));
    await assert.rejects(start().hardwareString(), { code: 'hardware_unreadable', message: / GPU: why\. Or set / });
  });

  it('comes with what a person should know', async () => {
    read = () => Promise.resolve({ ...readingOf(FACTS), remarks: ['The name is another.'] });
    await start().hardwareString();
    assert.match(logLines.join(), /"level":"warn",.*"msg":"The name is another\."/);
  });
});

describe('the string that the server accepted', () => {
  it('is kept once, and only when it was accepted', async () => {
    const fingerprint = start();
    const hardware = await fingerprint.hardwareString();
    assert.equal(writes, 0);
    await fingerprint.accept('another string');
    assert.equal(writes, 0);
    await start().hardwareString();
    assert.equal(keptFacts, undefined);
    const later = start();
    await later.hardwareString();
    await Promise.all([later.accept(hardware), later.accept(hardware)]);
    assert.deepEqual([keptFacts, writes], [FACTS, 1]);
  });

  it('is used on when only what may change by itself has changed, stays kept, and the log says what changed', async () => {
    keptFacts = FACTS;
    const changed = { ...FACTS, memoryBytes: 31.6 * GIB, driveSerials: ['new', 'S4X7NF0M'] };
    read = () => Promise.resolve(readingOf(changed));
    const fingerprint = start();
    assert.equal(await fingerprint.hardwareString(), STRING);
    assert.match(logLines.join(), /"level":"warn".*"changed":\["Memory","DriveSerial"\].*accepted last is used/);
    await fingerprint.accept(STRING);
    assert.deepEqual([keptFacts, writes], [FACTS, 0]);
  });

  it('is used on when a program that names the same devices is missing, and the log says which', async () => {
    keptFacts = FACTS;
    const untold = new Map([['GPU', 'lspci is not installed'] as const]);
    read = () => Promise.resolve(readingOf({ ...FACTS, gpu: { ...FACTS.gpu, models: [] } }, untold));
    assert.equal(await start().hardwareString(), STRING);
    assert.match(logLines.join(), /"changed":\["GPU"\],"reasons":\["lspci is not installed"\]/);
  });

  it('gives way to the new one when the hardware has changed, which is told without its serials', async () => {
    keptFacts = FACTS;
    const changed = { ...FACTS, memoryBytes: 31.6 * GIB, driveSerials: ['OTHER-DISK'] };
    read = () => Promise.resolve(readingOf(changed));
    const fingerprint = start();
    const hardware = await fingerprint.hardwareString();
    assert.equal(hardware, formatHardwareString(changed));
    assert.match(logLines.join(), /"level":"warn".*"changed":\["DriveSerial"\].*The hardware has changed/);
    assert.doesNotMatch(logLines.join(), /OTHER-DISK|S4X7NF0M/);
    assert.deepEqual(keptFacts, FACTS);
    await fingerprint.accept(hardware);
    assert.deepEqual(keptFacts, changed);
  });

  it('is the same, with the facts of now, when nothing of it has changed', async () => {
    keptFacts = FACTS;
    const now = { ...FACTS, memoryBytes: 31.2 * GIB, driveSerials: ['S4X7NF0M', 'second'] };
    read = () => Promise.resolve(readingOf(now));
    const fingerprint = start();
    assert.equal(await fingerprint.hardwareString(), STRING);
    await fingerprint.accept(STRING);
    assert.deepEqual([keptFacts, logLines], [now, []]);
    const next = start();
    await next.accept(await next.hardwareString());
    assert.equal(writes, 1);
  });
});
