#!/usr/bin/env bash
# build-shipped.sh PROJECT FOLDER  -- makes what ships of a project: dist/ as `npm run build` makes it, with the
# dependencies of `npm ci --omit=dev` beside it, and nothing of the sources.
# FOLDER appears at once, when it is whole. A second call waits for the first one, and then finds its work.
set -euo pipefail
[ $# = 2 ] || { echo "usage: $0 PROJECT FOLDER" >&2; exit 2; }
PROJECT=$(cd "$1" && pwd -P); FOLDER=$2; SHELF=$(dirname "$FOLDER")
mkdir -p "$SHELF"; exec 9>"$SHELF/.lock"; flock -w 300 9
[ ! -d "$FOLDER" ] || exit 0
find "$SHELF" -mindepth 1 -maxdepth 1 \( -name '*.new' -o -name 'modules-*' -mtime +7 -o -name 'shipped-*' -mtime +0 \) -exec rm -rf {} +

# As the Dockerfile does it: the build sees the sources and all dependencies, what ships is taken from it.
NEW=$FOLDER.new; mkdir -p "$NEW/build" "$NEW/shipped"
cp -R "$PROJECT"/{package.json,package-lock.json,tsconfig.json,tsconfig.build.json,src} "$NEW/build/"
# Other checkouts may be older than these files.
for file in lab/build.ts docs/openapi.json; do
  [ ! -e "$PROJECT/$file" ] || install -D -m 644 "$PROJECT/$file" "$NEW/build/$file"
done
ln -s "$PROJECT/node_modules" "$NEW/build/node_modules"
# The compiler would leave a cache in the folder of temporary files.
(cd "$NEW/build" && NODE_DISABLE_COMPILE_CACHE=1 npm run --silent build 9>&-) >&2

# The dependencies change less often than the sources: one installation a lockfile, of which hard links are made.
MODULES=$SHELF/modules-$(sha256sum <"$PROJECT/package-lock.json" | cut -c1-16)
if [ ! -d "$MODULES" ]; then
  rm -rf "$MODULES.new"; mkdir "$MODULES.new"; cp "$PROJECT"/{package.json,package-lock.json} "$MODULES.new/"
  (cd "$MODULES.new" && npm ci --omit=dev --ignore-scripts --prefer-offline --no-audit --no-fund --loglevel=error 9>&-) >&2
  mv "$MODULES.new" "$MODULES"
fi
touch "$MODULES"
cp -al "$MODULES/node_modules" "$NEW/shipped/"
mv "$NEW/build/dist" "$NEW/build/package.json" "$NEW/shipped/"
cp "$PROJECT/Dockerfile" "$NEW/shipped/"   # its command has the options of Node
mv "$NEW/shipped" "$FOLDER"; rm -rf "$NEW"
