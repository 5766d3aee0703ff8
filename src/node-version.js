// Every entry file imports this file first. It is JavaScript that old versions of Node can read, since they can read
// neither TypeScript nor what else the Loader is written in.

/** The same number as in package.json. */
const NEEDED_VERSION = 26;

const version = process.versions.node;
if (Number(version.split('.')[0]) < NEEDED_VERSION) {
  process.stderr.write(
    `The Loader needs Node ${NEEDED_VERSION} or newer, but this is Node ${version}: install a newer one, or run ` +
      '`npm ci` in the project, which brings the right one for `npm start`.\n',
  );
  process.exit(1);
}
