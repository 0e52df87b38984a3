#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# libibverbs: ibv_rate_to_mult has no answer for 25, 50, 100, 200 and 14 Gb/s, and "400 Gb/s" is 425000 Mb/s.
#
# Guess: mult is the rate in units of 2.5 Gb/s, so 100 Gb/s is 40, and ibv_rate_to_mbps(IBV_RATE_400_GBPS) is 400000.
# True:  the enumerators up to 120 Gb/s of 2003 have a multiple; 14, 25, 50, 56, 100, 112, 168, 200 and 300 give -1, which
#        mult_to_ibv_rate turns into 0, IBV_RATE_MAX: "no limit". Those of 28 Gb/s and above that are multiples have one again. In
#        Mb/s each enumerator is the signalling rate: 100 Gb/s is 103125, 400 Gb/s 425000, 800 Gb/s 850000.
# Version: libibverbs 44.0 of Debian 12.
#
# Output seen:
#   10 Gb/s: mult 4, back 3 (itself 3), 10000 Mb/s
#   25 Gb/s: mult -1, back 0 (itself 15), 25781 Mb/s
#   100 Gb/s: mult -1, back 0 (itself 16), 103125 Mb/s
#   200 Gb/s: mult -1, back 0 (itself 17), 206250 Mb/s
#   400 Gb/s: mult 160, back 21 (itself 21), 425000 Mb/s
. "$(dirname "$0")/lib/root.sh"
unpack bookworm gcc libc6-dev libibverbs-dev=44.0-2
cat >"$t/root/tmp/try.c" <<'END'
#include <infiniband/verbs.h>
#include <stdio.h>

int main(void)
{
	const struct { int gbps; enum ibv_rate rate; int mult, mbps; } cases[] = {
		{10, IBV_RATE_10_GBPS, 4, 10000}, {25, IBV_RATE_25_GBPS, -1, 25781}, {100, IBV_RATE_100_GBPS, -1, 103125},
		{200, IBV_RATE_200_GBPS, -1, 206250}, {400, IBV_RATE_400_GBPS, 160, 425000},
	};
	int changed = 0;

	for (unsigned int i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int mult = ibv_rate_to_mult(cases[i].rate), mbps = ibv_rate_to_mbps(cases[i].rate);
		int back = (int)mult_to_ibv_rate(mult);

		printf("%d Gb/s: mult %d, back %d (itself %d), %d Mb/s\n", cases[i].gbps, mult, back, (int)cases[i].rate, mbps);
		changed |= mult != cases[i].mult || mbps != cases[i].mbps || (mult == -1 && back != IBV_RATE_MAX);
	}
	return changed;
}
END
chroot "$t/root" gcc -o /tmp/try /tmp/try.c -libverbs
echo "libibverbs 44.0-2"
chroot "$t/root" /tmp/try
