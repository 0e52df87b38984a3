/* SPDX-License-Identifier: Apache-2.0 */
#include "conn.h"

#include "array.h"
#include "log.h"
#include "seal_pool.h"
#include "sized.h"
#include "wake.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EPOCH_MS_MIN 100

SRDMA_DEFAULTS(srdma_conn_options,
	.raw_send_depth = 64,
	.raw_recv_depth = 64,
	.message_size = 4096,
	.depth = 16,
	.rdma_depth = 16,
	.region_access = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ,
	.setup_timeout_ms = 10000,
	.busy_retry_ms = 10000,
	.timeout_ms = 30000,
	.epoch_psns = SRDMA_EPOCH_PSNS,
	.recoveries = 8,
	.spin = 50)

static int check_private_data(const void *data, size_t size)
{
	if (size > SRDMA_PRIVATE_DATA_MAX)
		return srdma_fail(-EINVAL, "private_data has %zu bytes, and %d is the most", size, SRDMA_PRIVATE_DATA_MAX);
	return data || size == 0 ? 0 : srdma_fail(-EINVAL, "private_data is NULL, and private_data_size is %zu", size);
}

int srdma_conn_settings_take(const struct srdma_conn_options *given, struct srdma_conn_settings *out)
{
	struct srdma_conn_options options;
	struct srdma_qp_options qp;
	int ret = SRDMA_SIZED_TAKE(srdma_conn_options, gid_networks, given, &options);

	srdma_qp_options_init(&qp);
	if (ret == 0 && options.qp)
		ret = SRDMA_SIZED_TAKE(srdma_qp_options, hop_limit, options.qp, &qp);
	if (ret == 0)
		ret = check_private_data(options.private_data, options.private_data_size);
	if (ret != 0)
		return ret;
	options.qp = &qp;
	srdma_conn_settings_copy(&options, out);
	return 0;
}

void srdma_conn_settings_copy(const struct srdma_conn_options *options, struct srdma_conn_settings *out)
{
	out->options = *options;
	out->qp = *options->qp;
	out->options.qp = &out->qp;
	if (options->private_data) {
		memcpy(out->private_data, options->private_data, options->private_data_size);
		out->options.private_data = out->private_data;
	}
}

int srdma_conn_options_check(const struct srdma_conn_options *o)
{
	if (o->message_size < SRDMA_MESSAGE_SIZE_MIN || o->message_size > SRDMA_MESSAGE_SIZE_MAX)
		return srdma_fail(-EINVAL, "message-size %u is out of range; give %u to %u", o->message_size, SRDMA_MESSAGE_SIZE_MIN,
				  SRDMA_MESSAGE_SIZE_MAX);
	if (o->depth < 1 || o->depth > SRDMA_DEPTH_MAX || o->rdma_depth < 1 || o->rdma_depth > SRDMA_DEPTH_MAX)
		return srdma_fail(-EINVAL, "depth %u or rdma-depth %u is out of range; give 1 to %u", o->depth, o->rdma_depth,
				  SRDMA_DEPTH_MAX);
	if (o->raw && (o->raw_send_depth < 1 || o->raw_recv_depth < 1))
		return srdma_fail(-EINVAL, "raw_send_depth and raw_recv_depth must be above 0 for a raw connection");
	if (o->region_access & ~(unsigned)(IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ))
		return srdma_fail(-EINVAL, "region access 0x%x is more than remote write and remote read", o->region_access);
	if (o->setup_timeout_ms <= 0 || o->timeout_ms <= 0)
		return srdma_fail(-EINVAL, "setup_timeout_ms and timeout_ms must be above 0");
	if (o->busy_retry_ms < 0)
		return srdma_fail(-EINVAL, "busy_retry_ms must not be negative");
	if (o->seal != SRDMA_SEAL_OFF && o->seal != SRDMA_SEAL_REQUIRED)
		return srdma_fail(-EINVAL, "seal must be off or required");
	if (o->seal != SRDMA_SEAL_OFF && o->raw)
		return srdma_fail(-EINVAL, "a raw connection cannot be sealed: its work requests are the program's; set seal to off");
	if (o->seal_threads > SRDMA_SEAL_THREADS_MAX)
		return srdma_fail(-EINVAL, "seal-threads %u is out of range; give 0 to %u", o->seal_threads, SRDMA_SEAL_THREADS_MAX);
	if (o->epoch_psns != 0 && (o->epoch_psns < SRDMA_EPOCH_PSNS_MIN || o->epoch_psns > SRDMA_EPOCH_PSNS))
		return srdma_fail(-EINVAL, "epoch-psns %u is out of range; give %u to %u, or 0 for no epochs", o->epoch_psns, SRDMA_EPOCH_PSNS_MIN,
				  SRDMA_EPOCH_PSNS);
	if (o->spin < -1)
		return srdma_fail(-EINVAL, "spin %d is out of range; give microseconds, or -1 to poll always", o->spin);
	if (o->epoch_ms != 0 && (o->epoch_ms < EPOCH_MS_MIN || o->epoch_psns == 0))
		return srdma_fail(-EINVAL, "epoch-ms %d is out of range; give at least %d (with epoch-psns above 0), or 0", o->epoch_ms,
				  EPOCH_MS_MIN);
	return srdma_qp_options_check(o->qp);
}

int srdma_conn_set_private_data(struct srdma_private_data **data, const void *bytes, size_t size)
{
	if (!*data)
		*data = calloc(1, sizeof **data);
	if (!*data)
		return srdma_fail(-ENOMEM, "out of memory");
	(*data)->size = size;
	if (size > 0)
		memcpy((*data)->bytes, bytes, size);
	return 0;
}

const void *srdma_conn_peer_private_data(const struct srdma_conn *conn, size_t *size)
{
	*size = conn->peer_data ? conn->peer_data->size : 0;
	return conn->peer_data ? conn->peer_data->bytes : NULL;
}

int srdma_conn_new(struct srdma_device *device, const struct srdma_conn_options *options, struct srdma_conn **out)
{
	struct srdma_conn *conn;
	struct srdma_networks networks;
	int ret = srdma_conn_options_check(options);

	if (ret == 0)
		ret = srdma_networks_parse(options->gid_networks, &networks);
	if (ret != 0)
		return ret;
	conn = calloc(1, sizeof *conn);
	if (!conn) {
		srdma_networks_clear(&networks);
		return srdma_fail(-ENOMEM, "out of memory");
	}
	conn->device = srdma_device_ref(device);
	conn->options = *options;
	conn->qp_options = *options->qp;
	conn->options.qp = &conn->qp_options;
	conn->options.gid_networks = NULL; /* the caller's string; `networks` has its contents */
	conn->options.private_data = NULL; /* likewise: own_data */
	conn->networks = networks;
	conn->watch.fd = conn->watch.timer_fd = conn->wake_fd = conn->wait_fd = -1;
	srdma_qp_options_fit(&conn->qp_options, device);
	if (options->private_data)
		ret = srdma_conn_set_private_data(&conn->own_data, options->private_data, options->private_data_size);
	if (ret != 0)
		srdma_conn_free(&conn);
	*out = conn;
	return ret;
}

static void free_private_data(struct srdma_private_data *data)
{
	if (data)
		OPENSSL_cleanse(data, sizeof *data);
	free(data);
}

static void destroy_cq(struct ibv_cq *cq, unsigned unacked)
{
	if (!cq)
		return;
	if (unacked)
		ibv_ack_cq_events(cq, unacked);
	if (ibv_destroy_cq(cq) != 0)
		srdma_log(SRDMA_LOG_ERROR, "cannot destroy a completion queue: %s", strerror(errno));
}

void srdma_conn_release_verbs(struct srdma_conn *conn)
{
	/* The queue pair is destroyed before the memory that it may still write to, and the window before the queue pair. */
	srdma_qp_fail(&conn->qp);
	if (srdma_region_unbind(&conn->region) != 0 || srdma_regions_unbind(conn) != 0)
		srdma_log(SRDMA_LOG_ERROR, "%s", srdma_error_text());
	srdma_qp_release(&conn->qp);
	srdma_epoch_release(conn);
	if (conn->stream)
		conn->stream_let_go(conn->stream);
	conn->stream = NULL;
	srdma_conn_let_buffers_go(conn);
	srdma_sealed_rdma_release(&conn->sealed_rdma);
	srdma_queues_release(&conn->queues);
	if (conn->shares_seal_pool)
		srdma_seal_pool_leave(&conn->seal_pool);
	conn->seal_pool = NULL;
	conn->shares_seal_pool = false;
	srdma_region_release(&conn->region);
	srdma_regions_release(conn);
	destroy_cq(conn->send_cq, conn->unacked_send);
	destroy_cq(conn->recv_cq, conn->unacked_recv);
	conn->send_cq = conn->recv_cq = NULL;
	if (conn->notifier)
		srdma_notifier_remove(conn->notifier, conn);
	else if (conn->comp)
		ibv_destroy_comp_channel(conn->comp);
	conn->comp = NULL;
	if (conn->pd && ibv_dealloc_pd(conn->pd) != 0)
		srdma_log(SRDMA_LOG_ERROR, "cannot free a protection domain: %s; free what the program has made in it (memory windows, queue pairs, memory regions, shared receive queues, address handles) before the connection",
			  strerror(errno));
	conn->pd = NULL;
}

void srdma_conn_free(struct srdma_conn **out)
{
	struct srdma_conn *conn = *out;

	*out = NULL;
	if (!conn)
		return;
	srdma_conn_release_verbs(conn);
	srdma_watch_close(&conn->watch);
	srdma_wake_close(conn->wake_fd);
	srdma_wake_close(conn->wait_fd);
	/* The channel closes last, so that the close tells the peer that this end has freed everything. */
	srdma_tls_delete(&conn->tls);
	srdma_networks_clear(&conn->networks);
	srdma_peer_names_clear(&conn->names);
	srdma_device_unref(&conn->device);
	srdma_control_queue_release(conn);
	free_private_data(conn->own_data);
	free_private_data(conn->peer_data);
	OPENSSL_cleanse(conn, sizeof *conn);
	free(conn);
}

void srdma_conn_read_counters(const struct srdma_conn *conn, struct srdma_conn_info *info)
{
	const struct srdma_counters *c = &conn->queues.counters;

	info->messages_sent = srdma_counter_read(&c->messages_sent);
	info->messages_received = srdma_counter_read(&c->messages_received);
	info->messages_acknowledged = srdma_counter_read(&c->messages_acknowledged);
	info->bytes_sent = srdma_counter_read(&c->bytes_sent);
	info->bytes_received = srdma_counter_read(&c->bytes_received);
	info->rdma_bytes_written = srdma_counter_read(&c->bytes_written);
	info->rdma_bytes_read = srdma_counter_read(&c->bytes_read);
}

static void describe(const struct srdma_conn *conn, struct srdma_conn_info *info)
{
	const struct srdma_queues *queues = &conn->queues;

	*info = (struct srdma_conn_info){
		.client_id = conn->client_id,
		.qpn = conn->own.qpn,
		.peer_qpn = conn->peer.qpn,
		.psn = conn->own.psn,
		.peer_psn = conn->peer.psn,
		.gid_index = conn->gid_index,
		.gid = conn->own.gid,
		.peer_gid = conn->peer.gid,
		.lid = conn->own.lid,
		.peer_lid = conn->peer.lid,
		.path_mtu = srdma_mtu_bytes(conn->mtu),
		.message_size = queues->message_size,
		.depth = queues->depth,
		.rdma_depth = queues->rdma_depth,
		.region_size = conn->region.size,
		.peer_region_size = conn->peer.region_size,
		.peer_region_access = conn->peer.region_access,
		.epoch = atomic_load(&conn->epoch.number),
		.recoveries = atomic_load(&conn->epoch.recoveries),
		.epoch_psns = queues->psns_used,
		.pause_us = atomic_load(&conn->epoch.pause_us),
		.pause_max_us = atomic_load(&conn->epoch.pause_max_us),
	};
	if (conn->sealed)
		snprintf(info->seal, sizeof info->seal, "%s", srdma_cipher_name(conn->cipher));
	srdma_conn_read_counters(conn, info);
	memcpy(info->peer_name, conn->names.identity, sizeof info->peer_name);
	memcpy(info->peer_pin, conn->names.pin, sizeof info->peer_pin);
	memcpy(info->close_reason, conn->close_reason, sizeof conn->close_reason);
	srdma_net_format((const struct sockaddr *)&conn->peer_address, info->peer_address, sizeof info->peer_address);
	snprintf(info->device, sizeof info->device, "%s", srdma_device_name(conn->device));
	snprintf(info->tls_version, sizeof info->tls_version, "%s", srdma_tls_version(conn->tls));
	snprintf(info->tls_cipher, sizeof info->tls_cipher, "%s", srdma_tls_cipher(conn->tls));
	snprintf(info->tls_group, sizeof info->tls_group, "%s", srdma_tls_group(conn->tls));
}

void srdma_conn_get_info_sized(const struct srdma_conn *conn, struct srdma_conn_info *info, size_t size)
{
	struct srdma_conn_info own;

	describe(conn, &own);
	srdma_sized_fill(info, size, &own, sizeof own);
	OPENSSL_cleanse(&own, sizeof own); /* the PSNs */
}

void srdma_conn_get_timing_sized(const struct srdma_conn *conn, struct srdma_conn_timing *timing, size_t size)
{
	srdma_sized_fill(timing, size, &conn->timing, sizeof conn->timing);
}

unsigned srdma_conn_seal_bytes(const struct srdma_conn *conn, uint64_t *bytes, unsigned count)
{
	unsigned numbers = conn->seal_pool ? srdma_seal_pool_threads(conn->seal_pool) + 1 : 0;

	for (unsigned i = 0; i < numbers && i < count; i++)
		bytes[i] = srdma_seal_pool_bytes(conn->seal_pool, i);
	return numbers;
}

int srdma_conn_query_qp(struct srdma_conn *conn, enum ibv_qp_state *state, uint32_t *rq_psn, uint32_t *sq_psn)
{
	return srdma_qp_query(&conn->qp, state, rq_psn, sq_psn);
}

struct ibv_qp *srdma_conn_qp(struct srdma_conn *conn)
{
	return conn->qp.verbs;
}

struct ibv_pd *srdma_conn_pd(struct srdma_conn *conn)
{
	return conn->pd;
}

struct ibv_cq *srdma_conn_send_cq(struct srdma_conn *conn)
{
	return conn->send_cq;
}

struct ibv_cq *srdma_conn_recv_cq(struct srdma_conn *conn)
{
	return conn->recv_cq;
}

struct ibv_comp_channel *srdma_conn_comp_channel(struct srdma_conn *conn)
{
	return conn->comp;
}

int srdma_conn_peer_region(struct srdma_conn *conn, uint64_t *address, uint32_t *rkey, size_t *size)
{
	if (conn->peer.region_size == 0)
		return srdma_fail(-ENXIO, "the peer offers no region");
	if (conn->sealed)
		return srdma_fail(-ENXIO, "the peer's region is sealed: it has no rkey");
	*address = conn->peer.region_address;
	*rkey = conn->peer.region_rkey;
	*size = conn->peer.region_size;
	return 0;
}

void *srdma_conn_region(struct srdma_conn *conn)
{
	return conn->region.address;
}

int srdma_conn_fail_unagreed(const struct srdma_conn *conn, uint32_t feature, const char *what, const char *option)
{
	/* A client that has not set it never learns whether the server has. */
	return srdma_fail(-EOPNOTSUPP, "the two ends did not agree on %s: %s has not set %s; both must", what,
			  conn->own.features & feature ? "the peer" : "this end", option);
}

void srdma_conn_log_security(const struct srdma_conn *conn, const char *event_name, const char *consequence)
{
	char address[64], text[256];

	srdma_error_keep(text, sizeof text);
	srdma_net_format((const struct sockaddr *)&conn->peer_address, address, sizeof address);
	const struct srdma_log_field fields[] = {
		SRDMA_FIELD_NUMBER("client_id", conn->client_id),
		SRDMA_FIELD_TEXT("address", address),
		SRDMA_FIELD_TEXT("name", conn->names.identity),
		SRDMA_FIELD_TEXT("error", text),
	};
	const struct srdma_event event = {SRDMA_LOG_WARN, event_name, true, fields, SRDMA_COUNT(fields)};

	srdma_log_event(&event, "connection with %s: %s; %s", address, text, consequence);
}
