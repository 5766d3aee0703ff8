#!/usr/bin/env node
import '../node-version.js';

// Imported when Node's version is known to be right: an older Node could not even read it.
const { loaderCommand } = await import('./loader-command.ts');
process.exit(await loaderCommand(process.argv.slice(2)));
