import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, it } from 'node:test';
import { configurationTable, envExample, helpText, VARIABLE_DOCS } from '../../src/config/config-docs.ts';
import { loadConfig, VARIABLE_NAMES } from '../../src/config/config.ts';
import { CONFIG_DOCUMENT, ENV_EXAMPLE, readConfigDocument, tableOf } from './config-document.ts';

const WRITE = 'run `npm run docs:config`';

describe(`the variables in ${path.basename(CONFIG_DOCUMENT)}`, () => {
  it('are those of the code, with their defaults and meanings', () => {
    assert.equal(tableOf(readConfigDocument()), `${configurationTable()}\n`, WRITE);
  });

  it('include the file variable of every secret, and no other one', () => {
    const named = new Set([...readConfigDocument().matchAll(/`(\w+_FILE)`/g)].map((match) => match[1] ?? ''));
    const known = VARIABLE_NAMES.filter((name) => name.endsWith('_FILE'));
    assert.deepEqual([...named].sort(), known.sort());
  });
});

describe('.env.example', () => {
  const text = readFileSync(ENV_EXAMPLE, 'utf8');

  it('is what the code makes', () => {
    assert.equal(text, envExample(), WRITE);
  });

  it('gives the defaults when every line is made to count', () => {
    const lines = text.split('\n').filter((line) => /^#\w+=/.test(line));
    assert.equal(lines.length, VARIABLE_DOCS.length);
    const variables = lines.map((line) => /^#(\w+)=(.*)$/.exec(line)?.slice(1) as [string, string]);
    assert.deepEqual(loadConfig(Object.fromEntries(variables)), loadConfig({}));
  });
});

describe('the help text', () => {
  it('has every variable with its meaning, in lines of at most 100 characters', () => {
    const help = helpText();
    for (const { name, about } of VARIABLE_DOCS) {
      assert.match(help, new RegExp(`^  ${name}\\b`, 'm'));
      assert.ok(help.replaceAll(/\s+/g, ' ').includes(about), name);
    }
    assert.ok(help.split('\n').every((line) => line.length <= 100));
  });
});
