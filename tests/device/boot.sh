#!/bin/sh
# boot.sh - boot a virtual board, run JOB/main.py there as the only program, print its console.
#
#   boot.sh FOLDER CPU JOB [SECONDS]
#
# FOLDER is prepare.sh's, CPU a name of QEMU's (cortex-a76), JOB a folder that is /job there.
# One core, one nanosecond of virtual time per instruction (-icount): times that main.py takes are
# counts of instructions, the same whatever this machine is busy with, and no estimate of a board's
# time: there are no caches, no pipeline, no clock. Nothing is written back; there is no network.
set -eu
folder=$(cd "${1:?}" && pwd) cpu=${2:?} job=${3:?} limit=${4:-240}
PATH=$PATH:/usr/sbin:/sbin
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

mkdir -p "$work/i/bin" "$work/i/m" "$work/i/proc" "$work/i/sys" "$work/i/dev" "$work/i/new"
cp "$folder/arm64/bin/busybox" "$work/i/bin/" 2>/dev/null ||
    cp "$folder/arm64/usr/bin/busybox" "$work/i/bin/"
cp "$folder"/kernel/modules/* "$work/i/m/"
cp "$folder/kernel/order" "$work/i/order"
cat >"$work/i/init" <<'X2'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t devtmpfs dev /dev; $b mount -t sysfs sys /sys
while read -r m; do $b insmod /m/$m; done </order
n=0; while [ ! -b /dev/vdb ] && [ $n -lt 100 ]; do $b sleep 0.1; n=$((n+1)); done
root=vda job=vdb  # which comes first is up to QEMU
$b mount -o ro -t ext4 /dev/$root /new
[ -d /new/job ] || { $b umount /new; root=vdb job=vda; $b mount -o ro -t ext4 /dev/$root /new; }
$b mount -o ro -t ext4 /dev/$job /new/job
$b mount --move /proc /new/proc; $b mount --move /sys /new/sys; $b mount --move /dev /new/dev
$b mount -t tmpfs tmp /new/tmp
PYTHONPATH=/opt/site HOME=/tmp PATH=/usr/bin:/bin $b chroot /new /usr/bin/python3 /job/main.py
echo "STATUS $?"
$b poweroff -f
X2
chmod +x "$work/i/init"
(cd "$work/i" && find . | cpio -o -H newc --quiet) | gzip -1 >"$work/initrd"
truncate -s $(($(du -sm "$job" | cut -f1) * 5 / 4 + 8))M "$work/job.img"
mke2fs -q -t ext4 -O ^has_journal -E root_owner=0:0 -d "$job" "$work/job.img"

timeout "$limit" qemu-system-aarch64 -M virt -cpu "$cpu" -smp 1 -m 1024 \
    -accel tcg,thread=single -icount shift=0 -kernel "$folder/kernel/vmlinuz" \
    -initrd "$work/initrd" -append 'console=ttyAMA0 quiet loglevel=3 panic=-1' \
    -drive "file=$folder/board.img,format=raw,if=none,id=d0,snapshot=on" \
    -device virtio-blk-device,drive=d0 \
    -drive "file=$work/job.img,format=raw,if=none,id=d1,snapshot=on" \
    -device virtio-blk-device,drive=d1 \
    -display none -serial stdio -monitor none -nic none -no-reboot </dev/null
