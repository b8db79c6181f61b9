#!/bin/sh
# OpenSSH's server for the tests, which run one of their own on loopback: where it was not installed before, the system's service
# stays masked, so that a machine does not begin to listen because somebody ran `make test`.
set -eu
[ ! -x /usr/sbin/sshd ] || exit 0
root=
[ "$(id -u)" = 0 ] || root=sudo
for unit in ssh.service ssh.socket; do
    [ -e "/etc/systemd/system/$unit" ] || $root ln -s /dev/null "/etc/systemd/system/$unit" 2>/dev/null || true
done
exec "$(dirname "$0")/apt-install.sh" openssh-server
