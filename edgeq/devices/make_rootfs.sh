#!/bin/sh
# make_rootfs.sh - a Debian of another processor in a folder, with Python and wheels, in a minute.
#
#   make_rootfs.sh DIR WHEEL...          as in: make_rootfs.sh arm64 ai-edge-litert==2.3.0
#
# What edgeq.devices.emulated runs programs in. Packages are only unpacked (mmdebstrap's variant
# "extract"): nothing of the other processor runs, so no emulator is needed here. Wheels lie in
# DIR/opt/site. Needs root, the package mmdebstrap, apt's sources and a Python with pip: $PYTHON,
# or python3. The folder comes into being whole or not at all.
set -eu
arch=arm64 machine=aarch64
[ $# -ge 2 ] || { echo "usage: make_rootfs.sh DIR WHEEL..." >&2; exit 2; }
final=$1
shift
[ ! -e "$final" ] || { echo "make_rootfs.sh: $final exists" >&2; exit 2; }
command -v mmdebstrap >/dev/null || { echo "make_rootfs.sh: mmdebstrap is missing" >&2; exit 3; }

# This machine's own Debian, from where it has its own packages.
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
source=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT)' \
    'Created-By: Packages' | awk -v s="$suite" '$2 == s && $3 == "main" {print $1; exit}')
[ -n "$source" ] || {
    echo "make_rootfs.sh: no source of $suite main (apt-get update?)" >&2
    exit 3
}

dir=$final.part
trap 'rm -rf "$dir"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
rm -rf "$dir"
mkdir -p "$(dirname "$dir")"
mmdebstrap --quiet --mode=root --architectures=$arch --variant=extract --skip=check/qemu \
    --dpkgopt='path-exclude=/usr/share/*' \
    --include=base-files,dash,coreutils,python3,libstdc++6,libgomp1,busybox-static \
    "$suite" "$dir" "deb $source $suite main"

# What is mounted or looked for there; scripts of the packages never ran.
mkdir -p "$dir/opt/site" "$dir/opt/edgeq/edgeq_runtime" "$dir/job" "$dir/root" \
    "$dir/proc" "$dir/sys" "$dir/dev" "$dir/tmp"
[ -e "$dir/bin/sh" ] || ln -s dash "$dir/bin/sh"
echo 'root:x:0:0:root:/root:/bin/sh' >"$dir/etc/passwd"

version=$(ls "$dir/usr/bin" | sed -n 's/^python\(3\.[0-9]*\)$/\1/p' | head -n 1)
platforms="--platform manylinux2014_$machine"
for glibc in 17 24 26 27 28 31 34 35 36; do
    platforms="$platforms --platform manylinux_2_${glibc}_$machine"
done
# shellcheck disable=SC2086
"${PYTHON:-python3}" -m pip install --quiet --disable-pip-version-check --no-compile \
    --only-binary=:all: --implementation cp --python-version "$version" \
    --abi "cp$(echo "$version" | tr -d .)" --abi abi3 --abi none \
    $platforms --target "$dir/opt/site" "$@"
mv "$dir" "$final"
