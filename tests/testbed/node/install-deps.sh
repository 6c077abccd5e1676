#!/bin/sh
# Installs what real nodes need from the distribution, on Debian and its kin:
#
#   runc                        runs the containers
#   containernetworking-plugins gives pods their addresses (ptp, host-local, loopback, portmap)
#   iptables                    Service addresses (kube-proxy) and host ports
#   iproute2, util-linux        network namespaces and nsenter
#
# Idempotent: where nothing is missing, nothing is fetched and root is not
# needed. Fake nodes need none of this.
set -eu

missing=""
need() { # COMMAND-OR-FILE PACKAGE
    if ! command -v "$1" >/dev/null 2>&1 && [ ! -e "$1" ]; then
        missing="$missing $2"
    fi
}

PATH="$PATH:/usr/sbin:/sbin"
need runc runc
need /usr/lib/cni/ptp containernetworking-plugins
need iptables iptables
need ip iproute2
need nsenter util-linux

if [ -z "$missing" ]; then
    echo "real nodes: nothing is missing"
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "real nodes need these packages, and installing them needs root:$missing" >&2
    exit 1
fi
if ! command -v apt-get >/dev/null 2>&1; then
    echo "real nodes need these packages, and there is no apt-get to install them:$missing" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# shellcheck disable=SC2086 # a list of words on purpose
apt-get install -y -q --no-install-recommends $missing
