import assert from 'node:assert/strict';
import { it } from 'node:test';
import { parseShell } from './shell-commands.ts';

it('reads words, quotes, comments, long lines, pipes and variables', () => {
  const script = [
    "KEY='a b'",
    '# Not a command.',
    'npm ci && npm test',
    'docker run -e A=b \\',
    '  --group-add "$(stat -c %g /x)" loader',
    'head -c 5 /dev/urandom > file',
    'docker save a |',
    '  npm run x',
    `curl -H "$KEY" -d '{"a":1}'`,
  ].join('\n');
  assert.deepEqual(parseShell(script), [
    ['npm', 'ci'],
    ['npm', 'test'],
    ['docker', 'run', '-e', 'A=b', '--group-add', '$(stat -c %g /x)', 'loader'],
    ['head', '-c', '5', '/dev/urandom'],
    ['docker', 'save', 'a'],
    ['npm', 'run', 'x'],
    ['curl', '-H', '$KEY', '-d', '{"a":1}'],
  ]);
});
