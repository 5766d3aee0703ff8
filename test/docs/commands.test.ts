import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, globSync } from 'node:fs';
import path from 'node:path';
import { describe, it } from 'node:test';
import { parseOptions } from '../../bench/options.ts';
import { shippedNodeOptions } from '../../lab/shipped-options.ts';
import { parseDoctorArguments } from '../../src/cli/doctor-arguments.ts';
import { parseForgetArguments } from '../../src/cli/forget-arguments.ts';
import { parsePackArguments } from '../../src/cli/pack-arguments.ts';
import { parseVerifyArguments } from '../../src/cli/verify-arguments.ts';
import { VARIABLE_DOCS } from '../../src/config/config-docs.ts';
import { VARIABLE_NAMES } from '../../src/config/config.ts';
import { DOCUMENTS, readProjectFile, ROOT } from './documents.ts';
import { parseShell, type ShellCommand } from './shell-commands.ts';

/** Shell lines that are not run here, but whose parts are checked. Blocks with curl are run: see curl.test.ts. */

const { scripts } = JSON.parse(readProjectFile('package.json')) as {
  readonly scripts: Readonly<Record<string, string>>;
};
const DOCKERFILE = readProjectFile('Dockerfile');

/** By the first word of a command. */
const CHECKS: Readonly<Record<string, (args: ShellCommand) => void>> = {
  npm: checkNpm,
  node: checkNode,
  'node_modules/.bin/node': checkTestFile,
  docker: checkDocker,
};

describe('shell lines', () => {
  for (const document of DOCUMENTS) {
    for (const block of document.blocks('sh')) {
      const title = `of ${document.name} are in order: ${block.split('\n')[0] ?? ''}`;
      it(title, () => {
        execFileSync('bash', ['-n', '-c', block]);
        const commands = parseShell(block);
        assert.notEqual(commands.length, 0);
        if (block.includes('curl ')) return;
        for (const command of commands) check(command);
      });
    }

    const inline = document.inlineCode.filter((code) => /^(?:npm|node|node_modules\/\S+) \S/.test(code));
    for (const code of inline) {
      it(`within the text of ${document.name} are in order: ${code}`, () => {
        for (const command of parseShell(code)) check(command);
      });
    }
  }

  it('with a wrong part are found', () => {
    for (const wrong of [
      'npm run no-such-script',
      'npm run loader -- pack a --no-such-option',
      'npm run bench -- --only z',
      'npm run test:only -- no-such-file',
      'node dist/no-such-file.js',
      'node dist/main.js',
      'node_modules/.bin/node --test test/no-such-file.test.ts',
      'docker run -e NO_SUCH_VARIABLE=1 loader',
      'docker run -v x:/no-such-volume loader',
      'no-such-command',
    ]) {
      assert.throws(() => parseShell(wrong).forEach(check), wrong);
    }
  });
});

function check([name = '', ...args]: ShellCommand): void {
  const checkArgs = CHECKS[name];
  assert.ok(checkArgs, `there is a check for ${name}`);
  checkArgs(args);
}

function checkNpm([command = '', ...rest]: ShellCommand): void {
  if (command === 'ci') {
    assert.deepEqual(
      rest.filter((option) => option !== '--omit=dev'),
      [],
    );
    return;
  }
  const [script = '', separator, ...args] = command === 'run' ? rest : [command, ...rest];
  assert.ok(script in scripts, `package.json has the script ${script}`);
  assert.ok(separator === undefined || separator === '--', 'the options of a script stand behind --');
  checkScriptArguments(script, args);
}

function checkScriptArguments(script: string, args: ShellCommand): void {
  const [first = ''] = args;
  if (args.length === 0) return;
  if (script === 'loader') {
    const parsers = {
      doctor: parseDoctorArguments,
      forget: parseForgetArguments,
      pack: parsePackArguments,
      verify: parseVerifyArguments,
    };
    assert.ok(first in parsers, first);
    parsers[first as keyof typeof parsers](args.slice(1));
  } else if (script === 'bench') {
    parseOptions(args);
  } else if (script === 'demo') {
    assert.deepEqual(args, ['--keep']);
    assert.ok(readProjectFile('demo/demo.ts').includes('options: { keep:'));
  } else if (script === 'test:only') {
    const files = globSync('test/**/*.test.ts', { cwd: ROOT });
    for (const word of args)
      assert.ok(
        files.some((file) => file.includes(word)),
        `a test file has ${word} in its path`,
      );
  } else {
    assert.fail(`there is a check for the options of ${script}`);
  }
}

/** The Loader starts with the options of the image; `--help` and other programs need none. */
function checkNode(args: ShellCommand): void {
  const at = args.findIndex((arg) => !arg.startsWith('-'));
  const [script = '', ...rest] = args.slice(at);
  assertIsBuilt(script);
  const isStart = script === 'dist/main.js' && rest.length === 0;
  assert.deepEqual(args.slice(0, at), isStart ? shippedNodeOptions() : []);
}

/** `dist/x.js` is what `npm run build` makes of `src/x.ts`. */
function assertIsBuilt(script: string): void {
  assert.match(script, /^dist\/.+\.js$/);
  const source = script.replace(/^dist\//, 'src/').replace(/\.js$/, '.ts');
  assert.ok(existsSync(path.join(ROOT, source)), source);
}

function checkTestFile(args: ShellCommand): void {
  assert.ok(args.includes('--test'));
  const file = args.at(-1) ?? '';
  assert.match(file, /\.test\.ts$/);
  const text = readProjectFile(file);
  const pattern = args[args.indexOf('--test-name-pattern') + 1] ?? '';
  if (args.includes('--test-name-pattern')) assert.match(text, new RegExp(`it\\('[^\\n]*${pattern}`));
}

function checkDocker([command = '', ...args]: ShellCommand): void {
  assert.ok(['build', 'exec', 'run', 'save'].includes(command), command);
  if (command === 'exec') {
    const [node, ...rest] = args.slice(args.indexOf('loader') + 1);
    assert.equal(node, 'node');
    checkNode(rest);
  }
  if (command !== 'run') return;
  for (const [index, option] of args.entries()) {
    const value = args[index + 1] ?? '';
    if (option === '-e') assert.ok(VARIABLE_NAMES.includes(value.split('=')[0] ?? ''), value);
    if (option === '-p') assert.ok(DOCKERFILE.includes(`EXPOSE ${value.split(':').at(-1) ?? ''}`), value);
    const [, target = ''] = option === '-v' ? value.split(':') : [];
    if (target.startsWith('/app/')) assert.ok(DOCKERFILE.includes(`"${target}"`), `${target} is a volume of the image`);
    else if (option === '-v') assert.ok(isKnownPath(target, args), `the Loader uses ${target}`);
  }
}

/** A path in the container that a default or another option names. */
function isKnownPath(target: string, args: ShellCommand): boolean {
  const defaults = VARIABLE_DOCS.map(({ fallback }) => fallback ?? '');
  return [...defaults, ...args.filter((arg) => /^\w+=/.test(arg))].some((text) => text.includes(target));
}
