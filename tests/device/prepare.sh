#!/bin/sh
# prepare.sh - what `make test-devices` needs beyond the development environment, once, in FOLDER.
#
#   prepare.sh FOLDER
#
# FOLDER/arm64: the root file system of a board, with the engines' wheels of this environment.
# FOLDER/board.img: the same as a disk; FOLDER/kernel: Debian's kernel for it and five modules.
# FOLDER/vela: Arm's compiler for its accelerators, in an environment of its own.
# Needs root for Debian's packages and for unpacking them. $PYTHON: the environment's Python.
set -eu
folder=${1:?usage: prepare.sh FOLDER} here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
vela='ethos-u-vela==5.2.0'
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

[ "$(id -u)" = 0 ] || { echo "prepare.sh: Debian's packages and their files need root" >&2; exit 3; }
packages=
need() { command -v "$1" >/dev/null || packages="$packages $2"; }
PATH=$PATH:/usr/sbin:/sbin
need qemu-aarch64-static qemu-user-static
need mmdebstrap mmdebstrap
need qemu-system-aarch64 qemu-system-arm
need mke2fs e2fsprogs
need cpio cpio
need depmod kmod
if [ -n "$packages" ]; then
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        $packages >/dev/null
fi

wheels=$("$python" -c 'from importlib.metadata import version
print(*(f"{name}=={version(name)}" for name in ("numpy", "ai-edge-litert", "onnxruntime")))')
made="$wheels $(cksum <"$here/../../edgeq/devices/make_rootfs.sh")"
if [ ! -d "$folder/arm64" ] || [ "$(cat "$folder/made" 2>/dev/null)" != "$made" ]; then
    rm -rf "$folder/arm64" "$folder/board.img"
    # shellcheck disable=SC2086
    PYTHON=$python sh "$here/../../edgeq/devices/make_rootfs.sh" "$folder/arm64" $wheels
    printf '%s\n' "$made" >"$folder/made"
fi

if [ "$(cat "$folder/vela/made" 2>/dev/null)" != "$vela" ]; then
    rm -rf "$folder/vela"
    "$python" -m venv "$folder/vela"
    "$folder/vela/bin/pip" install --quiet --disable-pip-version-check "$vela"
    printf '%s\n' "$vela" >"$folder/vela/made"
fi

if [ ! -e "$folder/board.img" ]; then
    size=$(($(du -sm "$folder/arm64" | cut -f1) * 5 / 4 + 100))
    rm -f "$folder/board.part"
    truncate -s ${size}M "$folder/board.part"
    mke2fs -q -t ext4 -O ^has_journal -E root_owner=0:0 -d "$folder/arm64" "$folder/board.part"
    mv "$folder/board.part" "$folder/board.img"
fi

# Debian's own kernel for boards, by this machine's sources; lists of its own, nothing installed.
if [ ! -e "$folder/kernel/vmlinuz" ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work/lists/partial" "$work/deb"
    apt="apt-get -qq -oAPT::Architecture=arm64 -oAPT::Architectures=arm64
        -oDir::State::Lists=$work/lists -oAPT::Sandbox::User=$(id -un)"
    # shellcheck disable=SC2086
    (cd "$work/deb" && $apt update && $apt download linux-image-arm64 &&
        $apt download "$(dpkg-deb -f linux-image-arm64_*.deb Depends | sed 's/[ ,(].*//')") >&2
    rm "$work"/deb/linux-image-arm64_*.deb
    dpkg-deb -x "$work"/deb/linux-image-*.deb "$work/x"
    version=$(ls "$work/x/lib/modules")
    depmod -b "$work/x" "$version"
    rm -rf "$folder/kernel"
    mkdir -p "$folder/kernel/modules"
    for module in virtio_mmio virtio_blk ext4; do
        modprobe -d "$work/x" -S "$version" --show-depends $module
    done | awk '$1 == "insmod" && !seen[$2]++ {print $2}' | while read -r file; do
        cp "$file" "$folder/kernel/modules/"
        basename "$file" >>"$folder/kernel/order"
    done
    mv "$work"/x/boot/vmlinuz-* "$folder/kernel/vmlinuz"
fi
