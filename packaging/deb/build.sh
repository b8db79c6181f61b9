#!/bin/bash
# Builds the Debian package of the committed tree for the distribution that it runs on, with that one's Python.
#
#   packaging/deb/build.sh [FOLDER]        default: dist; prints the package's path
#
# Everything of ours is under /opt/data-mover: the locked wheels, hash-checked, and the tree. Nothing is downloaded when it is
# installed. Two builds of a commit on one distribution are equal byte for byte: times are the commit's, order is sorted, and
# bytecode is compiled once, with the hash of its source instead of a time.
set -euo pipefail
umask 022
export LC_ALL=C TZ=UTC PYTHONHASHSEED=0

here=$(cd "$(dirname "$0")" && pwd)
source=$(git -C "$here" rev-parse --show-toplevel)
out=$(mkdir -p "${1:-$source/dist}" && cd "${1:-$source/dist}" && pwd)
python=/usr/bin/python3
"$source/packaging/apt-install.sh" python3 python3-venv python3-dev gcc pkg-config libsystemd-dev dpkg-dev >&2

SOURCE_DATE_EPOCH=$(git -C "$source" log -1 --format=%ct)
export SOURCE_DATE_EPOCH
[ -z "$(git -C "$source" status --porcelain)" ] || echo "build: what is not committed is not in the package" >&2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

git -C "$source" archive --prefix=tree/ HEAD | tar -x -C "$work"
tree=$work/tree
base=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$tree/pyproject.toml" | head -n 1)
# shellcheck source=/dev/null
distribution=$(. /etc/os-release && echo "$ID$VERSION_ID")
version="$base+$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d%H%M%S).$(git -C "$source" rev-parse --short=9 HEAD)~$distribution"
architecture=$(dpkg --print-architecture)
next=$($python -c 'import sys; print(f"3.{sys.version_info[1] + 1}")')
this=$($python -c 'import sys; print(f"3.{sys.version_info[1]}")')

# --- What we ship. ---

stage=$work/stage
lib=$stage/opt/data-mover/lib
locks=$tree/packaging/requirements
mkdir -p "$lib"
$python -m venv "$work/venv"
pip() {
    "$work/venv/bin/python" -m pip --disable-pip-version-check --quiet --quiet "$@"
}
pip install --require-hashes -r "$locks/build.txt"
# What has no wheel is compiled in a folder whose name is in no binary.
CFLAGS="-ffile-prefix-map=$work=." pip install --require-hashes --no-build-isolation --no-compile --no-cache-dir \
    --target "$lib" -r "$locks/systemd.txt"
pip install --no-deps --no-build-isolation --no-compile --target "$work/ours" "$tree"
cp -r "$work/ours/." "$lib/"
find "$lib" -name RECORD -exec sed -i '\|^\(\.\./\)*bin/|d' {} + # programs of others name this build's folder: they are left out
rm -rf "$lib/bin"
find "$lib" -path '*.dist-info/*' \( -name direct_url.json -o -name REQUESTED -o -name RECORD -path '*/data_mover-*' \) -delete
"$work/venv/bin/python" "$here/bill.py" "$lib" "$locks/systemd.txt" "$version" "$stage/usr/share/doc/data-mover"
$python -m compileall -q -s "$stage" -p / --invalidation-mode unchecked-hash "$lib" >/dev/null || true # templates of others are no Python

install -D -m 755 "$tree/packaging/deb/launcher" "$stage/usr/bin/data-mover"
install -m 755 "$tree/packaging/deb/launcher" "$stage/usr/bin/data-mover-agent"
install -D -m 755 "$tree/packaging/deb/running-copy" "$stage/opt/data-mover/bin/running-copy"
install -m 755 "$tree/packaging/deb/parser" "$stage/opt/data-mover/bin/parser"
install -D -m 644 -t "$stage/usr/lib/systemd/system" "$tree"/packaging/deb/units/*
install -D -m 644 "$tree/packaging/deb/sysusers" "$stage/usr/lib/sysusers.d/data-mover.conf"
install -D -m 644 "$tree/packaging/deb/tmpfiles" "$stage/usr/lib/tmpfiles.d/data-mover.conf"
install -D -m 644 "$tree/packaging/deb/upgrades" "$stage/etc/apt/apt.conf.d/60data-mover-upgrades"
install -D -m 644 "$tree/packaging/deb/needrestart" "$stage/etc/needrestart/conf.d/data-mover.conf"
install -D -m 755 "$tree/cloud-init/first-boot" "$stage/opt/data-mover/share/cloud-init/first-boot"
install -m 644 "$tree/cloud-init/user-data.tmpl" "$stage/opt/data-mover/share/cloud-init/user-data.tmpl"
install -D -m 644 "$tree/LICENSE" "$stage/usr/share/doc/data-mover/copyright"
install -m 644 -t "$stage/usr/share/doc/data-mover" "$tree/README.md" "$tree/CHANGELOG.md"
cp -r "$tree/docs" "$stage/usr/share/doc/data-mover/docs"
$python -I -c "import sys; sys.path.insert(0, '$lib'); from agent.daemon import main; main(['--print-config'])" \
    >"$work/agent.toml"
sed 's|^#seal_key = ""$|seal_key = "/var/lib/data-mover/seal.pem"|' "$work/agent.toml" >"$work/packaged.toml"
install -D -m 644 "$work/packaged.toml" "$stage/usr/share/data-mover/agent.toml"

# --- The package. ---

mkdir "$stage/DEBIAN"
for script in postinst prerm postrm; do
    install -m 755 "$tree/packaging/deb/$script" "$stage/DEBIAN/$script"
done
cat >"$stage/DEBIAN/conffiles" <<EOF
/etc/apt/apt.conf.d/60data-mover-upgrades
/etc/needrestart/conf.d/data-mover.conf
EOF
cat >"$stage/DEBIAN/control" <<EOF
Package: data-mover
Version: $version
Architecture: $architecture
Maintainer: The data-mover team <data-mover@localhost>
Installed-Size: $(find "$stage" -type f -printf '%s\n' | awk '{ sum += int(($1 + 1023) / 1024) } END { print sum }')
Depends: python3 (>= $this), python3 (<< $next~), libsystemd0, systemd (>= 252), ca-certificates
Recommends: unattended-upgrades
Section: admin
Priority: optional
Homepage: https://pypi.org/project/data-mover/
Description: backup worker for Microsoft Azure
 Takes commands from a queue, moves disks and databases between Azure resources and
 deduplicated repositories, and restores them.
EOF
find "$stage" -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} +
package=$out/data-mover_${version}_$architecture.deb
dpkg-deb --root-owner-group -Zxz -z6 --build "$stage" "$package" >&2
echo "$package"
