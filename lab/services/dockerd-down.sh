#!/bin/bash
# dockerd-down.sh STATE_DIR [--purge]  -- stops what dockerd-up.sh started there (recorded pid only)
# --purge kills at once and removes the state and the data, and unmounts what a test mounted under STATE_DIR.
set -euo pipefail
D=$(cd "$1" && pwd -P); PIDF=$D/dockerd.pid
stime() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }
ours() { local p s; [ -s "$PIDF" ] && read -r p s <"$PIDF" && [ -n "$s" ] && [ "$(stime "$p")" = "$s" ] && [ "$(sed 's/.*) //' "/proc/$p/stat" 2>/dev/null | cut -c1)" != Z ] && echo "$p"; }
exec 9>"$D/.lock"; flock -w 300 9   # an engine that is about to start is stopped when it has started
if p=$(ours); then
  [ "${2:-}" = --purge ] && sig=KILL || sig=TERM      # data is thrown away: no need to wait for a clean stop
  kill -$sig "$p" || true
  for _ in $(seq 300); do ours >/dev/null || break; sleep 0.05; done
  if p=$(ours); then kill -KILL "$p" || true; while ours >/dev/null; do sleep 0.05; done; fi
fi
rm -f "$PIDF" "$D/docker.sock"
if [ "${2:-}" = --purge ] && [ -s "$D/data-root" ]; then
  find "$(<"$D/data-root")" -mindepth 1 -delete 2>/dev/null || true
  while read -r _ point _; do point=$(printf %b "$point"); case $point in "$D"/*) umount -l "$point" ;; esac; done < <(tac /proc/mounts)
  rm -rf "$D"
fi
