/* SPDX-License-Identifier: Apache-2.0 */
/* The regions that this end offers, and the frames of both ends about regions. peer_regions.c has the peer's. */
#include "regions.h"

#include "conn.h"
#include "log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define REMOTE_ACCESS (IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC)

int srdma_regions_start(struct srdma_conn *conn)
{
	conn->regions = calloc(1, sizeof *conn->regions);
	/* The peer may have sent some with READY. OpenSSL then holds them, and no descriptor announces them. */
	conn->control_more = true;
	conn->queues.notices = !conn->options.raw;
	return conn->regions ? 0 : srdma_fail(-ENOMEM, "out of memory");
}

void srdma_regions_release(struct srdma_conn *conn)
{
	for (size_t i = 0; conn->regions && i < SRDMA_REGIONS_MAX; i++)
		if (srdma_region_withdraw(&conn->regions->own[i].region) != 0)
			srdma_log(SRDMA_LOG_ERROR, "%s", srdma_error_text());
	free(conn->regions);
	conn->regions = NULL;
	srdma_leases_release(conn);
}

/* ---- frames ---------------------------------------------------------------------------------------------------- */

/* Neither during the end nor when the outbox has no room to spare. */
static bool may_send(const struct srdma_conn *conn)
{
	return !conn->closing.requested && !conn->closing.peer_answered && srdma_outbox_has_room(&conn->outbox);
}

static int send_own(struct srdma_conn *conn, struct srdma_own_region *own)
{
	bool offer = own->state == SRDMA_OFFER_NEW;
	uint8_t frame[SRDMA_FRAME_MAX];
	size_t length = offer ? srdma_region_offer_encode(frame, &own->facts)
			      : srdma_region_id_encode(frame, SRDMA_FRAME_REGION_WITHDRAW, own->facts.id);

	own->state = offer ? SRDMA_OFFER_TOLD : SRDMA_OFFER_UNCONFIRMED;
	return srdma_outbox_send(conn->tls, &conn->outbox, frame, length);
}

static bool is_used(const struct srdma_conn *conn, uint16_t id)
{
	return conn->sealed ? srdma_sealed_jobs_concern(&conn->sealed_rdma.jobs, id) : srdma_queues_uses_region(&conn->queues, id);
}

static int confirm(struct srdma_conn *conn, struct srdma_known_region *known)
{
	uint8_t frame[SRDMA_FRAME_MAX];

	known->state = SRDMA_PEER_REGION_NONE;
	return srdma_outbox_send(conn->tls, &conn->outbox, frame, srdma_region_id_encode(frame, SRDMA_FRAME_REGION_RELEASED, known->facts.id));
}

static int send_due(struct srdma_conn *conn)
{
	struct srdma_regions *regions = conn->regions;
	int ret = srdma_regions_take_bound(conn);

	regions->due = false;
	for (size_t i = 0; i < SRDMA_REGIONS_MAX && ret == 0; i++) {
		struct srdma_own_region *own = &regions->own[i];
		struct srdma_known_region *known = &regions->peer[i];
		bool own_due = own->state == SRDMA_OFFER_NEW || own->state == SRDMA_OFFER_WITHDRAWN;
		bool peer_due = known->state == SRDMA_PEER_REGION_WITHDRAWN;

		if (own->state == SRDMA_OFFER_UNBOUND && may_send(conn) && srdma_queues_can_bind(&conn->queues))
			ret = srdma_regions_post_bind(conn, own);
		if (own_due && may_send(conn))
			ret = send_own(conn, own);
		else if (own_due || own->state == SRDMA_OFFER_UNBOUND || srdma_own_region_is_binding(own))
			regions->due = true;
		if (ret == 0 && peer_due && may_send(conn) && !is_used(conn, known->facts.id))
			ret = confirm(conn, known);
		else if (peer_due)
			regions->due = true;
	}
	return ret;
}

int srdma_regions_step(struct srdma_conn *conn)
{
	int ret = conn->status == 0 ? srdma_leases_drop_released(conn) : 0;

	return ret == 0 && conn->status == 0 && conn->regions && conn->regions->due ? send_due(conn) : ret;
}

static int take_released(struct srdma_conn *conn, uint16_t id)
{
	for (size_t i = 0; i < SRDMA_REGIONS_MAX; i++) {
		struct srdma_own_region *own = &conn->regions->own[i];

		if (own->state == SRDMA_OFFER_UNCONFIRMED && own->facts.id == id) {
			own->state = SRDMA_OFFER_NONE;
			return 0;
		}
	}
	return srdma_fail(SRDMA_EPROTOCOL, "the peer confirms the withdrawal of a region that was not withdrawn");
}

static int take_offer(struct srdma_conn *conn, const struct srdma_region_offer *offer)
{
	struct srdma_regions *regions = conn->regions;
	struct srdma_known_region *free_one = NULL;

	if (conn->sealed && (offer->rkey != 0 || (offer->access & IBV_ACCESS_REMOTE_ATOMIC)))
		return srdma_fail(SRDMA_EPROTOCOL, "the peer offers a sealed region with an rkey, or for atomic operations");
	for (size_t i = 0; i < SRDMA_REGIONS_MAX; i++) {
		struct srdma_known_region *known = &regions->peer[i];

		if (known->state == SRDMA_PEER_REGION_NONE) {
			free_one = free_one ? free_one : known;
			continue;
		}
		if (known->facts.id == offer->id || (known->state == SRDMA_PEER_REGION_KNOWN && offer->name[0] && strcmp(known->facts.name, offer->name) == 0))
			return srdma_fail(SRDMA_EPROTOCOL, "the peer offers a region twice");
	}
	if (!free_one)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer offers more than %d regions", SRDMA_REGIONS_MAX);
	*free_one = (struct srdma_known_region){SRDMA_PEER_REGION_KNOWN, *offer, ++regions->changes};
	return 0;
}

static int take_withdrawal(struct srdma_conn *conn, uint16_t id)
{
	for (size_t i = 0; i < SRDMA_REGIONS_MAX; i++) {
		struct srdma_known_region *known = &conn->regions->peer[i];

		if (known->state == SRDMA_PEER_REGION_KNOWN && known->facts.id == id) {
			known->state = SRDMA_PEER_REGION_WITHDRAWN;
			conn->regions->changes++;
			conn->regions->due = true;
			return 0;
		}
	}
	return srdma_fail(SRDMA_EPROTOCOL, "the peer withdraws a region that it does not offer");
}

int srdma_regions_take_frame(struct srdma_conn *conn)
{
	enum srdma_frame_type type = conn->inbox.header.type;
	const uint8_t *body = srdma_inbox_body(&conn->inbox);
	struct srdma_region_offer offer;
	uint16_t id;
	int ret;

	if (!conn->regions)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent a frame of type %u, and the ends did not agree on regions with names", type);
	/* An end that has sent DISCONNECT may still take part in a renewal. */
	if (type == SRDMA_FRAME_REGION_KEYS)
		return srdma_regions_take_keys(conn);
	if (conn->closing.peer_requested || conn->closing.acknowledged)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent a frame of type %u after it had disconnected", type);
	if (type == SRDMA_FRAME_REGION_OFFER) {
		ret = srdma_region_offer_decode(body, conn->inbox.header.length, &offer);
		return ret == 0 ? take_offer(conn, &offer) : ret;
	}
	ret = srdma_region_id_decode(type, body, conn->inbox.header.length, &id);
	if (ret != 0)
		return ret;
	ret = type == SRDMA_FRAME_REGION_WITHDRAW ? take_withdrawal(conn, id) : take_released(conn, id);
	return ret == 0 ? srdma_regions_step(conn) : ret;
}

/* ---- what this end offers -------------------------------------------------------------------------------------- */

static struct srdma_own_region *find_own(const struct srdma_conn *conn, uint32_t id)
{
	for (size_t i = 0; conn->regions && i < SRDMA_REGIONS_MAX; i++) {
		struct srdma_own_region *own = &conn->regions->own[i];

		if (srdma_own_region_is_offered(own) && own->facts.id == id)
			return own;
	}
	return NULL;
}

const struct srdma_region *srdma_regions_find_own(const void *conn, uint16_t id)
{
	const struct srdma_own_region *own = find_own(conn, id);

	return own ? &own->region : NULL;
}

static int check_offer(const struct srdma_conn *conn, const struct srdma_memory *memory, uint64_t offset, uint64_t length, unsigned access,
		       const char *name)
{
	const struct ibv_device_attr *attr = srdma_device_attr(conn->device);

	if (!srdma_region_name_is_valid(name))
		return srdma_fail(-EINVAL, "a region's name has up to %d characters of printable ASCII", SRDMA_REGION_NAME_SIZE - 1);
	if (access == 0 || (access & ~(unsigned)REMOTE_ACCESS))
		return srdma_fail(-EINVAL, "access 0x%x gives the peer no right, or has other bits than remote write, read and atomic", access);
	if ((access & IBV_ACCESS_REMOTE_ATOMIC) && (conn->sealed || attr->atomic_cap == IBV_ATOMIC_NONE))
		return srdma_fail(-EOPNOTSUPP, "cannot offer a region for atomic operations: %s",
				  conn->sealed ? "the connection is sealed, and the device that executes them has no key" : "the device has none");
	if (length == 0 || offset > memory->source.length || length > memory->source.length - offset)
		return srdma_fail(-ERANGE, "cannot offer %llu byte%s at offset %llu of a memory of %zu", (unsigned long long)length, SRDMA_S(length),
				  (unsigned long long)offset, memory->source.length);
	if (access & ~memory->access)
		return srdma_fail(-EACCES, "the memory was registered with access 0x%x, which does not allow 0x%x", memory->access, access);
	return 0;
}

/* Finds a free place and a number that neither end knows. */
static int choose_place(struct srdma_regions *regions, const char *name, struct srdma_own_region **out)
{
	bool taken = true;

	*out = NULL;
	for (size_t i = 0; i < SRDMA_REGIONS_MAX; i++) {
		struct srdma_own_region *own = &regions->own[i];

		if (own->state == SRDMA_OFFER_NONE)
			*out = own;
		else if (srdma_own_region_is_offered(own) && name[0] && strcmp(own->facts.name, name) == 0)
			return srdma_fail(-EEXIST, "this end offers a region of the name '%s' already", name);
	}
	if (!*out)
		return srdma_fail(-ENOSPC, "this end offers %d regions, or the peer has not confirmed earlier withdrawals yet", SRDMA_REGIONS_MAX);
	while (taken) {
		taken = ++regions->last_id == 0;
		for (size_t i = 0; i < SRDMA_REGIONS_MAX && !taken; i++)
			taken = regions->own[i].state != SRDMA_OFFER_NONE && regions->own[i].facts.id == regions->last_id;
	}
	return 0;
}

static int make_region(struct srdma_conn *conn, const struct srdma_memory *memory, uint64_t offset, uint64_t length, unsigned access,
		       struct srdma_region *out)
{
	if (!conn->sealed)
		return srdma_region_grant(conn->pd, &memory->source, offset, length, access, srdma_regions_use_windows(conn), out);
	*out = (struct srdma_region){.address = (char *)memory->source.address + offset, .size = length, .rights = access};
	return 0;
}

/* Sends what is due. A bind is over at once where nothing is before it; else an event of the device tells of it. */
static int tell(struct srdma_conn *conn)
{
	int ret = srdma_regions_step(conn);

	if (ret != 0)
		return srdma_conn_end(conn, ret);
	if (srdma_regions_are_binding(conn, NULL))
		srdma_conn_progress_binds(conn);
	if (srdma_regions_are_binding(conn, NULL)) {
		srdma_conn_arm(conn);
		/* A completion before the arming raises no event. */
		srdma_conn_progress_binds(conn);
	}
	srdma_conn_watch_control(conn);
	return conn->status == 0 ? 0 : srdma_conn_check(conn);
}

int srdma_conn_offer(struct srdma_conn *conn, struct srdma_memory *memory, uint64_t offset, uint64_t length, unsigned access, const char *name,
		     uint32_t *id)
{
	struct srdma_own_region *own;
	struct srdma_lease *lease;
	struct srdma_region region;
	int ret;

	name = name ? name : "";
	ret = srdma_regions_check_agreed(conn);
	if (ret == 0)
		ret = srdma_conn_check(conn);
	if (ret == 0)
		ret = check_offer(conn, memory, offset, length, access, name);
	if (ret == 0)
		ret = choose_place(conn->regions, name, &own);
	if (ret == 0)
		ret = srdma_lease_get(conn, memory, &lease);
	if (ret == 0)
		ret = make_region(conn, memory, offset, length, access, &region);
	if (ret != 0)
		return ret;
	*own = (struct srdma_own_region){
		.state = region.windowed ? SRDMA_OFFER_UNBOUND : SRDMA_OFFER_NEW, .region = region, .lease = lease};
	own->facts = (struct srdma_region_offer){.id = conn->regions->last_id,
						 .access = (uint16_t)access,
						 .rkey = srdma_region_rkey(&region),
						 .address = region.base,
						 .length = length};
	strcpy(own->facts.name, name); /* srdma_region_name_is_valid */
	*id = own->facts.id;
	conn->regions->due = true;
	return tell(conn);
}

static int withdraw(struct srdma_conn *conn, struct srdma_own_region *own)
{
	bool told = own->state == SRDMA_OFFER_TOLD;

	conn->regions->due = true;
	/* The send queue still has the window and the memory region. */
	if (srdma_own_region_is_binding(own) && conn->status == 0 && !conn->queues.stopped) {
		own->state = SRDMA_OFFER_DROPPED;
		return 0;
	}
	own->state = told ? SRDMA_OFFER_WITHDRAWN : SRDMA_OFFER_NONE;
	own->lease = NULL;
	/* Another thread may be at a chunk of the region. */
	srdma_sealed_rdma_settle(&conn->sealed_rdma);
	return srdma_region_withdraw(&own->region);
}

int srdma_regions_withdraw_of(struct srdma_conn *conn, const struct srdma_lease *lease)
{
	int ret = 0;

	for (size_t i = 0; conn->regions && i < SRDMA_REGIONS_MAX; i++) {
		struct srdma_own_region *own = &conn->regions->own[i];

		if (own->state != SRDMA_OFFER_NONE && own->lease == lease) {
			int failed = withdraw(conn, own);

			ret = ret == 0 ? failed : ret;
		}
	}
	return ret == 0 && conn->status == 0 && conn->regions && conn->regions->due ? send_due(conn) : ret;
}

int srdma_conn_withdraw(struct srdma_conn *conn, uint32_t id)
{
	struct srdma_own_region *own = find_own(conn, id);
	int ret = srdma_conn_check(conn);

	if (ret != 0)
		return ret;
	if (!own)
		return srdma_fail(-ENXIO, "this end offers no region %u, or has withdrawn it before", id);
	ret = withdraw(conn, own);
	if (ret == 0)
		ret = srdma_regions_step(conn);
	srdma_conn_watch_control(conn);
	return ret == 0 ? 0 : srdma_conn_end(conn, ret);
}

int srdma_regions_check_resume(const struct srdma_conn *conn)
{
	for (size_t i = 0; conn->regions && i < SRDMA_REGIONS_MAX; i++) {
		const struct srdma_known_region *known = &conn->regions->peer[i];

		if (known->state == SRDMA_PEER_REGION_WITHDRAWN && is_used(conn, known->facts.id))
			return srdma_fail(-ENXIO, "the peer has withdrawn the region '%s' while a request of this end was under way in it", known->facts.name);
	}
	return 0;
}
