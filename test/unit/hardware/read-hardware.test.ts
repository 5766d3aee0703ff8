import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { describe, it } from 'node:test';
import { MACHINE } from '../../../src/hardware/read-hardware.ts';
import { readHardware } from '../../../src/hardware/read-hardware.ts';
import { Board } from '../../support/board.ts';

describe('reading the hardware', () => {
  it('tells CPU and memory of this machine, twice the same', async () => {
    await using board = await Board.open('jetson-agx-orin');
    const sources = { ...MACHINE, sysRoot: board.sysRoot };
    const { facts } = await readHardware(sources);
    assert.equal(
      facts.memoryBytes,
      Number(/^MemTotal:\s+(\d+)/.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1]) * 1024,
    );
    assert.deepEqual((await readHardware(sources)).facts, facts);
  });

  it('names each fact that could not be read, and what to do', async () => {
    await using board = await Board.open('container-without-sysfs');
    await rm(path.join(board.procRoot, 'cpuinfo'));
    board.memoryBytes = 0;
    await assert.rejects(readHardware(board.sources), {
      code: 'hardware_unreadable',
      message: new RegExp(
        '^The hardware of this machine could not be read\\. CPU: the system refused it; .*' +
          'GPU: .*mount a sysfs.* Memory: .*MemTotal.* DriveSerial: .*mount a sysfs.* ' +
          'Or set HARDWARE_ID to a string that stays the same\\.$',
      ),
    });
  });
});
