import './node-version.js';

// Imported when Node's version is known to be right: an older Node could not even read it.
const { start } = await import('./start.ts');
await start(process.argv.slice(2));
