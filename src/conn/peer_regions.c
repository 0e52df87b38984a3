/* SPDX-License-Identifier: Apache-2.0 */
/* What a program asks about the regions that the peer offers. */
#include "conn.h"
#include "log.h"
#include "regions.h"
#include "sized.h"

#include <errno.h>
#include <string.h>

static const struct srdma_known_region *find_name(const struct srdma_regions *regions, const char *name)
{
	for (size_t i = 0; i < SRDMA_REGIONS_MAX; i++)
		if (regions->peer[i].state == SRDMA_PEER_REGION_KNOWN && strcmp(regions->peer[i].facts.name, name) == 0)
			return &regions->peer[i];
	return NULL;
}

const struct srdma_region_offer *srdma_regions_find_peer(const struct srdma_conn *conn, uint32_t id)
{
	for (size_t i = 0; conn->regions && i < SRDMA_REGIONS_MAX; i++)
		if (conn->regions->peer[i].state == SRDMA_PEER_REGION_KNOWN && conn->regions->peer[i].facts.id == id)
			return &conn->regions->peer[i].facts;
	return NULL;
}

static void describe(const struct srdma_region_offer *facts, struct srdma_peer_region *region, size_t size)
{
	struct srdma_peer_region full = {
		.id = facts->id, .access = facts->access, .length = facts->length, .address = facts->address, .rkey = facts->rkey};

	memcpy(full.name, facts->name, sizeof full.name);
	srdma_sized_fill(region, size, &full, sizeof full);
}

int srdma_regions_check_agreed(const struct srdma_conn *conn)
{
	return conn->regions ? 0 : srdma_conn_fail_unagreed(conn, SRDMA_FEATURE_REGIONS, "regions with names", "named_regions");
}

static bool is_found(const struct srdma_conn *conn)
{
	return find_name(conn->regions, conn->regions->awaited) || conn->closing.peer_requested || conn->closing.finished;
}

/* The frames come over the TLS channel, which a call that need not wait looks at, too. */
static int await(struct srdma_conn *conn, bool (*ready)(const struct srdma_conn *), const char *what, int timeout_ms)
{
	struct srdma_patience patience = srdma_conn_patience(conn, timeout_ms);

	return ready(conn) ? 0 : srdma_conn_wait_until(conn, ready, what, &patience);
}

int srdma_conn_find_region_sized(struct srdma_conn *conn, const char *name, int timeout_ms, struct srdma_peer_region *region, size_t size)
{
	int ret = srdma_regions_check_agreed(conn);

	if (ret != 0)
		return ret;
	if (!name || !name[0] || !srdma_region_name_is_valid(name))
		return srdma_fail(-EINVAL, "no region can have this name");
	memcpy(conn->regions->awaited, name, strlen(name) + 1); /* srdma_region_name_is_valid */
	ret = srdma_conn_check(conn);
	if (ret == 0)
		ret = await(conn, is_found, "the peer to offer the region", timeout_ms);
	if (ret != 0)
		return ret;
	if (!find_name(conn->regions, name))
		return srdma_conn_check(conn);
	describe(&find_name(conn->regions, name)->facts, region, size);
	return 0;
}

int srdma_conn_get_region_sized(struct srdma_conn *conn, uint32_t id, struct srdma_peer_region *region, size_t size)
{
	const struct srdma_region_offer *facts = srdma_regions_find_peer(conn, id);

	if (!facts)
		return srdma_fail(-ENXIO, "the peer offers no region %u, or has withdrawn it", id);
	describe(facts, region, size);
	return 0;
}

int srdma_conn_region_at_sized(struct srdma_conn *conn, size_t index, struct srdma_peer_region *region, size_t size)
{
	const struct srdma_known_region *next = NULL;
	uint64_t after = 0;

	for (size_t n = 0; conn->regions && n <= index; n++) {
		next = NULL;
		for (size_t i = 0; i < SRDMA_REGIONS_MAX; i++) {
			const struct srdma_known_region *known = &conn->regions->peer[i];

			if (known->state == SRDMA_PEER_REGION_KNOWN && known->order > after && (!next || known->order < next->order))
				next = known;
		}
		if (!next)
			break;
		after = next->order;
	}
	if (!next)
		return srdma_fail(-ENOENT, "the peer does not offer %zu region%s", index + 1, SRDMA_S(index + 1));
	describe(&next->facts, region, size);
	return 0;
}

static bool has_changed(const struct srdma_conn *conn)
{
	return conn->regions->changes != conn->regions->seen_changes || conn->closing.peer_requested || conn->closing.finished;
}

int srdma_conn_wait_regions(struct srdma_conn *conn, uint64_t *changes, int timeout_ms)
{
	int ret = srdma_regions_check_agreed(conn);

	if (ret != 0)
		return ret;
	conn->regions->seen_changes = *changes;
	ret = await(conn, has_changed, "the peer to offer or withdraw a region", timeout_ms);
	if (ret != 0)
		return ret;
	if (conn->regions->changes == *changes)
		return srdma_conn_check(conn);
	*changes = conn->regions->changes;
	return 0;
}
