/* SPDX-License-Identifier: Apache-2.0 */
#include "accept.h"

#include "clock.h"
#include "log.h"
#include "proxy.h"
#include "setup.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINGER_MS 1000
/* Reads of one step: a whole frame, byte by byte. No other frame may follow, so OpenSSL keeps nothing that no descriptor would
 * announce. */
#define STEP_READS (SRDMA_FRAME_MAX + 1)
#define RESOURCES_RETRY_MS 1000

enum stage { STAGE_PROXY, STAGE_TLS, STAGE_HELLO, STAGE_PRIVATE_DATA, STAGE_READY, STAGE_DONE, STAGE_LINGER };

struct srdma_accept {
	struct srdma_setup setup;
	enum stage stage;
	bool behind_proxy; /* the connection comes from a balancer */
	bool own;          /* it is the balancer's own, not a client's: the balancer says so, or names itself as the client */
	uint8_t header[SRDMA_PROXY_MAX];
	size_t header_length; /* so far */
	bool authenticated; /* the TLS handshake has succeeded */
	srdma_accept_admit_fn *admit;
	void *admit_arg;
	srdma_admit_fn *program_admit; /* of srdma_conn_accept_start */
	void *program_arg;
	int error; /* LINGER: why */
	enum stage failed_in; /* LINGER: the stage before */
	enum srdma_reject_reason rejection; /* sent */
	char text[512];
};

/* ---- life ------------------------------------------------------------------------------------------------------ */

int srdma_accept_new(const struct srdma_newcomer *newcomer, struct srdma_tls_context *context, struct srdma_device *device,
		     const struct srdma_conn_options *options, srdma_accept_admit_fn *admit, void *admit_arg, struct srdma_accept **out)
{
	struct srdma_accept *accept = calloc(1, sizeof *accept);
	int ret;

	if (!accept) {
		close(newcomer->socket);
		return srdma_fail(-ENOMEM, "out of memory");
	}
	ret = srdma_conn_new(device, options, &accept->setup.conn);
	if (ret == 0)
		ret = srdma_net_prepare(newcomer->socket);
	if (ret != 0) {
		close(newcomer->socket);
		goto free_accept;
	}
	accept->setup.start = srdma_clock_us();
	accept->setup.deadline = srdma_deadline(options->setup_timeout_ms);
	accept->setup.conn->peer_address = newcomer->peer;
	accept->behind_proxy = newcomer->behind_proxy;
	accept->stage = newcomer->behind_proxy ? STAGE_PROXY : STAGE_TLS;
	accept->admit = admit;
	accept->admit_arg = admit_arg;
	ret = srdma_tls_new(context, newcomer->socket, NULL, &accept->setup.conn->tls);
	if (ret != 0)
		goto free_accept;
	*out = accept;
	return 0;

free_accept:
	srdma_accept_free(&accept);
	return ret;
}

void srdma_accept_free(struct srdma_accept **out)
{
	struct srdma_accept *accept = *out;

	*out = NULL;
	if (!accept)
		return;
	srdma_conn_free(&accept->setup.conn);
	free(accept);
}

/* ---- refusal --------------------------------------------------------------------------------------------------- */

/* Tells the client why it is rejected. Returns `error`. */
static int refuse(struct srdma_accept *accept, const struct srdma_reject *reject, int error)
{
	uint8_t frame[SRDMA_FRAME_MAX];
	size_t length = srdma_reject_encode(frame, reject);

	/* Only the handshake was sent so far. If the socket has no room, the peer does not read, and waiting for it would not help. */
	srdma_control_send(accept->setup.conn->tls, frame, length);
	accept->rejection = reject->reason;
	return srdma_fail(error, "rejected (%s): %s", srdma_reject_reason_name(reject->reason), reject->text);
}

/* Gives the client time to read the alert or REJECT. */
static void begin_linger(struct srdma_accept *accept, int error)
{
	accept->error = error;
	srdma_error_keep(accept->text, sizeof accept->text);
	accept->setup.deadline = srdma_deadline(LINGER_MS);
	accept->failed_in = accept->stage;
	accept->stage = STAGE_LINGER;
}

/* ---- the steps ------------------------------------------------------------------------------------------------- */

static bool is_same_host(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
	union ibv_gid first, second;

	return srdma_net_gid_of((const struct sockaddr *)a, &first) && srdma_net_gid_of((const struct sockaddr *)b, &second) &&
	       memcmp(&first, &second, sizeof first) == 0;
}

static int take_proxy(struct srdma_accept *accept, const struct srdma_proxy *proxy)
{
	struct srdma_conn *conn = accept->setup.conn;

	/* Version 1 of the header has no LOCAL: a balancer that checks the server names itself as the client. */
	accept->own = proxy->own || is_same_host(&proxy->source, &conn->peer_address);
	if (!proxy->own) {
		conn->proxy_address = conn->peer_address;
		conn->peer_address = proxy->source;
	}
	conn->timing.tcp = srdma_clock_us() - accept->setup.start;
	accept->stage = STAGE_TLS;
	return 0;
}

/* Must not read a byte beyond the header, since OpenSSL reads the rest from the socket. */
static int await_proxy(struct srdma_accept *accept)
{
	int fd = srdma_tls_fd(accept->setup.conn->tls);
	struct srdma_proxy proxy;
	int ret;

	while ((ret = srdma_proxy_parse(accept->header, accept->header_length, &proxy)) == -EAGAIN) {
		ssize_t n = recv(fd, accept->header + accept->header_length, proxy.length - accept->header_length, 0);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return -EAGAIN;
		if (n <= 0)
			return srdma_fail(SRDMA_ELOST, "the connection ended in the PROXY header: %s",
					  n < 0 ? strerror(errno) : "end of stream");
		accept->header_length += (size_t)n;
	}
	return ret == 0 ? take_proxy(accept, &proxy) : ret;
}

static int finish_handshake(struct srdma_accept *accept)
{
	struct srdma_conn *conn = accept->setup.conn;

	conn->timing.tls = srdma_clock_us() - accept->setup.start - conn->timing.tcp;
	accept->authenticated = true;
	accept->stage = STAGE_HELLO;
	return srdma_tls_peer_names(conn->tls, &conn->names);
}

/* 0, or an error with *reject filled. */
static int judge_hello(struct srdma_accept *accept, struct srdma_reject *reject)
{
	struct srdma_conn *conn = accept->setup.conn;
	const struct srdma_frame_header *header = &conn->inbox.header;
	int ret = 0;

	if (header->version != SRDMA_PROTOCOL_VERSION) {
		srdma_reject_set(reject, SRDMA_REJECT_VERSION, 0, "the client speaks protocol version %u, and the server version %u", header->version,
				 SRDMA_PROTOCOL_VERSION);
		return SRDMA_EPROTOCOL;
	}
	if (header->type != SRDMA_FRAME_HELLO)
		return SRDMA_MALFORMED(reject, "the client sent a frame of type %u where HELLO is due", header->type);
	if (srdma_hello_decode(SRDMA_FRAME_HELLO, srdma_inbox_body(&conn->inbox), header->length, &conn->peer) != 0)
		return SRDMA_MALFORMED(reject, "%s", srdma_error_text());
	ret = srdma_hello_validate(&conn->peer, false, reject);
	if (ret == 0)
		ret = srdma_setup_check_fit(&accept->setup, reject);
	return ret == 0 ? srdma_setup_check_gid(&accept->setup, reject) : ret;
}

/* Takes the queue pair to RTS. A failure is the server's fault, so the server tells the client. */
static int make_queue_pair(struct srdma_accept *accept)
{
	struct srdma_conn *conn = accept->setup.conn;
	struct srdma_reject reject = {0};
	const struct srdma_conn_options *own = &conn->options;
	const struct srdma_hello *peer = &conn->peer;
	char text[sizeof accept->text];
	int ret = srdma_setup_prepare_self(&accept->setup, own->message_size < peer->message_size ? own->message_size : peer->message_size,
					   own->depth < peer->depth ? own->depth : peer->depth);

	if (ret == 0)
		ret = srdma_setup_connect_queue_pair(&accept->setup);
	if (ret == 0)
		return 0;
	/* The server's log has the details; the client does not get them. */
	srdma_error_keep(text, sizeof text);
	srdma_reject_set(&reject, SRDMA_REJECT_RESOURCES, RESOURCES_RETRY_MS, "the server could not make the queue pair");
	refuse(accept, &reject, ret);
	return srdma_fail(ret, "%s", text);
}

/* Everything that the client says of itself is known. */
static int decide(struct srdma_accept *accept)
{
	struct srdma_conn *conn = accept->setup.conn;
	struct srdma_reject reject = {0};
	int ret = 0;

	if (accept->admit)
		ret = accept->admit(conn, &reject, accept->admit_arg);
	if (ret != 0)
		return refuse(accept, &reject, ret);
	ret = make_queue_pair(accept);
	if (ret != 0)
		return ret;
	conn->own.client_id = conn->client_id;
	srdma_setup_answer_offers(&accept->setup);
	accept->stage = STAGE_READY;
	ret = srdma_setup_send_self(&accept->setup, SRDMA_FRAME_WELCOME);
	/* Nothing but the handshake was sent so far. */
	return ret == 0 && conn->outbox.have > 0 ? srdma_fail(-ETIMEDOUT, "the client does not read its TLS channel") : ret;
}

static int take_hello(struct srdma_accept *accept)
{
	struct srdma_reject reject = {0};
	int ret = judge_hello(accept, &reject);

	if (ret != 0)
		return refuse(accept, &reject, ret);
	if (!(accept->setup.conn->peer.features & SRDMA_FEATURE_PRIVATE_DATA))
		return decide(accept);
	accept->stage = STAGE_PRIVATE_DATA;
	return 0;
}

static int take_private_data(struct srdma_accept *accept)
{
	struct srdma_reject reject = {0};
	int ret = srdma_setup_take_private_data(&accept->setup);

	if (ret == SRDMA_EPROTOCOL)
		return refuse(accept, &reject, SRDMA_MALFORMED(&reject, "%s", srdma_error_text()));
	return ret == 0 ? decide(accept) : ret;
}

static int take_ready(struct srdma_accept *accept)
{
	struct srdma_conn *conn = accept->setup.conn;
	const struct srdma_frame_header *header = &conn->inbox.header;
	bool with_rkey = (conn->peer.features & SRDMA_FEATURE_WINDOW) != 0;
	uint32_t rkey;
	int ret;

	if (header->version != SRDMA_PROTOCOL_VERSION)
		return srdma_fail(SRDMA_EPROTOCOL, "the client sent a frame of version %u where READY of version %u is due", header->version,
				  SRDMA_PROTOCOL_VERSION);
	if (header->type != SRDMA_FRAME_READY)
		return srdma_fail(SRDMA_EPROTOCOL, "the client sent a frame of type %u where READY is due", header->type);
	ret = srdma_ready_decode(srdma_inbox_body(&conn->inbox), header->length, with_rkey, &rkey);
	if (ret != 0)
		return ret;
	accept->stage = STAGE_DONE;
	ret = srdma_setup_finish(&accept->setup);
	/* The rkey is added only now, because the keys are bound to HELLO as it came. */
	if (ret == 0 && with_rkey)
		conn->peer.region_rkey = conn->queues.region_rkey = rkey;
	return ret;
}

static int await_frame(struct srdma_accept *accept)
{
	struct srdma_conn *conn = accept->setup.conn;
	bool welcomed = accept->stage == STAGE_READY;
	struct srdma_reject reject = {0};
	unsigned reads = STEP_READS;
	int ret = srdma_control_receive(conn->tls, &conn->inbox, &reads);

	if (ret == 0)
		return welcomed ? take_ready(accept) : accept->stage == STAGE_HELLO ? take_hello(accept) : take_private_data(accept);
	if (ret == SRDMA_EPROTOCOL && !welcomed)
		return refuse(accept, &reject, SRDMA_MALFORMED(&reject, "%s", srdma_error_text()));
	if (ret == SRDMA_ECLOSED)
		return srdma_fail(SRDMA_ELOST, "the client closed the connection %s", welcomed ? "instead of saying READY" : "before HELLO");
	return ret;
}

static int fail_again(const struct srdma_accept *accept)
{
	return srdma_fail(accept->error, "%s", accept->text);
}

static int advance(struct srdma_accept *accept)
{
	struct srdma_conn *conn = accept->setup.conn;
	int ret;

	switch (accept->stage) {
	case STAGE_PROXY: return await_proxy(accept);
	case STAGE_TLS: ret = srdma_tls_handshake(conn->tls); return ret == 0 ? finish_handshake(accept) : ret;
	case STAGE_HELLO:
	case STAGE_PRIVATE_DATA:
	case STAGE_READY: return await_frame(accept);
	case STAGE_LINGER:
		ret = srdma_tls_linger(conn->tls);
		return ret == 0 ? fail_again(accept) : ret;
	case STAGE_DONE: break;
	}
	return 0;
}

static const char *const awaited[] = {
	[STAGE_PROXY] = "PROXY header", [STAGE_TLS] = "TLS handshake", [STAGE_HELLO] = "HELLO",
	[STAGE_PRIVATE_DATA] = "private data", [STAGE_READY] = "READY"};

int srdma_accept_fail(const struct srdma_accept *accept, int error, const char *why)
{
	if (accept->stage == STAGE_LINGER)
		return fail_again(accept);
	return srdma_fail(error, "%s (%s)", why, accept->stage >= STAGE_HELLO ? "waiting for a frame" : awaited[accept->stage]);
}

static int fail_late(const struct srdma_accept *accept)
{
	if (accept->stage == STAGE_LINGER)
		return fail_again(accept);
	return srdma_fail(-ETIMEDOUT, "timed out after %d ms waiting for the client's %s", accept->setup.conn->options.setup_timeout_ms,
			  awaited[accept->stage]);
}

/* Whether this end has sent the client an alert or a REJECT, which the client needs time to read. */
static bool was_refused(enum stage stage, int error)
{
	bool asked = stage == STAGE_HELLO || stage == STAGE_PRIVATE_DATA;

	return stage == STAGE_TLS ? error != SRDMA_ELOST : asked && error != SRDMA_ELOST && error != SRDMA_ETLS;
}

int srdma_accept_step(struct srdma_accept *accept, struct srdma_conn **out)
{
	for (;;) {
		enum stage stage = accept->stage;
		int ret = advance(accept);

		if (ret == -EAGAIN) {
			if (srdma_deadline_left_ms(accept->setup.deadline) > 0)
				return ret;
			return fail_late(accept);
		}
		if (ret == 0 && accept->stage == STAGE_DONE) {
			srdma_setup_finish_timing(&accept->setup);
			*out = accept->setup.conn;
			accept->setup.conn = NULL;
			return 0;
		}
		if (ret != 0) {
			if (!was_refused(stage, ret))
				return ret;
			begin_linger(accept, ret);
		}
	}
}

/* ---- facts ----------------------------------------------------------------------------------------------------- */

int srdma_accept_fd(const struct srdma_accept *accept)
{
	return accept->setup.conn ? srdma_tls_fd(accept->setup.conn->tls) : -1;
}

short srdma_accept_events(const struct srdma_accept *accept)
{
	return accept->setup.conn ? srdma_tls_events(accept->setup.conn->tls) : 0;
}

uint64_t srdma_accept_deadline(const struct srdma_accept *accept)
{
	return accept->setup.deadline;
}

int srdma_accept_left_ms(const struct srdma_accept *accept)
{
	return srdma_deadline_left_ms(accept->setup.deadline);
}

bool srdma_accept_has_spoken(const struct srdma_accept *accept)
{
	return srdma_tls_has_received(accept->setup.conn->tls);
}

bool srdma_accept_is_authenticated(const struct srdma_accept *accept)
{
	return accept->authenticated;
}

const struct sockaddr *srdma_accept_proxied(const struct srdma_accept *accept)
{
	const struct srdma_conn *conn = accept->setup.conn;

	return conn && conn->proxy_address.ss_family != AF_UNSPEC ? (const struct sockaddr *)&conn->peer_address : NULL;
}

bool srdma_accept_was_check(const struct srdma_accept *accept, int error)
{
	if (!accept->behind_proxy || error != SRDMA_ELOST)
		return false;
	return accept->stage == STAGE_PROXY ? accept->header_length == 0
					    : accept->stage == STAGE_TLS && accept->own && !srdma_accept_has_spoken(accept);
}

const char *srdma_accept_phase(const struct srdma_accept *accept)
{
	switch (accept->stage == STAGE_LINGER ? accept->failed_in : accept->stage) {
	case STAGE_PROXY: return "proxy";
	case STAGE_TLS: return "tls";
	case STAGE_HELLO:
	case STAGE_PRIVATE_DATA: return "hello";
	default: return "ready";
	}
}

enum srdma_reject_reason srdma_accept_rejection(const struct srdma_accept *accept)
{
	return accept->rejection;
}

const struct srdma_peer_names *srdma_accept_peer_names(const struct srdma_accept *accept)
{
	return &accept->setup.conn->names;
}

/* ---- one client at a time -------------------------------------------------------------------------------------- */

int srdma_accept_ask(struct srdma_conn *conn, srdma_admit_fn *fn, struct srdma_reject *reject, void *arg)
{
	const struct srdma_cert_name **names = calloc(conn->names.count + 1, sizeof(struct srdma_cert_name *));
	struct srdma_admit_request request = {.size = sizeof request,
					      .peer_name = conn->names.identity,
					      .peer_pin = conn->names.pin,
					      .names = names,
					      .name_count = conn->names.count,
					      .address = (const struct sockaddr *)&conn->peer_address};
	struct srdma_private_data own = {0};
	struct srdma_admit_answer answer = {
		.size = sizeof answer, .client_id = conn->client_id, .reject = reject, .private_data = own.bytes};
	int ret;

	if (!names)
		return srdma_reject_set(reject, SRDMA_REJECT_RESOURCES, RESOURCES_RETRY_MS, "the server is out of memory");
	for (size_t i = 0; i < conn->names.count; i++)
		names[i] = &conn->names.list[i];
	if (conn->own_data)
		own = *conn->own_data;
	answer.private_data_size = own.size;
	request.private_data = srdma_conn_peer_private_data(conn, &request.private_data_size);
	*reject = (struct srdma_reject){.size = sizeof *reject, .reason = SRDMA_REJECT_REFUSED, .text = "refused"};
	ret = fn(&request, &answer, arg);
	free(names);
	if (ret != 0)
		return SRDMA_EREJECTED;
	conn->client_id = answer.client_id;
	if (answer.private_data_size > SRDMA_PRIVATE_DATA_MAX) {
		srdma_log(SRDMA_LOG_ERROR, "the program answers %zu bytes of private data, and %d is the most", answer.private_data_size,
			  SRDMA_PRIVATE_DATA_MAX);
		return srdma_reject_set(reject, SRDMA_REJECT_RESOURCES, 0, "the server's program failed");
	}
	if (conn->peer_data && srdma_conn_set_private_data(&conn->own_data, own.bytes, answer.private_data_size) != 0)
		return srdma_reject_set(reject, SRDMA_REJECT_RESOURCES, RESOURCES_RETRY_MS, "the server is out of memory");
	return 0;
}

static int ask_program(struct srdma_conn *conn, struct srdma_reject *reject, void *arg)
{
	const struct srdma_accept *accept = arg;

	return srdma_accept_ask(conn, accept->program_admit, reject, accept->program_arg);
}

int srdma_conn_accept_start(int socket, struct srdma_tls_context *context, struct srdma_device *device,
			    const struct srdma_conn_options *options, srdma_admit_fn *admit, void *admit_arg, struct srdma_accept **out)
{
	struct srdma_newcomer newcomer = {.socket = socket};
	socklen_t length = sizeof newcomer.peer;
	struct srdma_conn_settings settings;
	int ret = srdma_conn_settings_take(options, &settings);

	if (ret == 0)
		ret = srdma_tls_context_check(context, true);
	if (ret == 0 && !device)
		ret = srdma_fail(-EINVAL, "a connection needs a device");
	if (ret == 0 && getpeername(socket, (struct sockaddr *)&newcomer.peer, &length) != 0)
		ret = srdma_fail(SRDMA_ELOST, "the TCP connection broke: %s", strerror(errno));
	if (ret != 0) {
		close(socket);
		return ret;
	}
	ret = srdma_accept_new(&newcomer, context, device, &settings.options, admit ? ask_program : NULL, NULL, out);
	if (ret != 0)
		return ret;
	(*out)->admit_arg = *out;
	(*out)->program_admit = admit;
	(*out)->program_arg = admit_arg;
	return 0;
}

int srdma_conn_accept(int socket, struct srdma_tls_context *context, struct srdma_device *device, const struct srdma_conn_options *options,
		      srdma_admit_fn *admit, void *admit_arg, struct srdma_conn **out)
{
	struct srdma_accept *accept = NULL;
	int ret = srdma_conn_accept_start(socket, context, device, options, admit, admit_arg, &accept);

	if (ret != 0)
		return ret;
	while ((ret = srdma_accept_step(accept, out)) == -EAGAIN)
		srdma_net_wait(srdma_accept_fd(accept), srdma_accept_events(accept), srdma_accept_deadline(accept));
	srdma_accept_free(&accept);
	return ret;
}
