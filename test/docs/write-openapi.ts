import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { makeOpenApiText, OPENAPI_FILE } from './openapi-document.ts';
import { ROOT } from './documents.ts';

/** `npm run openapi`: writes docs/openapi.json anew. */
writeFileSync(path.join(ROOT, OPENAPI_FILE), await makeOpenApiText());
