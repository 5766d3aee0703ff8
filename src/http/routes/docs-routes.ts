import { readFile } from 'node:fs/promises';
import { docsFile, type DocsFile } from '../docs/docs-files.ts';
import type { HttpApp } from '../schemas/responses.ts';

/**
 * For the pages of /docs: no script but the Loader's own files, and nothing from another host. The pages set styles by
 * attribute, and show images of data URLs.
 */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "style-src-attr 'unsafe-inline'",
  "img-src 'self' data:",
  "font-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'self'",
  "frame-ancestors 'none'",
].join('; ');

const PAGE = `<!DOCTYPE html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <title>Azaion.Loader</title>
    <link rel="icon" href="data:,">
    <link rel="stylesheet" href="/docs/swagger-ui.css">
  </head>
  <body>
    <div id="swagger-ui"></div>
    <script src="/docs/swagger-ui-bundle.js"></script>
    <script src="/docs/start.js"></script>
  </body>
</html>
`;

/** The policy allows no script within the page. */
const START = `SwaggerUIBundle({ url: '/openapi.json', dom_id: '#swagger-ui', deepLinking: true, validatorUrl: null });
`;

const HTML = 'text/html; charset=utf-8';
const SCRIPT = 'text/javascript; charset=utf-8';
const STYLE = 'text/css; charset=utf-8';

/**
 * GET /openapi.json and GET /docs, with the files of its pages. Nothing of it is read before a client asks for it, and
 * nothing is kept.
 */
export function registerDocsRoutes(app: HttpApp): void {
  serve(app, '/openapi.json', 'application/json; charset=utf-8', () => read('openapi.json'));
  serve(app, '/docs', HTML, () => PAGE);
  serve(app, '/docs/', HTML, () => PAGE);
  serve(app, '/docs/start.js', SCRIPT, () => START);
  serve(app, '/docs/swagger-ui-bundle.js', SCRIPT, () => read('swagger-ui-bundle.js'));
  serve(app, '/docs/swagger-ui.css', STYLE, () => read('swagger-ui.css'));
}

function serve(app: HttpApp, url: string, type: string, content: () => string | Promise<Buffer>): void {
  app.get(url, { config: { access: 'open' } }, async (_request, reply) => {
    const headers = { 'content-type': type, 'content-security-policy': POLICY, 'x-content-type-options': 'nosniff' };
    return await reply.headers(headers).send(await content());
  });
}

function read(name: DocsFile): Promise<Buffer> {
  return readFile(docsFile(name));
}
