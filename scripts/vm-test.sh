#!/bin/bash
# Runs a command as root in a virtual machine with another kernel, on this machine's files: what it changes is gone when
# it ends. A developer's tool, for what the own kernel or its settings lack (delegated control groups, an older Landlock).
#
#   scripts/vm-test.sh KERNEL command…      scripts/vm-test.sh k go test -run Cgroup ./exec
#
# KERNEL is an unpacked kernel package whose modules include 9p and overlay:
#   apt-get download linux-image-6.12.…-amd64 && dpkg -x linux-image-*.deb k
# It also needs qemu-system-x86, busybox-static, cpio and xz-utils. VM_MEMORY is its memory (4G), VM_APPEND is added to
# the kernel's command line, VM_ACCEL=kvm is faster where it works. VM_ROOT is whose files it gets instead of this
# machine's; VM_ARCH=arm64 makes it another machine, which needs such a VM_ROOT (scripts/arm64.sh).
set -eu

[ $# -ge 2 ] || { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
kernel=$(ls "$1"/boot/vmlinuz-* | head -n 1)
modules=$1/lib/modules/${kernel##*/vmlinuz-}
shift
quoted=$(printf '%q ' "$@")
root=${VM_ROOT:-/}
case ${VM_ARCH:-amd64} in
arm64) machine=(qemu-system-aarch64 -M virt) console=ttyAMA0 ;;
*) machine=(qemu-system-x86_64) console=ttyS0 ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work"/{dev,lower,upper,root}
cp "$root/usr/bin/busybox" "$work/busybox"
for m in netfs 9pnet 9pnet_virtio 9p overlay; do
	find "$modules" -name "$m.ko*" | while read -r file; do
		case $file in
		*.xz) xz -dc "$file" >"$work/$m.ko" ;;
		*.zst) zstd -qdc "$file" >"$work/$m.ko" ;;
		*) cp "$file" "$work/$m.ko" ;;
		esac
	done
done
cat >"$work/init" <<INIT
#!/busybox sh
b=/busybox
\$b mount -t devtmpfs dev /dev
for m in netfs 9pnet 9pnet_virtio 9p overlay; do [ ! -e /\$m.ko ] || \$b insmod /\$m.ko; done
\$b mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=524288,cache=loose host /lower
\$b mount -t tmpfs -o size=75% upper /upper
\$b mkdir /upper/files /upper/work
\$b mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work overlay /root
\$b cp /run.sh /root/.vm-run
exec \$b switch_root /root /bin/sh /.vm-run
INIT
cat >"$work/run.sh" <<RUN
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o ptmxmode=666 devpts /dev/pts
ln -sf /proc/self/fd /dev/fd
mount -t tmpfs tmp /dev/shm
mount -t tmpfs -o mode=1777 tmp /tmp
mount -t tmpfs -o mode=755 run /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo +memory +cpu +pids >/sys/fs/cgroup/cgroup.subtree_control
ip link set lo up 2>/dev/null
export PATH='$PATH' HOME='$HOME' GOFLAGS='${GOFLAGS:-}' GOPROXY=off
cd '$PWD'
setsid sh -c $(printf %q "$quoted")
echo "vm-test: exit \$?"
echo o >/proc/sysrq-trigger
sleep 60
RUN
chmod +x "$work/init"
(cd "$work" && find . | cpio -o -H newc --quiet) >"$work.img"
trap 'rm -rf "$work" "$work.img"' EXIT
"${machine[@]}" -accel "${VM_ACCEL:-tcg}" -cpu max -smp 2 -m "${VM_MEMORY:-4G}" -nodefaults -no-reboot \
	-nographic -serial stdio -kernel "$kernel" -initrd "$work.img" \
	-virtfs local,path="$root",mount_tag=host,security_model=none,readonly=on,multidevs=remap \
	-append "console=$console quiet panic=-1 ${VM_APPEND:-}" </dev/null | tr -d '\r' | tee "$work/log"
code=$(sed -n 's/^vm-test: exit //p' "$work/log" | tail -n 1)
exit "${code:-1}"
