#!/bin/bash
# debian-13.sh FOLDER PACKAGE...  -- unpacks packages of Debian 13, and all that they depend on, into FOLDER/usr (root)
# env: DEBIAN_13_NO_APT=1 (never fetch)
# Nothing is installed: apt gets lists, a cache and a status of its own, and checks Debian's signature as ever. The
# programs run where FOLDER/usr lies over /usr, as dockerd-up.sh does with DOCKERD_USR.
# A second call with the same packages finds what there is.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: $0 FOLDER PACKAGE..." >&2; exit 2; }
mkdir -p "$1"; D=$(cd "$1" && pwd -P); shift
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LOG=$D/apt.log
say() { echo "[debian-13] $*" >&2; }
die() { [ ! -s "$LOG" ] || tail -n 5 "$LOG" >&2; say "FAILED: $*"; exit 1; }
exec 9>"$D/.lock"; flock -w 300 9 || die "another debian-13 holds $D"
if [ "$(cat "$D/packages" 2>/dev/null)" = "$*" ]; then exit; fi
[ -z "${DEBIAN_13_NO_APT:-}" ] || die "not unpacked: $*"
say "unpacking $* of Debian 13"

A=$D/apt; rm -rf "$A" "$D/packages" "$D/usr"; : >"$LOG"
mkdir -p "$A/lists/partial" "$A/cache/archives/partial" "$A/unpacked" "$A/keyring"
KEYS=/usr/share/keyrings; MIRROR=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' | sed -n '\|/debian/ [a-z]*$|{s/ .*//p;q}')
if [ ! -e $KEYS/debian-archive-trixie-stable.gpg ]; then   # a Debian 12 from before Debian 13: its updates bring the keys
  { apt-get update && cd "$A/keyring" && apt-get -o APT::Sandbox::User=root download debian-archive-keyring &&
    dpkg-deb -x ./*.deb .; } >>"$LOG" 2>&1 9>&- || die "the keys of Debian 13"
  KEYS=$A/keyring/usr/share/keyrings
fi
: >"$A/status"   # of a machine that has nothing, so that the libraries come along
echo "deb [signed-by=$KEYS/debian-archive-keyring.gpg] ${MIRROR:-http://deb.debian.org/debian/} trixie main" >"$A/sources.list"
cat >"$A/apt.conf" <<C
Dir::Etc::SourceList "$A/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State "$A";
Dir::State::Lists "$A/lists";
Dir::State::Status "$A/status";
Dir::Cache "$A/cache";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
Acquire::Languages "none";
C
export APT_CONFIG=$A/apt.conf
apt-get update --error-on=any >>"$LOG" 2>&1 9>&- || die "apt-get update"
apt-get install -y --download-only "$@" >>"$LOG" 2>&1 9>&- || die "apt-get install --download-only $*"
for deb in "$A"/cache/archives/*.deb; do
  dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$A/unpacked" --exclude='./usr/share/*' ./usr 2>>"$LOG" || die "unpacking $deb"
done
mv "$A/unpacked/usr" "$D/usr"; rm -rf "$A"; echo "$*" >"$D/packages"
