#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# UCX in sid: no transport over verbs.
#
# Guess: Debian's UCX has rc_verbs and ud_verbs, as in Debian 12 and 13, since its packages are there for RDMA.
# True:  the module libuct_ib is not in the package, nor in another one. UCX finds no RDMA device whatever there is, and Open MPI
#        and MPICH run over TCP without a word. The settings of the module are unknown names to it.
# Version: libucx0 1.23.0~rc1-1 of sid, 2026-11-29; 1.18.1 of Debian 13 has the module.
#
# Output seen:
#   modules: libuct_cma.so libuct_rdmacm.so libuct_xpmem.so
#   settings with _IB_ or _RC_ in the name: 0
. "$(dirname "$0")/lib/root.sh"
unpack sid libucx0=1.23.0~rc1-1 ucx-utils=1.23.0~rc1-1
modules=$(find "$t/root/usr/lib" -path '*/ucx/libuct_*' -name 'libuct_*.so' -printf '%f\n' | sort | tr '\n' ' ')
echo "modules: $modules"
settings=$(chroot "$t/root" /usr/bin/ucx_info -c 2>/dev/null | grep -cE '_(IB|RC)_' || true)
echo "settings with _IB_ or _RC_ in the name: $settings"
case $modules in *libuct_ib*) exit 1 ;; esac
[ "$settings" -eq 0 ]
