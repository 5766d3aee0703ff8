import assert from 'node:assert/strict';
import { existsSync, globSync } from 'node:fs';
import path from 'node:path';
import { describe, it } from 'node:test';
import { Document, DOCUMENTS, readProjectFile, ROOT } from './documents.ts';

describe('links', () => {
  it('are read at all: a check of nothing would pass', () => {
    assert.ok(DOCUMENTS.length >= 12, 'the documents are found');
    assert.ok(DOCUMENTS.flatMap(({ links }) => links).length > 30, 'their links are found');
    const document = new Document(
      'x.md',
      '# A `b` c\n\n[d](e.md#f) `[g](h)`\n\n```sh\n# i\n[j](k)\n```\n\n## A b, c\n',
    );
    assert.deepEqual(document.links, ['e.md#f']);
    assert.deepEqual(document.anchors, ['a-b-c', 'a-b-c-1']);
  });

  for (const document of DOCUMENTS) {
    it(`of ${document.name} lead to files and headings that exist`, () => {
      const broken = document.links.filter((link) => !/^https?:/.test(link)).filter((link) => !leads(document, link));
      assert.deepEqual(broken, []);
    });
  }

  it('within the comments of the sources lead to pages and sections that exist', () => {
    const broken: string[] = [];
    let count = 0;
    for (const file of globSync('{src,lab,demo,test,bench}/**/*.ts', { cwd: ROOT })) {
      for (const [reference, page = '', section] of readProjectFile(file).matchAll(
        /\b(docs\/[\w-]+\.md)(?: section (\d+))?/g,
      )) {
        count++;
        const isThere = existsSync(path.join(ROOT, page)) || file.startsWith('test/docs/');
        const hasSection = section === undefined || readProjectFile(page).includes(`\n## ${section}. `);
        if (!isThere || !hasSection) broken.push(`${file}: ${reference}`);
      }
    }
    assert.ok(count > 20, `${count} are found`);
    assert.deepEqual(broken, []);
  });

  it('of the README lead to every page of docs/', () => {
    const readme = new Document('README.md');
    const pages = DOCUMENTS.map(({ name }) => name).filter((name) => name.startsWith('docs/'));
    assert.deepEqual(
      pages.filter((page) => !readme.links.includes(page)),
      [],
    );
  });
});

function leads(document: Document, link: string): boolean {
  const [file = '', anchor] = link.split('#');
  const target = file === '' ? document.name : path.join(path.dirname(document.name), file);
  if (!existsSync(path.join(ROOT, target))) return false;
  return anchor === undefined || new Document(target).anchors.includes(anchor);
}
