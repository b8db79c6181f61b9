#!/bin/bash
# Proves that the tree, as committed, works on a machine that nobody prepared: `make demo` and `make test`, each in a bare
# tree of its own with git, make and python3, from a fresh clone.
#
#   packaging/prove-fresh.sh [SUITE [TARGET...]]      default: bookworm demo test; SUITE: see bare-tree.sh
#
# What a target leaves in dist/ (`deb` does) is copied into this tree's: so packages are built for other distributions.
#
# Needs root and mmdebstrap (installed when missing). What belongs to this machine's network goes along, because a
# download would otherwise fail for a reason that is not the tree's: the CA bundle, resolver and hosts, proxies, and the settings
# of apt, pip and npm. Everything is made in a temporary folder and removed at the end; mounts live in a namespace that
# ends with the run.
set -euo pipefail

suite=${1:-bookworm}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- demo test

source=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
if [ "$(id -u)" -ne 0 ]; then
    echo "prove-fresh: it makes a Debian tree and runs it with chroot, and you are not root; hint: sudo $0" >&2
    exit 1
fi
[ -z "$(git -C "$source" status --porcelain)" ] || echo "prove-fresh: what is not committed is not proved" >&2

work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT
ca=/etc/ssl/certs/ca-certificates.crt
ca_inside=/etc/prove-fresh-ca.crt # not the usual place: installing ca-certificates would write over it

# --- A bare tree, once. ---

base=$work/base
echo "== a bare $suite: git, make, python3"
"$source/packaging/bare-tree.sh" "$suite" "$base" git,make,python3
cp /etc/resolv.conf /etc/hosts "$base/etc/"
[ ! -e $ca ] || cp $ca "$base$ca_inside"

keep() { # FILE: the host's, if it has one, at the same place
    [ ! -e "$1" ] || install -D -m 644 "$1" "$base$1"
}
keep /etc/pip.conf
keep /usr/etc/npmrc
keep /etc/npmrc
for file in .config/pip/pip.conf .pip/pip.conf .npmrc; do
    [ ! -e "$HOME/$file" ] || install -D -m 644 "$HOME/$file" "$base/root/$file"
done

# --- Each target in a copy of it. ---

environment=(HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8)
while IFS= read -r -d '' variable; do
    case ${variable%%=*} in
        PIP_CERT | PIP_FIND_LINKS | PIP_*INDEX_URL) ;; # the CA has its own place; folders do not exist inside
        PIP_* | NPM_CONFIG_* | npm_config_* | *_proxy | *_PROXY) environment+=("$variable") ;;
    esac
done < <(env -0)
if [ -e "$base$ca_inside" ]; then
    for name in PIP_CERT SSL_CERT_FILE REQUESTS_CA_BUNDLE NODE_EXTRA_CA_CERTS NPM_CONFIG_CAFILE GIT_SSL_CAINFO; do
        environment+=("$name=$ca_inside")
    done
fi

failed=0
for target in "$@"; do
    tree=$work/$target
    cp -a "$base" "$tree"
    git clone --quiet --no-hardlinks "$source" "$tree/root/data-mover"
    echo "== make $target, in a bare $suite"
    started=$SECONDS
    # shellcheck disable=SC2016 # the inner shell expands them
    # A PID namespace, so that whatever the target leaves running ends with it.
    if unshare --mount --pid --fork --kill-child env -i "${environment[@]}" /bin/bash -euc '
        mount --rbind /dev "$1/dev"
        mount -t proc proc "$1/proc"
        mount --rbind /sys "$1/sys"
        exec chroot "$1" make -C /root/data-mover "$2"' prove-fresh "$tree" "$target"; then
        echo "== make $target: passed in $((SECONDS - started)) s"
        if [ -d "$tree/root/data-mover/dist" ]; then
            mkdir -p "$source/dist"
            cp -t "$source/dist" "$tree"/root/data-mover/dist/*
        fi
    else
        echo "== make $target: FAILED after $((SECONDS - started)) s" >&2
        failed=1
    fi
    rm -rf --one-file-system "$tree"
done
exit $failed
