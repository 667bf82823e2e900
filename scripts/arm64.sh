#!/bin/bash
# Runs the tests of packages on an emulated arm64 machine, as root, and says of each whether it passed.
#
#   scripts/arm64.sh PACKAGE… [-test.FLAG…]      scripts/arm64.sh ./exec/kernel ./exec -test.run='Cpu|Memory'
#
# It compiles them here, makes a root file system of Debian packages for arm64, with what the tests run but for Go, Java,
# Node and the servers, and starts it with scripts/vm-test.sh. It must be root, on Debian with what that script needs, with
# qemu-system-arm in place of qemu-system-x86. It installs nothing; what it makes (1 GB in /var/tmp) is gone when it ends.
# Tests that build programs with Go fail unless -test.skip names them, and so do some that measure time: the machine is ten
# times as slow as this one. ARM64_KEEP=DIRECTORY keeps the file system there for the next time. MIRROR and SUITE say where
# the packages come from; the kernel is that of SUITE's backports.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=() flags=()
for argument in "$@"; do
	case $argument in
	-test.*) flags+=("$argument") ;;
	-*) packages=() && break ;;
	*) packages+=("$argument") ;;
	esac
done
[ ${#packages[@]} -gt 0 ] || { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
[ "$(id -u)" = 0 ] || { echo "arm64: must be root, for the owners of the files" >&2; exit 2; }
mirror=${MIRROR:-http://deb.debian.org/debian} suite=${SUITE:-bookworm}

if [ -n "${ARM64_KEEP:-}" ]; then
	mkdir -p "$ARM64_KEEP" && work=$(realpath "$ARM64_KEEP")
else
	work=$(mktemp -d -p /var/tmp) && trap 'rm -rf "$work"' EXIT
fi
chmod 755 "$work"
root=$work/root

make_root() {
	mkdir -p "$work"/{kernel,apt/etc/{apt.conf.d,preferences.d},apt/lists/partial,apt/archives/partial} "$root"/usr/{bin,sbin,lib}
	: >"$work/apt/status"
	for s in "$suite" "$suite-backports"; do
		echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $s main"
	done >"$work/apt/sources"
	# An apt that knows nothing of this machine, and that this machine knows nothing of.
	cat >"$work/apt/conf" <<-CONF
		APT::Architecture "arm64";
		APT::Architectures { "arm64"; };
		APT::Install-Recommends "false";
		APT::Sandbox::User "root";
		Dir::State "$work/apt";
		Dir::State::status "$work/apt/status";
		Dir::Cache "$work/apt";
		Dir::Etc "$work/apt/etc";
		Dir::Etc::sourcelist "$work/apt/sources";
		Dir::Etc::sourceparts "-";
	CONF
	export APT_CONFIG=$work/apt/conf
	apt-get update -qq
	apt-get install -y -qq --download-only "linux-image-arm64/$suite-backports" base-files base-passwd bash busybox-static \
		ca-certificates coreutils curl dash diffutils e2fsprogs findutils gcc git grep hostname iproute2 iputils-ping kmod \
		libc-bin libc6-dev login make mawk mount openssh-client openssl passwd perl-base procps python3 python3-requests sed \
		strace tar util-linux >/dev/null
	for d in bin sbin lib; do ln -s "usr/$d" "$root/$d"; done
	for package in "$work"/apt/archives/*.deb; do
		case $package in
		*/linux-image-[0-9]*) dpkg-deb -x "$package" "$work/kernel" ;;
		*) dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink -C "$root" ;;
		esac
	done
	rm -rf "$work/apt" "$root"/usr/share/{doc,locale,man}
	# What the packages' own scripts would have done, as far as it matters here.
	ln -s mawk "$root/usr/bin/awk"
	for file in passwd group; do cp "$root/usr/share/base-passwd/$file.master" "$root/etc/$file"; done
	printf 'root:*:19000:0:99999:7:::\n' >"$root/etc/shadow"
	chmod 640 "$root/etc/shadow"
	cat "$root"/usr/share/ca-certificates/mozilla/*.crt >"$root/etc/ssl/certs/ca-certificates.crt"
	printf '127.0.0.1 localhost vm\n' >"$root/etc/hosts"
	printf 'passwd: files\ngroup: files\nhosts: files dns\n' >"$root/etc/nsswitch.conf"
	touch "$work/made"
}
[ -e "$work/made" ] || make_root

# The sources stay where they are here: tests read what lies beside them.
rm -rf "$root/sandlock" "${root:?}$PWD"
mkdir -p "$root$PWD" "$root/sandlock"
git ls-files -z | xargs -0 cp --parents -t "$root$PWD"
export GOOS=linux GOARCH=arm64 CGO_ENABLED=0
for program in cmd/sandlock-compile cmd/sandlock-exec exec/exectest/{probe,pausable,lookup,goclient}; do
	go build -trimpath -o "$root/sandlock/bin-${program##*/}/" "./$program"
done
go build -trimpath -o "$root/sandlock/bin-sandlock-exec/" ./cmd/sandlock-proxy
{
	printf 'ldconfig\nfailed=0\nexport SANDLOCK_EXECTEST_TOOLS=/sandlock\nrun() { "$@" && echo "arm64: passed $PWD" || { echo "arm64: FAILED $PWD"; failed=1; }; }\n'
	go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}} {{.Dir}}{{end}}' "${packages[@]}" | while read -r package dir; do
		name=$(tr / - <<<"$package").test
		go test -c -trimpath -ldflags "-s -w" -o "$root/sandlock/$name" "$package" >&2
		printf 'cd %q\nrun /sandlock/%q -test.timeout=40m' "$dir" "$name"
		[ ${#flags[@]} = 0 ] || printf ' %q' "${flags[@]}"
		echo
	done
	echo 'exit $failed'
} >"$root/sandlock/run.sh"
VM_ARCH=arm64 VM_ROOT=$root PATH=/usr/sbin:/usr/bin scripts/vm-test.sh "$work/kernel" bash /sandlock/run.sh
