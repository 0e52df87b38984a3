#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# UCX in sid: no transport over verbs.
#
# Guess: Debian's UCX has rc_verbs and ud_verbs, as in Debian 12 and 13, since its packages are there for RDMA.
# True:  the modules libuct_ib and libuct_rdmacm are not in the package, and UCX knows none of their settings. What runs over it
#        takes another transport.
# Version: libucx0 1.23.0~rc1-1 of sid; 1.18.1 of Debian 13 has libuct_ib, libuct_ib_mlx5 and libuct_rdmacm, and 154 such settings.
#
# Output seen:
#   modules: libuct_cma.so.0 libuct_rocm.so.0 libuct_ze.so.0
#   settings: some; with _IB_ or _RC_ in the name: 0
. "$(dirname "$0")/lib/root.sh"
unpack sid libucx0=1.23.0~rc1-1 ucx-utils=1.23.0~rc1-1
modules=$(find "$t/root/usr/lib" -path '*/ucx/libuct_*' -name '*.so.0' -printf '%f\n' | sort | tr '\n' ' ')
echo "modules: ${modules% }"
# ucx_info wants the machine's boot id.
mkdir -p "$t/root/proc/sys/kernel/random"
cp /proc/sys/kernel/random/boot_id "$t/root/proc/sys/kernel/random/"
chroot "$t/root" /usr/bin/ucx_info -c >"$t/settings" 2>&1 || { cat "$t/settings"; exit 1; }
settings=$(grep -c '^UCX_' "$t/settings") || { cat "$t/settings"; exit 1; }
verbs=$(grep -cE '_(IB|RC)_' "$t/settings" || true)
[ "$settings" -gt 100 ] && settings=some
echo "settings: $settings; with _IB_ or _RC_ in the name: $verbs"
[ "$modules" = "libuct_cma.so.0 libuct_rocm.so.0 libuct_ze.so.0 " ] && [ "$settings" = some ] && [ "$verbs" -eq 0 ]
