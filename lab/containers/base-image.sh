#!/usr/bin/env bash
# base-image.sh NODE TAR  -- makes what the tests have in place of node:26-slim, for there may be no registry: a minimal
# Debian from Debian's packages, with the Node binary NODE, a place for npm and the user `node` as that image has them
# (Linux, root)
# mmdebstrap and not debootstrap: it takes 15 s and not 30. And not only Node with its libraries: the Dockerfile runs apt.
set -euo pipefail
[ $# = 2 ] || { echo "usage: $0 NODE TAR" >&2; exit 2; }
export NODE=$1; TAR=$2
[ "$(id -u)" = 0 ] || { echo "[base-image] a Debian in a folder needs root" >&2; exit 1; }

if ! command -v mmdebstrap >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  install=(apt-get -o DPkg::Lock::Timeout=180 install -y --no-install-recommends mmdebstrap debian-archive-keyring)
  "${install[@]}" >&2 || { apt-get update >&2 && "${install[@]}" >&2; }
fi

# Of node:26-slim: what is no command of its own is an argument of Node. `exec`, so that Node gets the signals.
export ENTRYPOINT='#!/bin/sh
set -e
if [ "${1#-}" != "$1" ] || [ -z "$(command -v "$1")" ]; then set -- node "$@"; fi
exec "$@"'

# shellcheck disable=SC2016  # mmdebstrap's shell has the root folder in $1
mmdebstrap --quiet --variant=apt --include=libatomic1,libstdc++6 \
  --customize-hook='install -m 755 "$NODE" "$1/usr/local/bin/node" && ln -s node "$1/usr/local/bin/nodejs"' \
  --customize-hook='mkdir -p "$1/usr/local/lib/node_modules/npm" && touch "$1/usr/local/lib/node_modules/npm/npm-cli.js"' \
  --customize-hook='ln -s ../lib/node_modules/npm/npm-cli.js "$1/usr/local/bin/npm"' \
  --customize-hook='printf "%s\n" "$ENTRYPOINT" >"$1/usr/local/bin/docker-entrypoint.sh" && chmod 755 "$1/usr/local/bin/docker-entrypoint.sh"' \
  --customize-hook='chroot "$1" groupadd --gid 1000 node && chroot "$1" useradd --uid 1000 --gid node --shell /bin/bash --create-home node' \
  bookworm "$TAR" http://deb.debian.org/debian >&2
