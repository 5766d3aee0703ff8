import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { runProgram } from '../../../src/async/run-program.ts';

const BOUNDS = { timeoutMs: 5_000, maxLength: 1_000 };

describe('a program', () => {
  it('is a command line of the shell, and its output is returned', async () => {
    assert.equal(await runProgram('echo one; echo two >&2; echo three', BOUNDS), 'one\nthree\n');
  });

  for (const [kind, commandLine, bounds] of [
    ['absent', 'exec no-such-program-anywhere', BOUNDS],
    ['failed', 'echo half; exit 3', BOUNDS],
    ['failed', 'while :; do echo for ever; done', BOUNDS],
    ['late', 'exec sleep 1000', { ...BOUNDS, timeoutMs: 50 }],
  ] as const) {
    it(`that is ${kind} is an error of that kind: ${commandLine}`, async () => {
      await assert.rejects(runProgram(commandLine, bounds), { name: 'ProgramError', kind });
    });
  }
});
