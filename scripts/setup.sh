#!/bin/bash
# Installs what building and testing need and what is missing here. It touches nothing that is there already.
set -eu

want_go="1.26"

fail() {
	echo "setup: $*" >&2
	exit 1
}

command -v go >/dev/null || fail "Go $want_go or later is needed: https://go.dev/dl/"
have_go=$(go env GOVERSION)
have_go=${have_go#go}
[ "$(printf '%s\n%s\n' "$want_go" "$have_go" | sort -V | head -n 1)" = "$want_go" ] ||
	fail "Go $want_go or later is needed, this is $have_go"

# What tests run inside a sandbox, or compare with. A test skips, and says so, where one of them cannot be had.
packages=()
need() { # COMMAND PACKAGE
	[ -e "$1" ] || command -v "$1" >/dev/null || packages+=("$2")
}
need /usr/bin/python3 python3
need /usr/bin/busybox busybox-static
need gcc gcc
need /usr/include/stdio.h libc6-dev
need make make
need /usr/bin/node nodejs
need /usr/bin/java default-jre-headless
need /usr/bin/strace strace
need ssh-keygen openssh-client
need /usr/bin/openssl openssl
need /etc/ssl/certs/ca-certificates.crt ca-certificates
need /usr/bin/ping iputils-ping
need /usr/sbin/mkfs.ext4 e2fsprogs
need /usr/sbin/mkfs.xfs xfsprogs
need /usr/sbin/mkfs.btrfs btrfs-progs
need /usr/sbin/ip iproute2
need /usr/bin/curl curl
need /usr/bin/git git
need /usr/bin/redis-server redis-server
need /usr/bin/redis-benchmark redis-tools
need /usr/sbin/nginx nginx-light
need /usr/lib/postgresql postgresql
need /usr/lib/python3/dist-packages/requests python3-requests

if [ ${#packages[@]} -gt 0 ]; then
	echo "setup: installing ${packages[*]}"
	as_root=()
	[ "$(id -u)" = 0 ] || as_root=(sudo -n)
	if ! command -v apt-get >/dev/null ||
		! "${as_root[@]}" apt-get update -q ||
		! "${as_root[@]}" apt-get install -y -q --no-install-recommends "${packages[@]}"; then
		echo "setup: could not install ${packages[*]}; tests that need them will be skipped" >&2
	fi
fi

cd "$(dirname "$0")/.."
go mod download
