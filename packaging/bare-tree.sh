#!/bin/bash
# Makes the bare tree of a distribution, with some packages in it.
#
#   packaging/bare-tree.sh SUITE FOLDER PACKAGE[,PACKAGE...]      SUITE: bookworm, trixie; noble, resolute
#
# Needs root and mmdebstrap (installed when missing). The tree's apt has this machine's proxies, if there are any.
set -euo pipefail

suite=$1 folder=$2 packages=$3
"$(dirname "$0")/apt-install.sh" mmdebstrap
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work" # apt reads in it as a user of its own
words=(--quiet --variant=minbase --include="apt,$packages" --aptopt="$work/apt-proxy")
apt-config dump | grep -i '^Acquire::.*proxy' >"$work/apt-proxy" || true
sources=()
case $suite in
    noble | resolute)
        # Debian has no package of Ubuntu's keys: it comes from Ubuntu, and is the one whose hash is written here.
        "$(dirname "$0")/apt-install.sh" curl
        archive=http://archive.ubuntu.com/ubuntu
        curl --fail --silent --show-error --output "$work/keys.deb" \
            $archive/pool/main/u/ubuntu-keyring/ubuntu-keyring_2023.11.28.1_all.deb
        echo "36de43b15853ccae0028e9a767613770c704833f82586f28eb262f0311adb8a8  $work/keys.deb" | sha256sum --check --quiet
        dpkg-deb --extract "$work/keys.deb" "$work/keys"
        words+=(--keyring="$work/keys/usr/share/keyrings/ubuntu-archive-keyring.gpg")
        for pocket in "$suite" "$suite-updates" "$suite-security"; do
            sources+=("deb $archive $pocket main universe")
        done
        ;;
esac
mmdebstrap "${words[@]}" "$suite" "$folder" "${sources[@]}"
