/* SPDX-License-Identifier: Apache-2.0 */
#include "block.h"

#include <errno.h>

#include "random.h"

enum { DRAWS = 32 };

#define CARRIER_NET 0x7f5b0000u /* 127.91.0.0/16 */

struct in_addr block_carrier(unsigned block)
{
	return (struct in_addr){ .s_addr = htonl(CARRIER_NET | block) };
}

struct in_addr block_source(unsigned block, unsigned gid_index)
{
	return block_carrier(block | gid_index * BLOCK_COUNT);
}

unsigned block_of_source(struct in_addr address, unsigned *gid_index)
{
	uint32_t host = ntohl(address.s_addr);
	unsigned block = host % BLOCK_COUNT;

	*gid_index = (host & 0xffff) / BLOCK_COUNT;
	if ((host & 0xffff0000u) != CARRIER_NET || *gid_index >= BLOCK_GIDS || block < BLOCK_FIRST || block > BLOCK_LAST)
		return 0;
	return block;
}

int block_choose(int (*claim)(void *arg, unsigned block), void *arg, unsigned *out)
{
	const unsigned count = BLOCK_LAST - BLOCK_FIRST + 1;
	uint32_t draw = 0;

	/* At random while there is much room, then one after the other, so that the last free one is found. */
	for (unsigned i = 0; i < DRAWS + count; i++) {
		if (i <= DRAWS && random_u32(&draw) != 0)
			return -EIO;
		unsigned block = BLOCK_FIRST + (i <= DRAWS ? draw % count : (draw % count + i - DRAWS) % count);
		int error = claim(arg, block);
		if (error == 0)
			*out = block;
		if (error != -EADDRINUSE)
			return error;
	}
	return -ENOSPC;
}
