import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { formatHardwareString, type HardwareFacts } from '../../../src/hardware/hardware-facts.ts';
import { KeptHardware } from '../../../src/hardware/kept-hardware.ts';
import { makeLogger } from '../../support/task-lab.ts';

const FACTS: HardwareFacts = {
  cpu: { ids: ['0x41:0xd42'], models: ['Cortex-A78AE'] },
  gpu: { ids: [], models: [] },
  memoryBytes: 32_174_837_760,
  driveSerials: ['0x2a6dff3c', null],
};

let folder: string;
let stateDir: string;
let file: string;
let logLines: string[];
let kept: KeptHardware;

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-kept-'));
  stateDir = path.join(folder, 'state');
  file = path.join(stateDir, 'hardware.json');
  const log = makeLogger();
  logLines = log.logLines;
  kept = new KeptHardware(stateDir, log.logger);
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

describe('the kept hardware', () => {
  it('is read as it was written, with its string, by its owner alone', async () => {
    await kept.write(FACTS);
    assert.deepEqual(await kept.read(), FACTS);
    const { string } = JSON.parse(await readFile(file, 'utf8')) as { string: string };
    assert.equal(string, formatHardwareString(FACTS));
    assert.equal((await stat(file)).mode & 0o777, 0o600);
    assert.equal((await stat(stateDir)).mode & 0o777, 0o700);
    assert.deepEqual(logLines, []);
  });

  it('is none before it was written, without a word', async () => {
    assert.equal(await kept.read(), undefined);
    assert.deepEqual(logLines, []);
  });

  it('takes the place of the earlier one, and of what a killed Loader left', async () => {
    await kept.write({ ...FACTS, driveSerials: ['earlier'] });
    await writeFile(path.join(stateDir, '.hardware.json.part'), 'half');
    await kept.write(FACTS);
    assert.deepEqual(await kept.read(), FACTS);
    assert.deepEqual(await readdir(stateDir), ['hardware.json']);
  });

  const text = JSON.stringify({ version: 1, string: formatHardwareString(FACTS), facts: FACTS });
  const damaged: Readonly<Record<string, string>> = {
    'is empty': '',
    'is cut': text.slice(0, -20),
    'is of another version': text.replace('"version":1', '"version":2'),
    'has another string than its facts make': text.replace('A78AE. GPU', 'A78AD. GPU'),
    'has other facts than those of its string': text.replace('"0x2a6dff3c"', '"0x2a6dff3d"'),
    'has no name of a CPU': text.replace('["Cortex-A78AE"]', '[]').replace('CPU: Cortex-A78AE', 'CPU: '),
    'has a number for a serial': text.replace(',null]', ',7]'),
    'has a text for the memory': text.replace('32174837760', '"32174837760"'),
    'has a text for the IDs': text.replace('["0x41:0xd42"]', '"0x41:0xd42"'),
    'is longer than any': text + ' '.repeat(70_000),
  };
  for (const [fault, content] of Object.entries(damaged)) {
    it(`that ${fault} is not used, and the log says so`, async () => {
      await mkdir(stateDir);
      await writeFile(file, content);
      assert.equal(await kept.read(), undefined);
      assert.equal(logLines.length, 1);
      assert.match(logLines[0] ?? '', /"level":"warn".*The kept hardware string is not used/);
    });
  }

  it('never gives another string after one bit of it has changed', async () => {
    await kept.write(FACTS);
    const bytes = await readFile(file);
    for (let bit = 0; bit < bytes.length * 8; bit += 7) {
      const flipped = Buffer.from(bytes);
      flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      await writeFile(file, flipped);
      const read = await kept.read();
      if (read !== undefined) assert.equal(formatHardwareString(read), formatHardwareString(FACTS));
    }
  });

  it('that can not be written is a line in the log, and no failure', async () => {
    await writeFile(stateDir, 'a file in place of the folder');
    await kept.write(FACTS);
    assert.match(logLines[0] ?? '', /"level":"warn".*could not be kept in STATE_DIR/);
  });
});
