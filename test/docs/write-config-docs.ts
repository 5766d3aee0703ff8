import { writeFileSync } from 'node:fs';
import { configurationTable, envExample } from '../../src/config/config-docs.ts';
import { CONFIG_DOCUMENT, ENV_EXAMPLE, readConfigDocument, withTable } from './config-document.ts';

/** `npm run docs:config`: writes the documents that come from the table of the configuration. */
writeFileSync(CONFIG_DOCUMENT, withTable(readConfigDocument(), configurationTable()));
writeFileSync(ENV_EXAMPLE, envExample());
