#!/usr/bin/env bash
# Runs test programs in a virtual machine with cgroup v2, which the machine that builds may not
# have. The machine is emulated (no KVM is needed), its kernel is Debian's, and its one file
# system holds the programs, what they link to, and the usual tools of the host.
#
#   scripts/vm.sh FOLDER PROGRAM [ARGUMENT...]
#
# FOLDER keeps the kernel between runs. The files in MEZZ_VM_FILES (separated by spaces, absolute)
# are there in the machine too. Exit status: the program's.
set -euo pipefail

[ $# -ge 2 ] || { echo "usage: scripts/vm.sh FOLDER PROGRAM [ARGUMENT...]" >&2; exit 2; }
folder=$1
shift
tools="sh bash ls cat sleep env grep sort id head tail mount umount mkdir setsid nohup stat tr seq true false dd kill ps nproc rm chmod chown ln touch mv cp test ip sed stty tty chroot mknod"

mkdir -p "$folder"
if [ ! -e "$folder/vmlinuz" ]; then
  package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ {print $2; exit}')
  [ -n "$package" ] || { echo "error: apt knows no linux-image-cloud-amd64" >&2; exit 1; }
  download=$(mktemp -d)
  trap 'rm -rf "$download"' EXIT
  (cd "$download" && apt-get -q download "$package" && dpkg-deb -x "$package"_*.deb .) >&2
  cp "$download"/boot/vmlinuz-* "$folder/vmlinuz"
  rm -rf "$download"
fi

root=$(mktemp -d "$folder/root.XXXXXX")
log=$(mktemp "$folder/log.XXXXXX")
trap 'rm -rf "$root" "$folder/initrd.$$" "$log"' EXIT
trap 'exit 143' TERM

# A file under its own name, and whatever it is linked to.
put() {
  local file
  [ ! -e "$root$1" ] || return 0
  mkdir -p "$root$(dirname "$1")"
  cp -L "$1" "$root$1"
  for file in $(ldd "$1" 2>/dev/null | grep -o '/[^ ]*' || true); do
    put "$file"
  done
}

chmod 755 "$root"
mkdir -p "$root"/{proc,sys,dev,tmp,run,root,etc,var,usr/bin,usr/sbin,usr/lib,usr/lib64,usr/local/bin}
for name in bin sbin lib lib64; do ln -s "usr/$name" "$root/$name"; done
for tool in $tools; do
  path=$(PATH=/usr/sbin:/usr/bin type -P "$tool") || { echo "error: $tool is missing" >&2; exit 1; }
  put "$(readlink -f "$path")"
  [ -e "$root/usr/bin/$tool" ] || ln -s "$(readlink -f "$path")" "$root/usr/bin/$tool"
done
for name in passwd group nsswitch.conf hosts; do cp "/etc/$name" "$root/etc/"; done
for library in /lib/x86_64-linux-gnu/libnss_files.so.2; do [ ! -e "$library" ] || put "$library"; done
for file in ${MEZZ_VM_FILES:-} "$1"; do
  put "$file"
  # Debugging symbols would only cost memory.
  strip --strip-debug "$root$file" 2>/dev/null || true
done

{
  cat <<'INIT'
#!/bin/sh
export PATH=/usr/local/bin:/usr/bin:/bin HOME=/root RUST_BACKTRACE=1
# A root that can be left by pivot_root, which the first one cannot.
if [ ! -d /again ]; then
  mkdir /again
  mount --bind / /again
  cd /again
  mount --move . /
  exec chroot . /init
fi
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t tmpfs -o mode=1777 tmp /tmp
ip link set lo up
cd /tmp
INIT
  printf '%q ' "$@"
  cat <<'INIT'

echo "mezz-vm-exit $?"
echo o >/proc/sysrq-trigger
sleep 60
INIT
} >"$root/init"
chmod +x "$root/init"
(cd "$root" && find . -print0 | cpio --null --quiet -o -H newc) >"$folder/initrd.$$"

# Seldom an emulated kernel stops for good, each processor waiting for the other with no program
# of ours at fault. It is told to panic then, after a minute, and that alone is tried again.
for attempt in 1 2 3; do
  # In this process group, so that what ends this script ends the machine.
  timeout --foreground "${MEZZ_VM_TIMEOUT:-900}" qemu-system-x86_64 \
    -machine q35 -accel tcg,thread=multi -cpu max -smp 2 -m "${MEZZ_VM_MEMORY:-3072}" \
    -nographic -no-reboot -nodefaults -serial stdio \
    -kernel "$folder/vmlinuz" -initrd "$folder/initrd.$$" \
    -append "console=ttyS0 quiet panic=-1 loglevel=4 random.trust_cpu=on watchdog_thresh=30 softlockup_panic=1" \
    </dev/null | tr -d '\r' | tee "$log" || true
  status=$(sed -n 's/^mezz-vm-exit //p' "$log" | tail -n 1)
  [ -z "$status" ] && grep -q 'Kernel panic - not syncing' "$log" || break
  echo "note: the kernel of the virtual machine panicked (attempt $attempt of 3)" >&2
done
[ -n "$status" ] || { echo "error: the virtual machine ended before the program did" >&2; exit 1; }
exit "$status"
