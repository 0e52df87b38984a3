/* SPDX-License-Identifier: Apache-2.0 */
/* RDMA write to and RDMA read from the region that the peer offers. */
#include "conn.h"
#include "log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct srdma_buffer {
	struct srdma_region region;
	struct srdma_conn *conn; /* NULL: the connection is deleted */
	struct srdma_buffer *next, *previous; /* in the connection's list */
};

static int make_buffer(struct srdma_conn *conn, void *memory, size_t size, int access, struct srdma_buffer **out)
{
	struct srdma_buffer *buffer;
	int ret;

	if (size == 0)
		return srdma_fail(-EINVAL, "cannot make a buffer of 0 bytes");
	buffer = calloc(1, sizeof *buffer);
	if (!buffer)
		return srdma_fail(-ENOMEM, "out of memory");
	if (conn->sealed && memory) {
		/* The sealer reads and writes it; the device does not need it registered. */
		buffer->region = (struct srdma_region){.address = memory, .size = size};
		ret = 0;
	} else if (conn->sealed) {
		ret = srdma_region_private(size, &buffer->region);
	} else {
		ret = memory ? srdma_region_register(conn->pd, memory, size, access, &buffer->region)
			     : srdma_region_new(conn->pd, size, access, &buffer->region);
	}
	if (ret != 0) {
		free(buffer);
		return ret;
	}
	buffer->conn = conn;
	buffer->next = conn->buffers;
	if (buffer->next)
		buffer->next->previous = buffer;
	conn->buffers = buffer;
	*out = buffer;
	return 0;
}

int srdma_buffer_new(struct srdma_conn *conn, void *memory, size_t size, struct srdma_buffer **out)
{
	return make_buffer(conn, memory, size, IBV_ACCESS_LOCAL_WRITE, out);
}

int srdma_buffer_lend(struct srdma_conn *conn, const void *memory, size_t size, struct srdma_buffer **out)
{
	return make_buffer(conn, (void *)(uintptr_t)memory, size, 0, out);
}

static void leave_connection(struct srdma_buffer *buffer)
{
	if (buffer->previous)
		buffer->previous->next = buffer->next;
	else
		buffer->conn->buffers = buffer->next;
	if (buffer->next)
		buffer->next->previous = buffer->previous;
	buffer->conn = NULL;
	buffer->next = buffer->previous = NULL;
}

void srdma_conn_let_buffers_go(struct srdma_conn *conn)
{
	while (conn->buffers) {
		struct srdma_buffer *buffer = conn->buffers;

		if (srdma_region_withdraw(&buffer->region) != 0)
			srdma_log(SRDMA_LOG_ERROR, "%s", srdma_error_text());
		leave_connection(buffer);
	}
}

static bool is_in_use(const struct srdma_buffer *buffer)
{
	const struct srdma_conn *conn = buffer->conn;

	return conn->sealed ? srdma_sealed_jobs_use(&conn->sealed_rdma.jobs, buffer) : srdma_queues_uses(&conn->queues, buffer->region.mr->lkey);
}

void srdma_buffer_free(struct srdma_buffer **out)
{
	struct srdma_buffer *buffer = *out;

	*out = NULL;
	if (!buffer)
		return;
	/* A request that is under way would go on using its memory. */
	if (buffer->conn && buffer->conn->status == 0 && is_in_use(buffer))
		srdma_conn_end(buffer->conn, srdma_fail(-EINVAL, "the program deleted a buffer while a write or read of it was under way"));
	if (buffer->conn)
		leave_connection(buffer);
	srdma_region_release(&buffer->region);
	free(buffer);
}

void *srdma_buffer_data(struct srdma_buffer *buffer)
{
	return buffer->region.address;
}

#define RAW_IS_YOURS "a raw connection has no writes and reads of its own; post them to its queue pair"

/* Makes every check that does not need the device. */
static int check_request(struct srdma_conn *conn, bool write, size_t length, uint64_t offset)
{
	const struct srdma_hello *peer = &conn->peer;
	uint32_t needed = write ? IBV_ACCESS_REMOTE_WRITE : IBV_ACCESS_REMOTE_READ;
	const char *verb = write ? "write" : "read";

	if (conn->options.raw)
		return srdma_fail(-EOPNOTSUPP, RAW_IS_YOURS);
	int ret = srdma_conn_check(conn);
	if (ret != 0)
		return ret;
	if (peer->region_size == 0)
		return srdma_fail(-ENXIO, "cannot %s: the peer %s", verb,
				  conn->region_withdrawn ? "has taken its region back" : "offers no region (region-size)");
	if (!(peer->region_access & needed) || (!write && peer->rd_responder == 0))
		return srdma_fail(-EACCES, "cannot %s: the peer's region does not allow it (region-access)", verb);
	if (offset > peer->region_size || length > peer->region_size - offset)
		return srdma_fail(-ERANGE, "cannot %s %zu byte%s at offset %llu: the peer's region has %llu byte%s", verb,
				  length, SRDMA_S(length), (unsigned long long)offset, (unsigned long long)peer->region_size,
				  SRDMA_S(peer->region_size));
	return 0;
}

struct request {
	bool write;
	uint64_t local;
	uint32_t lkey;
	size_t length;
	uint64_t offset;
	enum srdma_op_kind kind;
	uint64_t cookie;
	bool copy; /* small enough to go inline: `local` need not be registered */
	const struct srdma_buffer *buffer; /* NULL: a call's own memory */
};

static int post_sealed(struct srdma_conn *conn, const struct request *r)
{
	struct srdma_sealed_job job = {
		.write = r->write,
		.waited = r->kind == SRDMA_OP_WAITED,
		.local = (char *)(uintptr_t)r->local,
		.length = r->length,
		.offset = r->offset,
		.cookie = r->cookie,
		.owner = r->buffer,
	};
	int ret = srdma_sealed_rdma_post(&conn->sealed_rdma, &job);

	/* A later failure concerns more than this request, so the next call returns it. */
	if (ret == 0)
		srdma_conn_push(conn);
	return ret;
}

static int post_plain(struct srdma_conn *conn, const struct request *r)
{
	struct srdma_op op = {
		.kind = r->kind,
		.write = r->write,
		.is_inline = r->copy && r->length > 0,
		.local = r->local,
		.lkey = r->lkey,
		.length = (uint32_t)r->length,
		.remote = conn->peer.region_address + r->offset,
		.cookie = r->cookie,
	};

	return srdma_queues_post_rdma(&conn->queues, &op);
}

static int post(struct srdma_conn *conn, const struct request *r)
{
	int ret = conn->sealed ? post_sealed(conn, r) : post_plain(conn, r);

	if (ret != 0)
		return srdma_conn_end(conn, ret);
	srdma_counter_add(r->write ? &conn->queues.counters.bytes_written : &conn->queues.counters.bytes_read, r->length);
	return 0;
}

/* The longest plain request: limited by the device, and to a part of an epoch's PSNs. */
static size_t longest(const struct srdma_conn *conn)
{
	uint64_t device = srdma_device_port_attr(conn->device)->max_msg_sz;
	uint64_t psns = conn->queues.psn_limit == UINT64_MAX ? device : conn->queues.psn_limit / 4 * conn->queues.mtu;

	return (size_t)(psns < device ? psns : device);
}

#define AWAITS_ROOM "earlier writes and reads to complete, or the renewal of the queue pair to end"

static const char *why_longest(const struct srdma_conn *conn, char *text, size_t size)
{
	uint64_t device = srdma_device_port_attr(conn->device)->max_msg_sz;
	size_t most = longest(conn);

	if (most == device)
		snprintf(text, size, "%s takes at most %zu", srdma_device_name(conn->device), most);
	else
		snprintf(text, size, "an epoch of %llu PSNs has room for %zu at most (epoch-psns)",
			 (unsigned long long)conn->queues.psn_limit, most);
	return text;
}

int srdma_conn_check_length(const struct srdma_conn *conn, uint64_t length)
{
	char text[128];

	if (length <= longest(conn))
		return 0;
	return srdma_fail(-EMSGSIZE, "cannot post %llu bytes in one request: %s; post several shorter ones", (unsigned long long)length,
			  why_longest(conn, text, sizeof text));
}

static bool can_post_rdma(const struct srdma_conn *conn)
{
	return srdma_conn_can_post(conn, conn->waited_length);
}

bool srdma_conn_can_post(const struct srdma_conn *conn, size_t length)
{
	return conn->sealed ? conn->queues.rdma_queued < conn->queues.rdma_depth : srdma_queues_can_post_rdma(&conn->queues, (uint32_t)length);
}

static int post_buffer(struct srdma_conn *conn, bool write, struct srdma_buffer *buffer, size_t buffer_offset,
		       size_t length, uint64_t offset, uint64_t cookie)
{
	int ret = check_request(conn, write, length, offset);
	char text[128];

	if (ret != 0)
		return ret;
	if (buffer->conn != conn)
		return srdma_fail(-EINVAL, "the buffer was made for another connection");
	if (buffer_offset > buffer->region.size || length > buffer->region.size - buffer_offset)
		return srdma_fail(-ERANGE, "cannot %s %zu byte%s at offset %zu of a buffer of %zu byte%s", write ? "write" : "read", length,
				  SRDMA_S(length), buffer_offset, buffer->region.size, SRDMA_S(buffer->region.size));
	if (!conn->sealed && length > longest(conn))
		return srdma_fail(-EMSGSIZE,
				  "cannot %s %zu bytes in one request: %s; post several shorter ones, or use srdma_conn_%s, which does so",
				  write ? "write" : "read", length, why_longest(conn, text, sizeof text), write ? "write" : "read");
	conn->waited_length = conn->sealed ? 0 : (uint32_t)length;
	if (!can_post_rdma(conn)) {
		struct srdma_patience none = {0};

		/* A look at the completions may make room. */
		ret = srdma_conn_wait_until(conn, can_post_rdma, AWAITS_ROOM, &none);
		if (ret != 0)
			return ret;
	}
	struct request request = {
		.write = write,
		.local = (uintptr_t)buffer->region.address + buffer_offset,
		.lkey = buffer->region.mr ? buffer->region.mr->lkey : 0,
		.length = length,
		.offset = offset,
		.kind = SRDMA_OP_POSTED,
		.cookie = cookie,
		.buffer = buffer,
	};
	return post(conn, &request);
}

int srdma_conn_post_write(struct srdma_conn *conn, struct srdma_buffer *buffer, size_t buffer_offset, size_t length,
			  uint64_t offset, uint64_t cookie)
{
	return post_buffer(conn, true, buffer, buffer_offset, length, offset, cookie);
}

int srdma_conn_post_read(struct srdma_conn *conn, struct srdma_buffer *buffer, size_t buffer_offset, size_t length,
			 uint64_t offset, uint64_t cookie)
{
	return post_buffer(conn, false, buffer, buffer_offset, length, offset, cookie);
}

static bool has_completion(const struct srdma_conn *conn)
{
	return conn->queues.done_ring.count > 0;
}

static bool is_not_held(const struct srdma_conn *conn)
{
	return !conn->queues.held || has_completion(conn);
}

int srdma_conn_complete(struct srdma_conn *conn, uint64_t *cookies, int max, int timeout_ms)
{
	struct srdma_queues *queues = &conn->queues;
	int n = 0;

	if (conn->options.raw)
		return srdma_fail(-EOPNOTSUPP, RAW_IS_YOURS);
	if (max < 1)
		return srdma_fail(-EINVAL, "cannot collect completions into an array of %d; give room for one at least", max);
	if (queues->done_ring.count == 0) {
		/* A renewal kept the program from posting; it can post afterwards. */
		bool held = conn->status == 0 && queues->rdma_queued == 0 && queues->held;
		struct srdma_patience patience = srdma_conn_patience(conn, timeout_ms);
		int ret;

		if (conn->status == 0 && queues->rdma_queued == 0 && !held)
			return 0;
		ret = srdma_conn_wait_until(conn, held ? is_not_held : has_completion,
					    held ? "the renewal of the queue pair to end" : "a posted write or read to complete", &patience);
		if (ret != 0)
			return ret;
	}
	while (n < max && srdma_queues_take_done(queues, &cookies[n]))
		n++;
	return n;
}

/* RC completes in order and only one thread waits, so the first WAITED completion from now on is that of the request just posted. */
static bool waited_done(const struct srdma_conn *conn)
{
	return conn->queues.waited_done > conn->waited_before;
}

static int transfer(struct srdma_conn *conn, struct request *request, struct srdma_patience *patience)
{
	int ret;

	conn->waited_length = conn->sealed ? 0 : (uint32_t)request->length;
	ret = srdma_conn_wait_until(conn, can_post_rdma, AWAITS_ROOM, patience);
	if (ret != 0)
		return ret;
	conn->waited_before = conn->queues.waited_done;
	ret = post(conn, request);
	if (ret != 0)
		return ret;
	ret = srdma_conn_wait_until(conn, waited_done, request->write ? "the peer to acknowledge the write" : "the data of the read", patience);
	/* The caller may reuse the memory on return, so the device must stop using it. */
	if (ret != 0 && conn->status == 0)
		srdma_conn_end(conn, ret);
	return ret;
}

static int run(struct srdma_conn *conn, bool write, void *data, size_t length, uint64_t offset, int timeout_ms)
{
	size_t most = conn->sealed ? SIZE_MAX : longest(conn), done = 0;
	struct srdma_region region = {0};
	struct request request = {.write = write, .kind = SRDMA_OP_WAITED};
	struct srdma_patience patience = srdma_conn_patience(conn, timeout_ms);
	int ret = check_request(conn, write, length, offset);

	if (ret != 0)
		return ret;
	if (timeout_ms == 0)
		return srdma_fail(-EINVAL, "srdma_conn_%s always waits for the peer; to go on without waiting, use srdma_conn_post_%s",
				  write ? "write" : "read", write ? "write" : "read");
	request.copy = write && length <= conn->qp.max_inline;
	if (!conn->sealed && !request.copy && length > 0) {
		ret = srdma_region_register(conn->pd, data, length, write ? 0 : IBV_ACCESS_LOCAL_WRITE, &region);
		if (ret != 0)
			return ret;
		request.lkey = region.mr->lkey;
	}
	do {
		request.local = (uintptr_t)data + done;
		request.length = length - done < most ? length - done : most;
		request.offset = offset + done;
		ret = transfer(conn, &request, &patience);
		done += request.length;
	} while (ret == 0 && done < length);
	srdma_region_release(&region);
	return ret;
}

int srdma_conn_write(struct srdma_conn *conn, const void *data, size_t length, uint64_t offset, int timeout_ms)
{
	/* Registered without local write, the device only reads it. */
	return run(conn, true, (void *)(uintptr_t)data, length, offset, timeout_ms);
}

int srdma_conn_read(struct srdma_conn *conn, void *data, size_t length, uint64_t offset, int timeout_ms)
{
	return run(conn, false, data, length, offset, timeout_ms);
}
