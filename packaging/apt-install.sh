#!/bin/sh
# Installs the Debian or Ubuntu packages named as arguments, but only those that are missing: a tree that has
# them all is not touched, needs no root and no network. `apt-get update` runs once, and only when the package lists do not
# know what is missing.
set -eu

missing=
for package in "$@"; do
    case $(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true) in
        installed) ;;
        *) missing="$missing $package" ;;
    esac
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "apt-install: missing system packages:$missing; there is no apt-get here." >&2
    echo "hint: install what your system calls these packages; only Debian and Ubuntu are supported." >&2
    exit 1
fi
as_root=
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "apt-install: missing system packages:$missing; you are not root and there is no sudo." >&2
        echo "hint: run as root: apt-get install$missing" >&2
        exit 1
    fi
    as_root=sudo
fi

# Split on purpose: a list of package names.
# shellcheck disable=SC2086
set -- $missing
echo "apt-install: installing$missing"
install() {
    # Progress is of no interest; what goes wrong is on standard error.
    $as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install --quiet=2 --yes --no-install-recommends -o DPkg::Lock::Timeout=300 "$@" >/dev/null
}
# Lists that are absent (a bare tree) or stale (404 on an old version) are the two reasons why the first attempt may
# fail, and an update mends both.
if ! apt-get install --simulate --no-install-recommends "$@" >/dev/null 2>&1 || ! install "$@"; then
    $as_root apt-get update --quiet=2
    if ! install "$@"; then
        echo "apt-install: apt-get could not install:$missing" >&2
        echo "hint: apt-get's own message above says why; check the package sources and the network." >&2
        exit 1
    fi
fi
