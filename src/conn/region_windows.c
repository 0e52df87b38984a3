/* SPDX-License-Identifier: Apache-2.0 */
/* The memory windows of the regions with names: their rkeys work over the present queue pair alone. A window is bound by a work request
 * on the queue pair that is in use, and anew in each renewal, whose REGION_KEYS tells the peer the new rkeys. */
#include "conn.h"
#include "device.h"
#include "log.h"
#include "regions.h"

_Static_assert(SRDMA_BINDS_MAX >= SRDMA_REGIONS_MAX, "each region may be bound at once");


/* The work requests of a raw connection are the program's, and its queue pair has no epochs. A peer that cannot take new rkeys needs those
 * that stay. */
bool srdma_regions_use_windows(const struct srdma_conn *conn)
{
	if (conn->options.raw || conn->sealed || !srdma_device_has_windows(conn->device))
		return false;
	return !conn->epoch.agreed || (conn->own.features & conn->peer.features & SRDMA_FEATURE_REGION_KEYS) != 0;
}

static int drop(struct srdma_own_region *own)
{
	own->state = SRDMA_OFFER_NONE;
	own->lease = NULL;
	return srdma_region_withdraw(&own->region);
}

/* The window is there: the peer may learn of the region. */
static void take_window(struct srdma_own_region *own)
{
	own->facts.rkey = srdma_region_rkey(&own->region);
	if (own->state == SRDMA_OFFER_UNBOUND || own->state == SRDMA_OFFER_BINDING)
		own->state = SRDMA_OFFER_NEW;
}

int srdma_regions_post_bind(struct srdma_conn *conn, struct srdma_own_region *own)
{
	struct ibv_send_wr wr;
	int ret = srdma_region_prepare_bind(&own->region, &wr);

	if (ret == 0)
		ret = srdma_queues_post_bind(&conn->queues, &wr);
	if (ret != 0)
		return ret;
	own->state = SRDMA_OFFER_BINDING;
	own->bind = conn->queues.binds_posted;
	return 0;
}

int srdma_regions_take_bound(struct srdma_conn *conn)
{
	int ret = 0;

	for (size_t i = 0; i < SRDMA_REGIONS_MAX && ret == 0; i++) {
		struct srdma_own_region *own = &conn->regions->own[i];

		if (!srdma_own_region_is_binding(own) || conn->queues.binds_done < own->bind)
			continue;
		if (own->state == SRDMA_OFFER_DROPPED)
			ret = drop(own);
		else
			take_window(own);
	}
	return ret;
}

bool srdma_regions_are_binding(const struct srdma_conn *conn, const struct srdma_lease *lease)
{
	for (size_t i = 0; conn->regions && i < SRDMA_REGIONS_MAX; i++) {
		const struct srdma_own_region *own = &conn->regions->own[i];

		if (srdma_own_region_is_binding(own) && (!lease || own->lease == lease))
			return !conn->queues.stopped;
	}
	return false;
}

/* ---- renewal --------------------------------------------------------------------------------------------------- */

int srdma_regions_unbind(struct srdma_conn *conn)
{
	int ret = 0;

	for (size_t i = 0; conn->regions && i < SRDMA_REGIONS_MAX; i++) {
		int failed = srdma_region_unbind(&conn->regions->own[i].region);

		ret = ret == 0 ? failed : ret;
	}
	return ret;
}

int srdma_regions_bind_again(struct srdma_conn *conn)
{
	int ret = 0;

	for (size_t i = 0; conn->regions && i < SRDMA_REGIONS_MAX && ret == 0; i++) {
		struct srdma_own_region *own = &conn->regions->own[i];
		uint32_t rkey;

		if (own->state == SRDMA_OFFER_DROPPED) {
			ret = drop(own);
		} else if (own->region.windowed) {
			ret = srdma_region_bind(&own->region, conn->qp.verbs, &rkey);
			if (ret == 0)
				take_window(own);
		}
	}
	return ret;
}

/* The keys of the regions that the peer knows, by growing ids. */
static size_t collect_keys(const struct srdma_conn *conn, struct srdma_region_key *keys)
{
	size_t count = 0, at;

	for (size_t i = 0; i < SRDMA_REGIONS_MAX; i++) {
		const struct srdma_own_region *own = &conn->regions->own[i];

		if (own->state != SRDMA_OFFER_TOLD || !own->region.windowed)
			continue;
		for (at = count++; at > 0 && keys[at - 1].id > own->facts.id; at--)
			keys[at] = keys[at - 1];
		keys[at] = (struct srdma_region_key){own->facts.id, own->facts.rkey};
	}
	return count;
}

int srdma_regions_send_keys(struct srdma_conn *conn)
{
	struct srdma_region_key keys[SRDMA_REGIONS_MAX];
	uint8_t frame[SRDMA_FRAME_MAX];
	size_t count = conn->regions ? collect_keys(conn, keys) : 0;

	return count == 0 ? 0 : srdma_outbox_send(conn->tls, &conn->outbox, frame, srdma_region_keys_encode(frame, keys, count));
}

/* ---- the peer's ------------------------------------------------------------------------------------------------ */

static struct srdma_known_region *find_known(const struct srdma_conn *conn, uint16_t id)
{
	for (size_t i = 0; i < SRDMA_REGIONS_MAX; i++) {
		struct srdma_known_region *known = &conn->regions->peer[i];

		if (known->state == SRDMA_PEER_REGION_KNOWN && known->facts.id == id)
			return known;
	}
	return NULL;
}

int srdma_regions_take_keys(struct srdma_conn *conn)
{
	struct srdma_region_key keys[SRDMA_REGIONS_MAX];
	size_t count = 0;
	int ret = srdma_region_keys_decode(srdma_inbox_body(&conn->inbox), conn->inbox.header.length, keys, &count);

	if (ret == 0 && !(conn->own.features & conn->peer.features & SRDMA_FEATURE_REGION_KEYS))
		ret = srdma_fail(SRDMA_EPROTOCOL, "the peer sent REGION_KEYS, and the ends did not agree on it");
	if (ret == 0)
		ret = srdma_epoch_take_keys(conn);
	for (size_t i = 0; i < count && ret == 0; i++) {
		struct srdma_known_region *known = find_known(conn, keys[i].id);

		if (!known)
			return srdma_fail(SRDMA_EPROTOCOL, "the peer sent a new rkey of the region %u, which it does not offer", keys[i].id);
		known->facts.rkey = keys[i].rkey;
		srdma_queues_change_rkey(&conn->queues, keys[i].id, keys[i].rkey);
	}
	return ret;
}
