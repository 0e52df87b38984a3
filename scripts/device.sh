# shellcheck shell=sh
# Sourced by the scripts that use an RDMA device where there is one.

active_device() {
    for state in /sys/class/infiniband/*/ports/*/state; do
        [ -r "$state" ] && grep -q ACTIVE "$state" && return 0
    done
    return 1
}
