/* SPDX-License-Identifier: Apache-2.0 */
#include "link.h"

static bool dead_ready(struct link *link)
{
	(void)link;
	return false;
}

static bool dead_send(struct link *link, const struct packet_out *packet)
{
	(void)link;
	(void)packet;
	return true;
}

static void dead_flush(struct link *link)
{
	(void)link;
}

static const struct link_ops dead_ops = {.ready = dead_ready, .send = dead_send, .flush = dead_flush};
struct link link_dead = {.ops = &dead_ops};
