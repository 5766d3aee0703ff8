import { globSync, readFileSync } from 'node:fs';
import ts from 'typescript';

/**
 * Prints every text for people in the sources, with its file and line: messages of errors, lines of the log, and what
 * commands print. A change of words is read here as a whole. Descriptions of schemas stand in docs/openapi.json.
 */

/** Fields whose texts are for readers of the API's document. */
const DOCUMENT_FIELDS: readonly string[] = ['description', 'summary', 'examples', 'about', 'meaning'];
const MIN_WORDS = 3;

for (const file of globSync('src/**/*.ts').sort()) {
  const source = ts.createSourceFile(file, readFileSync(file, 'utf8'), ts.ScriptTarget.Latest, true);
  visit(source, source);
}

function visit(node: ts.Node, source: ts.SourceFile): void {
  if (ts.isImportDeclaration(node) || isForDocument(node)) return;
  const text = textOf(node, source);
  if (text !== undefined && text.split(/\s+/).length >= MIN_WORDS && /^[A-Z{'"*]?[a-z{]/.test(text.trim())) {
    const { line } = source.getLineAndCharacterOfPosition(node.getStart(source));
    console.log(`${source.fileName}:${line + 1}  ${text.replaceAll('\n', '\\n')}`);
  }
  // The texts of nested templates are parts of the outer one.
  if (!ts.isTemplateExpression(node)) ts.forEachChild(node, (child) => visit(child, source));
}

function isForDocument(node: ts.Node): boolean {
  return ts.isPropertyAssignment(node) && DOCUMENT_FIELDS.includes(node.name.getText());
}

function textOf(node: ts.Node, source: ts.SourceFile): string | undefined {
  if (ts.isStringLiteral(node) || ts.isNoSubstitutionTemplateLiteral(node)) return node.text;
  if (!ts.isTemplateExpression(node)) return undefined;
  const spans = node.templateSpans.map(({ expression, literal }) => `{${expression.getText(source)}}${literal.text}`);
  return node.head.text + spans.join('');
}
