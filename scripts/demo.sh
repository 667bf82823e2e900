#!/bin/bash
# Runs the main job on real input, then three attempts that the policy refuses. Call it by `make demo`.
set -eu
cd "$(dirname "$0")/.."
# The system's Python: policies/python.cue grants system directories, not a version manager's.
export PATH=/usr/bin:/bin:$PATH

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

show() { # COMMAND…
	printf '$ %s\n' "${*@Q}"
	"$@"
}

refused() { # COMMAND…
	printf '$ %s\n' "${*@Q}"
	if "$@"; then
		echo "demo: this must not have worked" >&2
		exit 1
	fi
}

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
exec_py=(./sandlock-exec --explain-denials "$dir/python.sbx" -- python3 -c)

say "1. Compile the policy into a sealed artifact"
show ./sandlock-compile policies/python.cue -o "$dir/python.sbx"

say "2. Run Python under it"
show ./sandlock-exec "$dir/python.sbx" -- python3 -c 'print(1)'

say "3. Reading a secret is refused"
refused "${exec_py[@]}" 'open("/etc/shadow").read()'

say "4. Writing outside the grants is refused"
refused "${exec_py[@]}" 'open("/var/tmp/sandlock-demo", "w").write("x")'

say "5. Opening a network connection is refused"
refused "${exec_py[@]}" 'import socket; socket.create_connection(("127.0.0.1", 9))'

say "The policy is policies/python.cue; golden/python.txt says what it comes to."
