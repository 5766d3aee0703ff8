#!/bin/bash
# dockerd-up.sh STATE_DIR  -- a private Docker engine that listens on STATE_DIR/docker.sock only (Linux, root)
# env: DOCKERD_DATA_ROOT (default STATE_DIR/data; another one, such as a small tmpfs, must be empty at the first start)
#      DOCKERD_DATA_TMPFS=1 (the data are in memory, and outlive the engine until dockerd-down.sh --purge)
#      DOCKERD_USR (a folder of programs and libraries that lies over /usr for this engine alone, of debian-13.sh)
#      DOCKERD_IMAGE_STORE=classic|containerd (default classic; Docker 20.10 has no other)
#      DOCKERD_NO_APT=1 (never install)
# The first start decides these; each later one keeps them.
# The engine has its own PID and mount namespaces, and a /run of its own. So when dockerd ends, however it ends, the
# kernel ends containerd, shims and containers with it, and its mounts are never seen from outside.
# Prints DOCKER_HOST and DOCKERD_PID. A second call finds the engine that runs; after a crash, it starts on the same data.
# All state, log and pid are under STATE_DIR; stop with dockerd-down.sh STATE_DIR [--purge].
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: $0 STATE_DIR" >&2; exit 2; }
mkdir -p "$1"; D=$(cd "$1" && pwd -P); PIDF=$D/dockerd.pid; LOG=$D/dockerd.log; SOCK=$D/docker.sock
export LC_ALL=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
unset DOCKER_TLS_VERIFY DOCKER_CERT_PATH DOCKER_TMPDIR DOCKER_RAMDISK DOCKER_DRIVER NOTIFY_SOCKET LISTEN_PID LISTEN_FDS
say() { echo "[dockerd-up] $*" >&2; }
die() { [ ! -s "$LOG" ] || tail -n 15 "$LOG" >&2; say "FAILED: $*"; exit 1; }
# a recorded pid counts only while it is the process we started (pid + kernel start time)
stime() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }
alive() { local p s; [ -s "$PIDF" ] && read -r p s <"$PIDF" && [ -n "$s" ] && [ "$(stime "$p")" = "$s" ] && [ "$(sed 's/.*) //' "/proc/$p/stat" 2>/dev/null | cut -c1)" != Z ]; }
serves() { grep -q 'API listen on' "$LOG" 2>/dev/null; }
answer() { local p _; read -r p _ <"$PIDF"; printf '%s\n' "DOCKER_HOST=unix://$SOCK" "DOCKERD_PID=$p"; }
[ "$(id -u)" = 0 ] || die "a Docker engine needs root"
[ ${#SOCK} -le 107 ] || die "longer than the 107 bytes that a socket's path may have: $SOCK"
exec 9>"$D/.lock"; flock -w 300 9 || die "another dockerd-up holds $D"
if alive && serves; then answer; exit; fi

if [ ! -e "$D/usr" ]; then   # not the machine's /etc/docker/daemon.json
  echo "${DOCKERD_USR:-}" >"$D/usr"
  case ${DOCKERD_IMAGE_STORE:-classic} in
    classic) echo '{}' ;;
    containerd) echo '{"features":{"containerd-snapshotter":true}}' ;;
    *) die "no such image store: $DOCKERD_IMAGE_STORE" ;;
  esac >"$D/daemon.json"
fi
USR=$(<"$D/usr")
if [ -z "$USR" ] && ! command -v dockerd >/dev/null; then
  [ -z "${DOCKERD_NO_APT:-}" ] || die "dockerd not installed"
  say "installing docker.io from Debian"
  export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1   # RUNLEVEL=1: maintainer scripts start no daemon
  install=(apt-get -o DPkg::Lock::Timeout=180 install -y --no-install-recommends docker.io)
  "${install[@]}" >"$D/apt.log" 2>&1 9>&- || { apt-get update >>"$D/apt.log" 2>&1 9>&- && "${install[@]}" >>"$D/apt.log" 2>&1 9>&-; } ||
    { tail -5 "$D/apt.log" >&2; die "apt-get install"; }
fi

if alive; then read -r p _ <"$PIDF"; kill -KILL "$p"; while alive; do sleep 0.05; done; fi   # a half-started one
[ -s "$D/data-root" ] || {
  DATA=${DOCKERD_DATA_ROOT:-$D/data}; mkdir -p "$DATA"; DATA=$(cd "$DATA" && pwd -P)
  [ -z "${DOCKERD_DATA_TMPFS:-}" ] || mount -t tmpfs -o mode=711 tmpfs "$DATA"
  [ -z "$(ls -A "$DATA")" ] || [ "$(ls -A "$DATA")" = lost+found ] || die "$DATA is not empty"
  echo "$DATA" >"$D/data-root"
}
DATA=$(<"$D/data-root"); mkdir -p "$DATA"
case $D/:$DATA/ in /run/* | *:/run/*) die "neither STATE_DIR nor the data may lie under /run" ;; esac
rm -f "$PIDF" "$SOCK"; : >"$LOG"

# The inner shell becomes dockerd. It notes its own pid while /proc is still the outer one, so that no dockerd runs unknown.
setsid unshare --pid --fork --kill-child --mount bash -c '
  set -eu
  read -r stat </proc/self/stat; after_name=(${stat##*) })
  echo "${stat%% *} ${after_name[19]}" >"$1.new"; mv "$1.new" "$1"
  mount -t proc proc /proc; mount -t tmpfs -o mode=755 tmpfs /run
  if [ -n "$5" ]; then
    mkdir /run/usr; mount --bind "$5" /run/usr; mount -t overlay -o ro,lowerdir=/run/usr:/usr overlay /usr
  fi
  exec dockerd --config-file "$2" --data-root "$3" --host "unix://$4" --bridge none --iptables=false --ip-forward=false' \
  dockerd "$PIDF" "$D/daemon.json" "$DATA" "$SOCK" "$USR" </dev/null >"$LOG" 2>&1 9>&- &
starter=$!; disown "$starter"
for _ in $(seq 600); do
  serves && break
  kill -0 "$starter" 2>/dev/null || die "dockerd died at its start"
  sleep 0.05
done
serves || die "timeout: dockerd does not listen"
answer
