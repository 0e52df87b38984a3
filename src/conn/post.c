/* SPDX-License-Identifier: Apache-2.0 */
/* Requests of several pieces of a program's own memory. */
#include "conn.h"
#include "log.h"
#include "regions.h"
#include "sized.h"

#include <arpa/inet.h>
#include <errno.h>

#define ATOMIC_SIZE 8u

SRDMA_DEFAULTS(srdma_piece)
SRDMA_DEFAULTS(srdma_request)

/* A request that is being checked, with what it leads to. */
struct posting {
	struct srdma_request request;
	struct srdma_piece pieces[SRDMA_PIECES_MAX];
	struct srdma_lease *leases[SRDMA_PIECES_MAX];
	uint64_t length;
	struct srdma_region_offer target;
};

static bool is_write(const struct srdma_request *r)
{
	return r->kind == SRDMA_REQUEST_WRITE || r->kind == SRDMA_REQUEST_WRITE_NOTIFY;
}

static bool is_atomic(const struct srdma_request *r)
{
	return r->kind == SRDMA_REQUEST_FETCH_ADD || r->kind == SRDMA_REQUEST_COMPARE_SWAP;
}

static const char *verb(const struct srdma_request *r)
{
	return is_write(r) ? "write" : is_atomic(r) ? "do an atomic operation on" : "read";
}

/* ---- what the program gave ------------------------------------------------------------------------------------- */

static int check_kind(const struct srdma_conn *conn, const struct srdma_request *r)
{
	if ((unsigned)r->kind > SRDMA_REQUEST_COMPARE_SWAP)
		return srdma_fail(-EINVAL, "a request of unknown kind %d", (int)r->kind);
	if (is_atomic(r) && conn->sealed)
		return srdma_fail(-EOPNOTSUPP, "a sealed connection has no atomic operations: the peer's device would execute them, and has no key");
	if (is_atomic(r) && srdma_device_attr(conn->device)->atomic_cap == IBV_ATOMIC_NONE)
		return srdma_fail(-EOPNOTSUPP, "%s has no atomic operations", srdma_device_name(conn->device));
	return 0;
}

static size_t most_pieces(const struct srdma_conn *conn)
{
	return conn->sealed ? conn->queues.rdma_depth : conn->queues.pieces_most;
}

static int take_pieces(const struct srdma_conn *conn, struct posting *p)
{
	const struct srdma_request *r = &p->request;

	if (r->piece_count > SRDMA_PIECES_MAX || r->piece_count > most_pieces(conn))
		return srdma_fail(-E2BIG, "a request of %zu pieces is too much; %zu are possible here", r->piece_count,
				  most_pieces(conn) < SRDMA_PIECES_MAX ? most_pieces(conn) : (size_t)SRDMA_PIECES_MAX);
	if (!r->pieces && r->piece_count > 0)
		return srdma_fail(-EINVAL, "pieces is NULL, and piece_count is %zu", r->piece_count);
	for (size_t i = 0; i < r->piece_count; i++) {
		int ret = SRDMA_SIZED_TAKE(srdma_piece, length, srdma_sized_element(r->pieces, i), &p->pieces[i]);

		if (ret != 0)
			return ret;
		if (!p->pieces[i].memory)
			return srdma_fail(-EINVAL, "piece %zu has no memory", i);
		if (p->pieces[i].length > UINT64_MAX - p->length)
			return srdma_fail(-ERANGE, "the pieces are longer than any memory");
		p->length += p->pieces[i].length;
	}
	if (is_atomic(r) && (r->piece_count != 1 || p->length != ATOMIC_SIZE))
		return srdma_fail(-EINVAL, "an atomic operation needs exactly one piece, of %u bytes", ATOMIC_SIZE);
	return 0;
}

static int check_pieces(struct srdma_conn *conn, struct posting *p)
{
	for (size_t i = 0; i < p->request.piece_count; i++) {
		const struct srdma_piece *piece = &p->pieces[i];
		const struct srdma_memory *memory = piece->memory;
		int ret;

		if (piece->offset > memory->source.length || piece->length > memory->source.length - piece->offset)
			return srdma_fail(-ERANGE, "piece %zu, %llu byte%s at offset %llu, lies outside of its memory of %zu", i,
					  (unsigned long long)piece->length, SRDMA_S(piece->length), (unsigned long long)piece->offset,
					  memory->source.length);
		if (!is_write(&p->request) && !(memory->access & IBV_ACCESS_LOCAL_WRITE))
			return srdma_fail(-EACCES, "piece %zu is to take what is read, and its memory was registered without local write", i);
		ret = srdma_lease_get(conn, piece->memory, &p->leases[i]);
		if (ret != 0)
			return ret;
	}
	return 0;
}

/* ---- where it goes --------------------------------------------------------------------------------------------- */

static int find_target(struct srdma_conn *conn, struct posting *p)
{
	const struct srdma_hello *peer = &conn->peer;
	const struct srdma_region_offer *named = srdma_regions_find_peer(conn, p->request.region);

	if (p->request.region == 0 && peer->region_size > 0)
		p->target = (struct srdma_region_offer){.access = (uint16_t)peer->region_access, .address = peer->region_address, .length = peer->region_size};
	else if (named)
		p->target = *named;
	else
		return srdma_fail(-ENXIO, "cannot %s: the peer offers no region %u, or has withdrawn it", verb(&p->request), p->request.region);
	return 0;
}

static int check_target(struct srdma_conn *conn, struct posting *p)
{
	const struct srdma_request *r = &p->request;
	unsigned right = is_write(r) ? IBV_ACCESS_REMOTE_WRITE : is_atomic(r) ? IBV_ACCESS_REMOTE_ATOMIC : IBV_ACCESS_REMOTE_READ;
	int ret = find_target(conn, p);

	if (ret != 0)
		return ret;
	if (!(p->target.access & right) || (!is_write(r) && conn->peer.rd_responder == 0))
		return srdma_fail(-EACCES, "cannot %s: the peer's region %u does not allow it", verb(r), r->region);
	if (r->offset > p->target.length || p->length > p->target.length - r->offset)
		return srdma_fail(-ERANGE, "cannot %s %llu byte%s at offset %llu: the peer's region %u has %llu", verb(r), (unsigned long long)p->length,
				  SRDMA_S(p->length), (unsigned long long)r->offset, r->region, (unsigned long long)p->target.length);
	if (is_atomic(r) && (p->target.address + r->offset) % ATOMIC_SIZE != 0)
		return srdma_fail(-EINVAL, "an atomic operation needs a place that is aligned to %u bytes", ATOMIC_SIZE);
	return 0;
}

/* ---- posting --------------------------------------------------------------------------------------------------- */

static bool can_post(const struct srdma_conn *conn)
{
	const struct srdma_queues *queues = &conn->queues;

	if (conn->waits_for_credit && !srdma_queues_has_credit(queues))
		return false;
	if (conn->sealed)
		return queues->rdma_queued + conn->waited_jobs <= queues->rdma_depth;
	return srdma_queues_can_post_rdma(queues, conn->waited_length);
}

static int await_room(struct srdma_conn *conn, const struct posting *p)
{
	struct srdma_patience none = {0};

	conn->waited_length = conn->sealed ? 0 : (uint32_t)p->length;
	conn->waited_jobs = p->request.piece_count > 0 ? (uint32_t)p->request.piece_count : 1;
	conn->waits_for_credit = p->request.kind == SRDMA_REQUEST_WRITE_NOTIFY;
	/* A look at the completions may make room. */
	return can_post(conn) ? 0 : srdma_conn_wait_until(conn, can_post, "room for the request", &none);
}

static int post_plain(struct srdma_conn *conn, const struct posting *p)
{
	static const enum srdma_op_atomic atomics[] = {
		[SRDMA_REQUEST_FETCH_ADD] = SRDMA_ATOMIC_FETCH_ADD, [SRDMA_REQUEST_COMPARE_SWAP] = SRDMA_ATOMIC_COMPARE_SWAP};
	const struct srdma_request *r = &p->request;
	struct ibv_sge pieces[SRDMA_PIECES_MAX];
	struct srdma_op op = {
		.kind = r->kind == SRDMA_REQUEST_WRITE_NOTIFY ? SRDMA_OP_NOTICE : SRDMA_OP_POSTED,
		.write = is_write(r),
		.atomic = atomics[r->kind],
		.region = p->target.id,
		.rkey = p->target.rkey,
		.imm = htonl(r->notice),
		.length = (uint32_t)p->length,
		.remote = p->target.address + r->offset,
		.cookie = r->cookie,
		.operand = r->operand,
		.compare = r->compare,
	};
	int ret;

	for (size_t i = 0; i < r->piece_count; i++) {
		ret = srdma_lease_register(p->leases[i]);

		if (ret != 0)
			return ret;
		/* A device may take a length of 0 for 2^31. */
		if (p->pieces[i].length > 0)
			pieces[op.pieces++] = (struct ibv_sge){.addr = p->leases[i]->region.base + p->pieces[i].offset,
							       .length = (uint32_t)p->pieces[i].length,
							       .lkey = p->leases[i]->region.mr->lkey};
	}
	ret = srdma_queues_post_pieces(&conn->queues, &op, pieces);
	return ret == 0 ? 0 : srdma_conn_end(conn, ret);
}

/* One job for each piece; the last one stands for all. */
static int post_sealed(struct srdma_conn *conn, const struct posting *p)
{
	const struct srdma_request *r = &p->request;
	size_t count = r->piece_count > 0 ? r->piece_count : 1;
	uint64_t offset = r->offset;
	int ret = 0;

	for (size_t i = 0; i < count && ret == 0; i++) {
		struct srdma_sealed_job job = {.write = is_write(r), .part = i + 1 < count, .region = p->target.id, .offset = offset, .cookie = r->cookie};

		if (r->piece_count > 0) {
			job.local = (char *)p->leases[i]->memory->source.address + p->pieces[i].offset;
			job.length = p->pieces[i].length;
			job.owner = p->leases[i];
		}
		job.notify = r->kind == SRDMA_REQUEST_WRITE_NOTIFY && !job.part;
		job.notice = r->notice;
		job.notice_length = p->length;
		offset += job.length;
		ret = srdma_sealed_rdma_post(&conn->sealed_rdma, &job);
	}
	if (ret != 0)
		return srdma_conn_end(conn, ret);
	if (r->kind == SRDMA_REQUEST_WRITE_NOTIFY)
		conn->queues.credits_kept++;
	/* A later failure concerns more than this request, so the next call returns it. */
	srdma_conn_push(conn);
	return 0;
}

int srdma_conn_post(struct srdma_conn *conn, const struct srdma_request *given)
{
	struct posting p = {0};
	int ret = SRDMA_SIZED_TAKE(srdma_request, compare, given, &p.request);

	if (ret == 0 && conn->options.raw)
		ret = srdma_fail(-EOPNOTSUPP, "a raw connection has no requests of its own; post them to its queue pair");
	if (ret == 0)
		ret = srdma_regions_check_agreed(conn);
	if (ret == 0)
		ret = srdma_conn_check(conn);
	if (ret == 0)
		ret = check_kind(conn, &p.request);
	if (ret == 0)
		ret = take_pieces(conn, &p);
	if (ret == 0)
		ret = check_target(conn, &p);
	if (ret == 0)
		ret = check_pieces(conn, &p);
	if (ret == 0 && !conn->sealed)
		ret = srdma_conn_check_length(conn, p.length);
	if (ret == 0)
		ret = await_room(conn, &p);
	/* The peer may have withdrawn the region meanwhile. */
	if (ret == 0)
		ret = check_target(conn, &p);
	if (ret == 0)
		ret = conn->sealed ? post_sealed(conn, &p) : post_plain(conn, &p);
	if (ret == 0 && !is_atomic(&p.request))
		srdma_counter_add(is_write(&p.request) ? &conn->queues.counters.bytes_written : &conn->queues.counters.bytes_read, p.length);
	return ret;
}
