import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, describe, it } from 'node:test';
import { shippedCommand, shippedFolder } from '../../../lab/shipped-folder.ts';
import { formatEnvelope } from '../../../src/manifest/dsse-envelope.ts';
import vectors from '../../vectors/vectors.json' with { type: 'json' };

const COMMAND = shippedCommand(await shippedFolder());
const { manifests, resource_key: resourceKey } = vectors;

interface Result {
  readonly exitCode: number | null;
  readonly output: string;
  readonly errors: string;
}

describe('loader verify', () => {
  let folder = '';
  const at = (name: string) => path.join(folder, name);
  const known =
    manifests.cases.find(({ plaintext_length: length }) => length === 20_000) ?? assert.fail('no such case');
  const plaintext = Buffer.from(Array.from({ length: known.plaintext_length }, (_, index) => (31 * index + 7) % 256));

  before(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'loader-verify-'));
    const signatures = [known.hmac, known.ed25519, { ...known.ecdsa_p256, sig: known.ecdsa_p256.sig_one_of_many }];
    const manifest = formatEnvelope({
      payload: Buffer.from(known.payload, 'base64'),
      signatures: signatures.map(({ keyid, sig }) => ({ keyid, sig: Buffer.from(sig, 'base64') })),
    });
    await writeFile(at('manifest'), manifest);
    await writeFile(at('model'), plaintext);
    await writeFile(at('resource-key'), `${resourceKey.secret}\n`);
    await writeFile(at('ed25519.pem'), manifests.ed25519_public_key_pem);
    await writeFile(at('ecdsa.pem'), manifests.ecdsa_p256_public_key_pem);
  });
  after(() => rm(folder, { recursive: true, force: true }));

  async function verify(args: readonly string[], input?: Buffer): Promise<Result> {
    const child = spawn(process.execPath, [COMMAND, 'verify', ...args], { cwd: folder });
    child.stdin.on('error', () => undefined).end(input);
    const [output, errors, [exitCode]] = await Promise.all([
      text(child.stdout),
      text(child.stderr),
      once(child, 'exit') as Promise<[number | null]>,
    ]);
    assert.ok(!(output + errors).includes(resourceKey.secret), 'the resource key was printed');
    return { exitCode, output, errors };
  }

  async function assertFails(args: readonly string[], pattern: RegExp, exitCode = 1): Promise<void> {
    const result = await verify(args);
    assert.equal(result.exitCode, exitCode, result.errors);
    assert.match(result.errors, pattern);
    assert.equal(result.output, '');
  }

  it('tells a file that is whole, by each key that signed its manifest', async () => {
    for (const keys of [
      ['--resource-key-file', 'resource-key'],
      ['--public-key', 'ed25519.pem'],
      ['-p', 'ecdsa.pem', '-p', 'ed25519.pem'],
    ]) {
      const { exitCode, output, errors } = await verify(['model', '--manifest', 'manifest', ...keys]);
      assert.equal(exitCode, 0, errors);
      assert.match(output, /^model is models\/detector\.onnx of 2026-11-26T13:00:00\.000Z, revision \d+: 20000 bytes/);
    }
    const piped = await verify(['-', '-m', 'manifest', '-p', 'ed25519.pem'], plaintext);
    assert.equal(piped.exitCode, 0, piped.errors);
  });

  it('tells a file with another byte, and one of another length', async () => {
    const flipped = Buffer.from(plaintext);
    flipped[10_000] = (flipped[10_000] ?? 0) ^ 1;
    await writeFile(at('flipped'), flipped);
    await assertFails(
      ['flipped', '-m', 'manifest', '-p', 'ed25519.pem'],
      /^flipped is not models\/detector\.onnx: a byte/,
    );
    await writeFile(at('cut'), plaintext.subarray(1));
    await assertFails(['cut', '-m', 'manifest', '-p', 'ed25519.pem'], /has 19999 bytes, not 20000/);
  });

  it('believes no manifest that another key has signed, or that is none', async () => {
    await writeFile(at('other-key'), randomBytes(24).toString('hex'));
    await assertFails(
      ['model', '-m', 'manifest', '-k', 'other-key'],
      /^The manifest manifest is signed by none of the known keys\.$/m,
    );
    await assertFails(
      ['model', '-m', 'model', '-p', 'ed25519.pem'],
      /^The manifest model is not one object of JSON\.$/m,
    );
  });

  it('names the file that it can not use', async () => {
    await assertFails(['absent', '-m', 'manifest', '-p', 'ed25519.pem'], /^The file absent can't be read \(ENOENT\)/);
    await assertFails(['model', '-m', 'absent', '-p', 'ed25519.pem'], /^The manifest absent can't be read \(ENOENT\)/);
    await assertFails(['model', '-m', 'manifest', '-p', 'model'], /^model is no public key in PEM/);
    await assertFails(['model', '-m', 'manifest', '-k', 'absent'], /absent can't be read \(ENOENT\)/);
  });

  it('tells wrong usage', async () => {
    for (const [args, pattern] of [
      [['model'], /--manifest is missing/],
      [['-m', 'manifest', '-p', 'ed25519.pem'], /Name one file/],
      [['model', '-m', 'manifest'], /Give --public-key or --resource-key-file/],
      [['model', '-m', 'manifest', '-k', 'resource-key', '-p', 'ed25519.pem'], /not both/],
      [['-', '-m', '-', '-p', 'ed25519.pem'], /Only one of them can be stdin/],
      [['model', '-m', '', '-p', 'ed25519.pem'], /An argument is empty/],
    ] as const) {
      await assertFails(args, pattern, 2);
    }
    const { exitCode, output } = await verify(['--help']);
    assert.deepEqual([exitCode, output.startsWith('Usage:')], [0, true]);
  });
});
