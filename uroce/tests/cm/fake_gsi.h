/* SPDX-License-Identifier: Apache-2.0 */
/* Instead of gsi.c: messages between connection managers of one process, in simulated time, on a link that loses, delays, repeats and
 * overtakes by a seed. */
#ifndef UROCE_TESTS_FAKE_GSI_H
#define UROCE_TESTS_FAKE_GSI_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cm.h"

enum { FAKE_NODES = 2, FAKE_DELAY_NS = 100000 };
#ifndef FAKE_FLIGHTS
#define FAKE_FLIGHTS 4096 /* messages under way; more are lost */
#endif

struct gsi {
	struct device *device;
	gsi_take *take;
	void *arg;
	uint32_t prefix;
	union ibv_gid gid;
};

static struct {
	struct gsi node[FAKE_NODES];
	unsigned nodes;
	struct flight {
		uint64_t at; /* 0: free */
		struct gsi *to;
		struct gsi_path path; /* as the receiver sees it */
		uint8_t bytes[MAD_BYTES];
	} flight[FAKE_FLIGHTS];
	unsigned loss; /* of 100 */
	unsigned repeat;
	uint64_t jitter;
	uint64_t seed;
	unsigned sent;
	uint32_t gone; /* the prefix of a process that has ended */
	bool far;      /* they are on two hosts */
	bool refuses;  /* no process of the other one has the port */
	unsigned knocks;
	const struct gsi *silent; /* gets nothing */
} fake;

static inline unsigned fake_random(unsigned below)
{
	fake.seed = fake.seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
	return below == 0 ? 0 : (unsigned)(fake.seed >> 33) % below;
}

static inline struct gsi *fake_node(struct device *device)
{
	struct gsi *gsi = &fake.node[fake.nodes++];

	*gsi = (struct gsi){.device = device, .prefix = fake.nodes << GSI_NUMBER_BITS};
	gsi->gid.raw[15] = (uint8_t)fake.nodes;
	device->gsi = gsi;
	return gsi;
}

static inline void fake_fly(struct gsi *to, const struct gsi_path *path, const uint8_t *bytes)
{
	for (unsigned i = 0; i < FAKE_FLIGHTS; i++) {
		struct flight *flight = &fake.flight[i];
		if (flight->at != 0)
			continue;
		flight->at = to->device->now + FAKE_DELAY_NS + fake_random((unsigned)fake.jitter);
		flight->to = to;
		flight->path = (struct gsi_path){.own = path->peer, .peer = path->own, .hop_limit = 64};
		memcpy(flight->bytes, bytes, MAD_BYTES);
		return;
	}
}

void gsi_send(struct gsi *gsi, const struct gsi_path *path, const struct mad *mad)
{
	uint8_t bytes[MAD_BYTES];

	(void)gsi;
	fake.sent++;
	mad_encode(mad, bytes);
	for (unsigned i = 0; i < fake.nodes; i++) {
		if (memcmp(&fake.node[i].gid, &path->peer, sizeof path->peer) != 0 || &fake.node[i] == fake.silent)
			continue;
		for (unsigned copies = fake_random(100) < fake.repeat ? 2 : 1; copies > 0; copies--)
			if (fake_random(100) >= fake.loss)
				fake_fly(&fake.node[i], path, bytes);
	}
}

int gsi_start(struct gsi *gsi, gsi_take *take, void *arg)
{
	gsi->take = take;
	gsi->arg = arg;
	return 0;
}

uint32_t gsi_prefix(const struct gsi *gsi)
{
	return gsi->prefix;
}

bool gsi_is_near(const struct gsi *gsi, const union ibv_gid *peer)
{
	(void)gsi;
	(void)peer;
	return !fake.far;
}

int gsi_knock(const struct gsi *gsi, const struct gsi_path *path)
{
	(void)gsi;
	(void)path;
	fake.knocks++;
	return 1001;
}

bool gsi_is_refused(int fd)
{
	return fd == 1001 && fake.refuses;
}

void gsi_end_knock(int *fd)
{
	*fd = -1;
}

bool gsi_has_left(const struct gsi *gsi, uint32_t id)
{
	(void)gsi;
	return id >> GSI_NUMBER_BITS == fake.gone >> GSI_NUMBER_BITS;
}

int gsi_listen(struct gsi *gsi, const struct gsi_name *name, struct gsi_service *out)
{
	(void)gsi;
	(void)name;
	out->fd = 1000;
	return 0;
}

void gsi_unlisten(struct gsi *gsi, struct gsi_service *service)
{
	(void)gsi;
	service->fd = -1;
}

/* The next thing that happens, not after `end`: false if nothing does. */
static inline bool fake_step(uint64_t end)
{
	struct flight *first = NULL;
	uint64_t at = UINT64_MAX;

	for (unsigned i = 0; i < FAKE_FLIGHTS; i++)
		if (fake.flight[i].at != 0 && fake.flight[i].at < at) {
			first = &fake.flight[i];
			at = first->at;
		}
	for (unsigned i = 0; i < fake.nodes; i++) {
		uint64_t due = timers_next(&fake.node[i].device->timers);
		if (due < at) {
			first = NULL;
			at = due;
		}
	}
	if (at > end)
		return false;
	for (unsigned i = 0; i < fake.nodes; i++)
		if (fake.node[i].device->now < at)
			fake.node[i].device->now = at;
	if (first) {
		struct flight now = *first;
		struct mad mad;
		first->at = 0;
		if (mad_decode(now.bytes, sizeof now.bytes, &mad) == 0)
			now.to->take(now.to->arg, &mad, &now.path);
		return true;
	}
	for (unsigned i = 0; i < fake.nodes; i++)
		timers_run(&fake.node[i].device->timers, at);
	return true;
}

#endif
