#!/usr/bin/env bash
# base.sh NAME [RELEASE]: make a Debian base image (default: this machine's release), if the engine has none of that name.
#
# For tests, and for places that cannot reach an image registry. It stands in for debian:bookworm-slim, and carries this
# site's certificates, so that what is fetched inside a build is trusted as it is outside.
set -euo pipefail

name=${1:?usage: base.sh NAME [RELEASE]}
docker image inspect "$name" >/dev/null 2>&1 && exit 0

# shellcheck disable=SC1091
. /etc/os-release
release=${2:-$VERSION_CODENAME}
address=$(cat /etc/apt/sources.list.d/*.sources 2>/dev/null | awk '/^URIs:/ { print $2; exit }')
# In memory where that can be: a package manager syncs every file.
root=$(mktemp -d /dev/shm/base.XXXXXX 2>/dev/null || mktemp -d)
trap 'rm -rf --one-file-system "$root" "$root.log"' EXIT
chmod 755 "$root"
if ! debootstrap --variant=minbase --include=ca-certificates "$release" "$root" ${address:+"$address"} >"$root.log" 2>&1; then
    tail -3 "$root.log" >&2
    exit 1
fi
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/unsafe-io"
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}
tar --numeric-owner -C "$root" -c . | docker import - "$name" >/dev/null
