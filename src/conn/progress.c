/* SPDX-License-Identifier: Apache-2.0 */
/* What moves a connection on: completions, control frames, waiting; and on top of that messages and the disconnect. */
#include "clock.h"
#include "conn.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Reads of the TLS channel in one turn: a peer that goes on sending must not keep this end from all else. */
#define CONTROL_READS 64
/* The time that the peer has to read frames. */
#define CONTROL_STALL_MS 2000
#define STALLED_TICK_MS 20
#define PEER_CLOSE_MS 500
#define SLICE_MS 20
/* A polling wait looks at the clock and the descriptors once in this many rounds: both cost more than a round. */
#define ROUNDS_PER_SENDS 4
#define ROUNDS_PER_CLOCK 64
#define ROUNDS_PER_EVENTS 4096
/* A busy connection looks at its TLS channel, and at timed work, once in this many rounds. */
#define ROUNDS_PER_CONTROL 256

/* ---- the descriptors ------------------------------------------------------------------------------------------- */

static int watch(int epoll_fd, int fd)
{
	struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

	return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

int srdma_conn_prepare_waiting(struct srdma_conn *conn)
{
	int flags = fcntl(conn->comp->fd, F_GETFL);

	if (conn->notifier)
		return 0;
	conn->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	conn->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (flags < 0 || conn->wake_fd < 0 || conn->epoll_fd < 0)
		goto fail;
	/* A raw connection's completion channel is its user's: left blocking, and not watched here. */
	if (!conn->options.raw &&
	    (fcntl(conn->comp->fd, F_SETFL, flags | O_NONBLOCK) != 0 || watch(conn->epoll_fd, conn->comp->fd) != 0))
		goto fail;
	if (watch(conn->epoll_fd, srdma_tls_fd(conn->tls)) != 0 || watch(conn->epoll_fd, conn->wake_fd) != 0)
		goto fail;
	conn->control_watch = POLLIN;
	return 0;
fail:
	return srdma_fail(-errno, "cannot make the descriptors to wait on: %s", strerror(errno));
}

static void watch_control(struct srdma_conn *conn)
{
	short events = srdma_conn_control_events(conn);
	struct epoll_event event = {.events = (events & POLLIN ? EPOLLIN : 0u) | (events & POLLOUT ? EPOLLOUT : 0u),
				    .data.fd = srdma_tls_fd(conn->tls)};

	if (conn->notifier || events == conn->control_watch)
		return;
	conn->control_watch = events;
	epoll_ctl(conn->epoll_fd, events ? EPOLL_CTL_MOD : EPOLL_CTL_DEL, srdma_tls_fd(conn->tls), &event);
}

int srdma_conn_share_wake(struct srdma_conn *conn, int fd)
{
	int shared = fcntl(fd, F_DUPFD_CLOEXEC, 0);

	if (shared < 0 || watch(conn->epoll_fd, shared) != 0) {
		int ret = srdma_fail(-errno, "cannot duplicate the descriptor for wake-ups: %s", strerror(errno));

		if (shared >= 0)
			close(shared);
		return ret;
	}
	close(conn->wake_fd); /* which takes it out of the epoll set, too */
	conn->wake_fd = shared;
	conn->shared_wake = true;
	return 0;
}

int srdma_conn_fd(struct srdma_conn *conn)
{
	return conn->epoll_fd;
}

void srdma_conn_wake(struct srdma_conn *conn)
{
	atomic_store(&conn->wake_requested, true);
	srdma_conn_nudge(conn);
}

void srdma_conn_nudge(struct srdma_conn *conn)
{
	uint64_t one = 1;

	/* The counter can't be full: then a wake-up is pending anyway. */
	ssize_t n = write(conn->notifier ? conn->notifier->wake_fd : conn->wake_fd, &one, sizeof one);

	(void)n;
}

void srdma_conn_fail_later(struct srdma_conn *conn, enum ibv_event_type event)
{
	atomic_store(&conn->device_event, (int)event + 1);
	srdma_conn_wake(conn);
}

void srdma_conn_cancel(struct srdma_conn *conn)
{
	atomic_store(&conn->cancelled, true);
	srdma_conn_wake(conn);
}

/* ---- the end --------------------------------------------------------------------------------------------------- */

int srdma_conn_end(struct srdma_conn *conn, int error)
{
	if (conn->status != 0)
		return conn->status;
	snprintf(conn->status_text, sizeof conn->status_text, "%s", srdma_error_text());
	/* A server says it with all that it knows of the client: client.lost. */
	if (error == SRDMA_ESEAL && !conn->notifier)
		srdma_conn_log_security(conn, "connection.forged", "the connection has ended");
	conn->status = error;
	srdma_qp_fail(&conn->qp);
	/* What its writes and reads use is the program's again when it hears of the end. */
	srdma_stream_end(&conn->stream);
	srdma_sealed_rdma_end(&conn->sealed_rdma);
	return error;
}

/* No work of this end's is on the queue pair, or waits for it. */
static bool is_idle(const struct srdma_conn *conn)
{
	return conn->stream.op_count == 0 && srdma_sealed_rdma_is_idle(&conn->sealed_rdma) && !srdma_epoch_is_changing(conn);
}

static bool all_arrived(const struct srdma_conn *conn)
{
	return conn->options.raw || conn->stream.messages_arrived >= conn->closing.peer_total;
}

int srdma_conn_check(struct srdma_conn *conn)
{
	if (conn->status != 0)
		return srdma_fail(conn->status, "%s", conn->status_text);
	if (conn->closing.requested)
		return srdma_fail(SRDMA_ECLOSED, "the connection was disconnected");
	if (conn->closing.peer_requested)
		return srdma_fail(SRDMA_ECLOSED, "the peer disconnected%s%s", conn->close_reason[0] ? ": " : "",
				  conn->close_reason);
	return 0;
}

bool srdma_conn_has_parted(const struct srdma_conn *conn)
{
	return conn->closing.peer_answered || conn->closing.acknowledged || conn->closing.finished;
}

/* ---- control frames -------------------------------------------------------------------------------------------- */

static int send_control(struct srdma_conn *conn, const uint8_t *frame, size_t length)
{
	return srdma_outbox_send(conn->tls, &conn->outbox, frame, length);
}

static int send_empty(struct srdma_conn *conn, enum srdma_frame_type type)
{
	uint8_t frame[SRDMA_FRAME_MAX];
	size_t length = srdma_empty_encode(frame, type);

	return send_control(conn, frame, length);
}

static int send_count(struct srdma_conn *conn, enum srdma_frame_type type, const char *reason)
{
	struct srdma_disconnect body = {.messages_sent = srdma_counter_read(&conn->stream.counters.messages_sent)};
	uint8_t frame[SRDMA_FRAME_MAX];
	size_t length;

	if (reason)
		snprintf(body.reason, sizeof body.reason, "%s", reason);
	length = srdma_disconnect_encode(frame, type, &body);
	return send_control(conn, frame, length);
}

/* The peer takes its region back. */
static int take_withdrawal(struct srdma_conn *conn)
{
	if (conn->inbox.header.length != 0)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent a malformed WITHDRAW of %u bytes", conn->inbox.header.length);
	if (conn->peer.region_size == 0)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent a WITHDRAW of a region that it does not offer");
	conn->peer.region_size = 0;
	conn->peer.region_access = conn->peer.region_rkey = conn->stream.region_rkey = 0;
	conn->region_withdrawn = true;
	return 0;
}

static int take_frame(struct srdma_conn *conn)
{
	struct srdma_closing *closing = &conn->closing;
	const struct srdma_frame_header *header = &conn->inbox.header;
	struct srdma_disconnect body;
	int ret = 0;

	if (header->version != SRDMA_PROTOCOL_VERSION)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent a frame of version %u on a connection of version %u", header->version,
				  SRDMA_PROTOCOL_VERSION);
	if (header->type >= SRDMA_FRAME_EPOCH_REQUEST && header->type <= SRDMA_FRAME_EPOCH_READY)
		return srdma_epoch_take(conn);
	if (header->type == SRDMA_FRAME_WITHDRAW)
		return take_withdrawal(conn);
	if (header->type == SRDMA_FRAME_DISCONNECT || header->type == SRDMA_FRAME_DISCONNECT_ACK)
		ret = srdma_disconnect_decode(srdma_inbox_body(&conn->inbox), header->length, &body);
	if (ret != 0)
		return ret;
	if (header->type == SRDMA_FRAME_DISCONNECT && !closing->peer_requested) {
		closing->peer_requested = true;
		closing->peer_total = body.messages_sent;
		snprintf(conn->close_reason, sizeof conn->close_reason, "%s", body.reason);
	} else if (header->type == SRDMA_FRAME_DISCONNECT_ACK && closing->requested && !closing->acknowledged) {
		closing->acknowledged = true;
		closing->peer_total = body.messages_sent;
	} else if (header->type == SRDMA_FRAME_FINISH && closing->peer_answered && header->length == 0) {
		closing->finished = true;
	} else {
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent an unexpected frame of type %u on the TLS channel", header->type);
	}
	return 0;
}

/* The peer's side of the TLS channel is closed. */
static int take_end(struct srdma_conn *conn, int error)
{
	/* It is the last step of a disconnect; the FINISH may have been lost to it. */
	if (srdma_conn_has_parted(conn)) {
		conn->closing.finished = true;
		return 0;
	}
	return srdma_fail(error == SRDMA_ECLOSED ? SRDMA_ELOST : error,
			  "the peer went away without disconnecting: it closed the TLS channel");
}

/* Takes what frames there are, up to a turn; the rest is the next turn's. */
static int poll_control(struct srdma_conn *conn)
{
	unsigned reads = CONTROL_READS;

	conn->control_more = false;
	while (conn->status == 0 && !conn->closing.finished) {
		int ret = srdma_control_receive(conn->tls, &conn->inbox, &reads);

		if (ret == -EAGAIN) {
			conn->control_more = reads == 0;
			return 0;
		}
		ret = ret == 0 ? take_frame(conn) : ret == SRDMA_EPROTOCOL ? ret : take_end(conn, ret);
		if (ret != 0)
			return ret;
	}
	return 0;
}

/* Answers the peer's DISCONNECT once nothing is under way any more. */
static int answer_disconnect(struct srdma_conn *conn)
{
	struct srdma_closing *closing = &conn->closing;
	int ret;

	if (!closing->peer_requested || closing->peer_answered)
		return 0;
	ret = srdma_stream_flush(&conn->stream);
	if (ret != 0 || !all_arrived(conn) || !is_idle(conn))
		return ret;
	closing->peer_answered = true;
	return send_count(conn, SRDMA_FRAME_DISCONNECT_ACK, NULL);
}

/* ---- progress and waiting -------------------------------------------------------------------------------------- */

/* A failed work request is often the shadow of a peer that went away; then that is the cause to tell. */
static void fail_progress(struct srdma_conn *conn, int ret)
{
	uint16_t generation = conn->stream.generation;
	char text[512];

	/* What the device reported has ended it already. */
	if (conn->status != 0)
		return;
	snprintf(text, sizeof text, "%s", srdma_error_text());
	/* A forgery stays one, whatever the peer has done meanwhile. */
	int control = ret == SRDMA_ESEAL ? 0 : poll_control(conn);

	/* The peer knew already, and what failed has been replaced just now. */
	if (control == 0 && ret == SRDMA_EVERBS && conn->stream.generation != generation)
		return;

	if (control != 0)
		ret = control;
	else
		ret = srdma_epoch_break(conn, srdma_fail(ret, "%s", text));
	if (ret != 0)
		srdma_conn_end(conn, ret);
}

static bool is_of_queue_pair(int event)
{
	return event == IBV_EVENT_QP_FATAL || event == IBV_EVENT_QP_REQ_ERR || event == IBV_EVENT_QP_ACCESS_ERR;
}

/* The report may be late, and of the queue pair that has been replaced because of what it reports. */
static bool queue_pair_has_failed(const struct srdma_conn *conn)
{
	enum ibv_qp_state state;

	return srdma_qp_query(&conn->qp, &state, NULL, NULL) != 0 || state == IBV_QPS_ERR || state == IBV_QPS_SQE;
}

/* What the device has reported. The failure of a queue pair shows in its completions as well. */
static int take_device_event(struct srdma_conn *conn)
{
	int event = atomic_exchange(&conn->device_event, 0) - 1, ret;

	if (event < 0)
		return 0;
	if (is_of_queue_pair(event) && conn->epoch.agreed && (conn->stream.stopped || !queue_pair_has_failed(conn)))
		return 0;
	ret = srdma_fail(SRDMA_EVERBS, "the RDMA device reports: %s", ibv_event_type_str((enum ibv_event_type)event));
	return is_of_queue_pair(event) ? srdma_epoch_break(conn, ret) : srdma_conn_end(conn, ret);
}

/* A peer that reads nothing holds up frames to it, and, once OpenSSL has an answer to a KeyUpdate for it, also those from it. */
static int check_stall(struct srdma_conn *conn)
{
	if (conn->outbox.have == 0 && !srdma_tls_read_needs_room(conn->tls))
		conn->control_deadline = 0;
	else if (conn->control_deadline == 0)
		conn->control_deadline = srdma_deadline(CONTROL_STALL_MS);
	else if (srdma_deadline_left_ms(conn->control_deadline) == 0)
		return srdma_fail(-ETIMEDOUT, "the peer did not read its TLS channel for %d ms", CONTROL_STALL_MS);
	return 0;
}

static void progress_control(struct srdma_conn *conn)
{
	int ret;

	if (conn->status != 0)
		return;
	ret = srdma_outbox_flush(conn->tls, &conn->outbox);
	if (ret == 0)
		ret = poll_control(conn);
	if (ret == 0)
		ret = check_stall(conn);
	if (ret == 0 && !conn->options.raw)
		ret = srdma_epoch_step(conn, true);
	if (ret == 0)
		ret = answer_disconnect(conn);
	/* The queue pair, new or old, has failed meanwhile. */
	if (ret == SRDMA_EVERBS)
		ret = srdma_epoch_break(conn, ret);
	if (ret != 0)
		srdma_conn_end(conn, ret);
	watch_control(conn);
}

static void progress(struct srdma_conn *conn)
{
	int ret;

	if (conn->status != 0 || conn->options.raw)
		return;
	ret = srdma_stream_poll(&conn->stream);
	if (ret == 0 && conn->sealed)
		ret = srdma_sealed_rdma_step(&conn->sealed_rdma);
	if (ret == 0)
		ret = srdma_epoch_step(conn, false);
	if (ret == 0)
		ret = answer_disconnect(conn);
	if (ret == 0 && atomic_load_explicit(&conn->device_event, memory_order_relaxed) != 0)
		ret = take_device_event(conn);
	if (ret != 0)
		fail_progress(conn, ret);
	/* While a renewal is under way, the TLS channel moves it on. */
	if (++conn->rounds % ROUNDS_PER_CONTROL == 0 || conn->control_more || srdma_epoch_is_changing(conn))
		progress_control(conn);
}

void srdma_conn_push(struct srdma_conn *conn)
{
	int ret = conn->status == 0 ? srdma_sealed_rdma_step(&conn->sealed_rdma) : 0;

	if (ret != 0)
		fail_progress(conn, ret);
}

/* What a latency-bound waiter repeats: only where messages come in. */
static void progress_receives(struct srdma_conn *conn)
{
	if (conn->options.raw || conn->status != 0)
		return;
	int ret = srdma_stream_poll_receives(&conn->stream);
	if (ret != 0)
		fail_progress(conn, ret);
}


void srdma_conn_progress(struct srdma_conn *conn, bool control)
{
	if (control)
		progress_control(conn);
	progress(conn);
}

short srdma_conn_control_events(const struct srdma_conn *conn)
{
	if (conn->status != 0 || (conn->closing.finished && conn->outbox.have == 0))
		return 0;
	if (conn->closing.finished || srdma_tls_read_needs_room(conn->tls))
		return POLLOUT;
	return conn->outbox.have > 0 ? POLLIN | POLLOUT : POLLIN;
}

bool srdma_conn_control_is_stalled(const struct srdma_conn *conn)
{
	return conn->status == 0 && conn->control_deadline != 0;
}

void srdma_conn_arm(struct srdma_conn *conn)
{
	if (conn->armed || conn->options.raw || conn->status != 0)
		return;
	if (ibv_req_notify_cq(conn->recv_cq, 0) != 0 || ibv_req_notify_cq(conn->send_cq, 0) != 0) {
		srdma_fail(SRDMA_EVERBS, "cannot arm the completion queues");
		srdma_conn_end(conn, SRDMA_EVERBS);
		return;
	}
	conn->armed = true;
}

struct srdma_conn *srdma_conn_take_cq_event(struct ibv_comp_channel *channel)
{
	struct srdma_conn *conn;
	struct ibv_cq *cq;
	void *context;

	if (ibv_get_cq_event(channel, &cq, &context) != 0)
		return NULL;
	conn = context;
	if (cq == conn->send_cq)
		conn->unacked_send++;
	else
		conn->unacked_recv++;
	/* Either queue may have fired: both are armed again before the next sleep. */
	conn->armed = false;
	return conn;
}

/* The wait of a worker's connection, for handlers that block. The channel has other connections' events too, which the
 * worker will see to; and whoever wakes this one only leaves a mark. */
static int take_shared_events(struct srdma_conn *conn, int timeout_ms)
{
	struct pollfd fds[] = {
		{.fd = conn->comp->fd, .events = POLLIN},
		{.fd = srdma_conn_control_events(conn) ? srdma_tls_fd(conn->tls) : -1, .events = srdma_conn_control_events(conn)},
	};

	if (poll(fds, 2, timeout_ms > SLICE_MS ? SLICE_MS : timeout_ms) < 0 && errno != EINTR)
		return srdma_fail(-errno, "cannot wait: %s", strerror(errno));
	if (fds[0].revents)
		srdma_notifier_take(conn->notifier);
	if (fds[1].revents || conn->control_more)
		progress_control(conn);
	if (atomic_exchange(&conn->wake_requested, false))
		conn->woken = true;
	return 0;
}

static int take_events(struct srdma_conn *conn, int timeout_ms)
{
	struct epoll_event events[3];
	int n;

	if (conn->notifier)
		return take_shared_events(conn, timeout_ms);
	n = epoll_wait(conn->epoll_fd, events, 3, timeout_ms);
	if (n < 0 && errno != EINTR)
		return srdma_fail(-errno, "cannot wait: %s", strerror(errno));
	for (int i = 0; i < n; i++) {
		uint64_t count;

		if (events[i].data.fd == srdma_tls_fd(conn->tls)) {
			progress_control(conn);
		} else if (events[i].data.fd == conn->wake_fd) {
			/* A shared one may be written to by others than srdma_conn_wake. */
			conn->woken = (read(conn->wake_fd, &count, sizeof count) == sizeof count &&
				       (conn->shared_wake || atomic_exchange(&conn->wake_requested, false))) ||
				      conn->woken;
		} else {
			while (srdma_conn_take_cq_event(conn->comp))
				;
		}
	}
	return 0;
}

static int still_waiting(struct srdma_conn *conn)
{
	if (atomic_load_explicit(&conn->cancelled, memory_order_relaxed))
		return srdma_fail(-ECANCELED, "the server is shutting down");
	return conn->status != 0 ? srdma_conn_check(conn) : 0;
}

/* Polls for the spin time. True when `ready`. */
static bool spin(struct srdma_conn *conn, bool (*ready)(const struct srdma_conn *), uint64_t deadline)
{
	int limit = conn->options.spin;
	uint64_t until = 0;

	for (unsigned round = 1; limit != 0; round++) {
		if (round % ROUNDS_PER_SENDS == 0)
			progress(conn);
		else
			progress_receives(conn);
		if (ready(conn))
			return true;
		if (conn->status != 0)
			return false;
		if (round % ROUNDS_PER_EVENTS == 0 &&
		    (take_events(conn, 0) != 0 || atomic_load_explicit(&conn->cancelled, memory_order_relaxed)))
			return ready(conn);
		if (round % ROUNDS_PER_CLOCK == 0) {
			uint64_t now = srdma_clock_us();

			if (until == 0)
				until = limit > 0 ? now + (uint64_t)limit : deadline;
			if ((now >= until && !srdma_sealed_rdma_is_active(&conn->sealed_rdma)) || now >= deadline)
				return false;
		}
	}
	return false;
}

struct srdma_patience srdma_conn_patience(const struct srdma_conn *conn, int timeout_ms)
{
	return (struct srdma_patience){.ms = timeout_ms < 0 ? conn->options.timeout_ms : timeout_ms};
}

int srdma_conn_wait_until(struct srdma_conn *conn, bool (*ready)(const struct srdma_conn *), const char *what,
			  struct srdma_patience *patience)
{
	bool waits = patience->ms != 0;
	int ret;

	progress(conn);
	if (ready(conn))
		return 0;
	if (patience->deadline == 0)
		patience->deadline = srdma_deadline(patience->ms);
	for (bool first = true;; first = false) {
		/* Once; and again after each sleep that a sealed transfer has ended. */
		if (waits && (first || srdma_sealed_rdma_is_active(&conn->sealed_rdma)) && spin(conn, ready, patience->deadline))
			return 0;
		ret = take_events(conn, 0);
		if (ret == 0) {
			srdma_conn_arm(conn);
			/* What came between the last look and the arming raises no event. */
			progress(conn);
		}
		if (ready(conn))
			return 0;
		if (ret == 0)
			ret = still_waiting(conn);
		if (ret != 0)
			return ret;
		if (!waits) {
			/* No descriptor tells of what OpenSSL and the completion queue have already. */
			if (conn->control_more || conn->stream.receives_left)
				srdma_conn_nudge(conn);
			return srdma_again(what);
		}
		int left = srdma_deadline_left_ms(patience->deadline), closed = srdma_rate_left_ms(&conn->rate),
		    tick = srdma_conn_control_is_stalled(conn) ? STALLED_TICK_MS : srdma_epoch_tick_ms(conn);
		if (left == 0)
			return srdma_fail(-ETIMEDOUT, "timed out after %d ms waiting for %s", patience->ms, what);
		if (tick >= 0 && tick < left)
			left = tick;
		if (closed > 0 && closed < left)
			left = closed;
		ret = take_events(conn, srdma_sealed_rdma_has_work(&conn->sealed_rdma) || conn->control_more || conn->stream.receives_left ? 0 : left);
		if (ret == 0 && tick >= 0)
			progress_control(conn);
		progress(conn);
		if (ready(conn))
			return 0;
		if (ret != 0)
			return ret;
	}
}

/* ---- messages -------------------------------------------------------------------------------------------------- */

static int check_not_raw(const struct srdma_conn *conn)
{
	return conn->options.raw ? srdma_fail(-EOPNOTSUPP, "a raw connection carries no messages; use its queue pair") : 0;
}

bool srdma_conn_can_send(const struct srdma_conn *conn)
{
	/* A message is behind the writes before it: sealed ones have arrived when the peer says so. */
	return srdma_stream_can_send(&conn->stream) && (!conn->sealed || srdma_sealed_rdma_has_written(&conn->sealed_rdma));
}

static bool can_send(const struct srdma_conn *conn)
{
	return conn->status == 0 && (srdma_conn_can_send(conn) || conn->closing.peer_requested);
}

int srdma_conn_send(struct srdma_conn *conn, const void *data, size_t length, int timeout_ms)
{
	struct srdma_patience patience = srdma_conn_patience(conn, timeout_ms);
	int ret = check_not_raw(conn);

	if (ret == 0)
		ret = srdma_conn_check(conn);
	if (ret != 0)
		return ret;
	if (length > conn->stream.message_size)
		return srdma_fail(-EMSGSIZE, "the message has %zu bytes, and the ends agreed on %u at most (message-size)", length, conn->stream.message_size);
	if (!srdma_conn_can_send(conn)) {
		ret = srdma_conn_wait_until(conn, can_send, "the peer to take earlier messages", &patience);
		if (ret == 0)
			ret = srdma_conn_check(conn);
		if (ret != 0)
			return ret;
	}
	ret = srdma_stream_send(&conn->stream, data, (uint32_t)length);
	return ret == 0 ? 0 : srdma_conn_end(conn, ret);
}

static bool has_message(const struct srdma_conn *conn)
{
	/* The program hears of the peer's disconnect once the peer has its answer: the program may free the connection at once. */
	return (conn->stream.arrival_count > 0 && srdma_rate_is_open(&conn->rate)) || conn->closing.peer_answered || conn->closing.finished;
}

int srdma_conn_peek(struct srdma_conn *conn, const void **data, uint32_t *length)
{
	int ret = srdma_stream_peek(&conn->stream, data, length);

	return ret < 0 ? srdma_conn_end(conn, ret) : ret;
}

int srdma_conn_recv(struct srdma_conn *conn, void *buffer, size_t size, size_t *length, int timeout_ms)
{
	struct srdma_patience patience = srdma_conn_patience(conn, timeout_ms);
	uint32_t n;
	int ret = check_not_raw(conn);

	if (ret == 0 && !has_message(conn))
		ret = conn->closing.finished ? srdma_conn_check(conn)
					     : srdma_conn_wait_until(conn, has_message, "a message from the peer", &patience);
	if (ret != 0)
		return ret;
	if (!srdma_stream_next_length(&conn->stream, &n))
		return srdma_conn_check(conn);
	*length = n;
	if (n > size)
		return srdma_fail(-EMSGSIZE, "the message has %u bytes, and the buffer %zu; call again with a larger one", n, size);
	ret = srdma_stream_read(&conn->stream, buffer);
	if (ret != 0)
		return srdma_conn_end(conn, ret);
	srdma_rate_take(&conn->rate, n);
	ret = srdma_stream_consume(&conn->stream);
	/* The message is the caller's now; a failure shows at the next call. */
	if (ret != 0 && conn->status == 0 && !conn->closing.finished)
		srdma_conn_end(conn, ret);
	return 0;
}

static bool has_anything(const struct srdma_conn *conn)
{
	return has_message(conn) || conn->stream.done_count > 0 || conn->woken;
}

int srdma_conn_wait(struct srdma_conn *conn, int timeout_ms)
{
	struct srdma_patience patience = srdma_conn_patience(conn, timeout_ms);
	int ret = srdma_conn_wait_until(conn, has_anything,
					conn->options.raw ? "the end of the connection" : "a message, a completion or the end of the connection",
					&patience);

	if (ret != 0)
		return ret;
	if (conn->woken) {
		conn->woken = false;
		return srdma_fail(-EINTR, "another thread ended the wait (srdma_conn_wake)");
	}
	/* Not a message, not a completion: then it is the peer's disconnect. */
	return conn->stream.arrival_count > 0 || conn->stream.done_count > 0 ? 0 : srdma_conn_check(conn);
}

/* ---- the own region -------------------------------------------------------------------------------------------- */

int srdma_conn_withdraw_region(struct srdma_conn *conn)
{
	int ret = srdma_conn_check(conn);

	if (ret != 0)
		return ret;
	if (!conn->region.address || conn->own.region_size == 0)
		return srdma_fail(-ENXIO, "this end offers no region, or has withdrawn it before");
	conn->own.region_size = 0;
	conn->own.region_access = conn->own.region_rkey = 0;
	ret = srdma_region_withdraw(&conn->region);
	if (ret == 0)
		ret = send_empty(conn, SRDMA_FRAME_WITHDRAW);
	return ret == 0 ? 0 : srdma_conn_end(conn, ret);
}

/* ---- disconnect ------------------------------------------------------------------------------------------------ */

static bool sends_done(const struct srdma_conn *conn)
{
	return is_idle(conn);
}

static bool answered(const struct srdma_conn *conn)
{
	return conn->closing.finished ||
	       (conn->closing.acknowledged && all_arrived(conn) &&
		(!conn->closing.peer_requested || conn->closing.peer_answered));
}

static int finish_disconnect(struct srdma_conn *conn)
{
	srdma_fail(SRDMA_ECLOSED, "the connection was disconnected%s%s", conn->close_reason[0] ? ": " : "",
		   conn->close_reason);
	srdma_conn_end(conn, SRDMA_ECLOSED);
	return 0;
}

/* We ask, the peer answers, we finish. */
static int request_disconnect(struct srdma_conn *conn, const char *reason)
{
	struct srdma_closing *closing = &conn->closing;
	int ret = 0;

	if (!closing->requested) {
		ret = srdma_stream_flush(&conn->stream);
		if (ret == 0 && !sends_done(conn))
			return -EAGAIN;
		if (ret == 0)
			ret = send_count(conn, SRDMA_FRAME_DISCONNECT, reason);
		closing->requested = true;
	}
	if (ret != 0)
		return ret;
	if (!answered(conn))
		return -EAGAIN;
	if (!closing->finished) {
		ret = send_empty(conn, SRDMA_FRAME_FINISH);
		closing->finished = true;
		closing->peer_close_deadline = srdma_deadline(PEER_CLOSE_MS);
	}
	return ret;
}

/* The peer closes once it has freed all: a client that reconnects at once finds its slot free. */
static bool peer_has_closed(const struct srdma_conn *conn, uint64_t deadline)
{
	return conn->closing.peer_close_deadline == 0 || srdma_deadline_left_ms(conn->closing.peer_close_deadline) == 0 ||
	       srdma_net_wait(srdma_tls_fd(conn->tls), POLLIN, deadline) == 0;
}

int srdma_conn_disconnect_step(struct srdma_conn *conn, const char *reason)
{
	struct srdma_closing *closing = &conn->closing;
	int ret = 0;

	if (conn->status != 0)
		return srdma_conn_check(conn);
	/* The connection's progress answers the end that asked first, which finishes. */
	if (closing->peer_requested && !closing->requested)
		ret = closing->finished ? 0 : -EAGAIN;
	else if (!closing->finished)
		ret = request_disconnect(conn, reason);
	if (ret == -EAGAIN || (ret == 0 && !peer_has_closed(conn, 0)))
		return -EAGAIN;
	return ret == 0 ? finish_disconnect(conn) : srdma_conn_end(conn, ret);
}

static bool disconnect_goes_on(const struct srdma_conn *conn)
{
	const struct srdma_closing *closing = &conn->closing;

	if (conn->status != 0)
		return true;
	if (closing->peer_requested && !closing->requested)
		return closing->finished;
	return closing->requested ? answered(conn) : sends_done(conn);
}

static const char *disconnect_awaits(const struct srdma_conn *conn)
{
	if (conn->closing.peer_requested && !conn->closing.requested)
		return "the peer to finish its disconnect";
	return conn->closing.requested ? "the peer to answer the disconnect" : "outstanding work before the disconnect";
}

int srdma_conn_disconnect(struct srdma_conn *conn, const char *reason, int timeout_ms)
{
	struct srdma_patience patience = srdma_conn_patience(conn, timeout_ms);
	int ret;

	/* It may have come about by the peer, or by an earlier call. */
	if ((conn->status == 0 && conn->closing.finished && !conn->closing.requested) || conn->status == SRDMA_ECLOSED)
		return 0;
	while ((ret = srdma_conn_disconnect_step(conn, reason)) == -EAGAIN) {
		if (conn->closing.finished && conn->closing.peer_close_deadline != 0) {
			/* The disconnect is complete. Waiting for the peer to close helps programs that connect again at once. */
			if (patience.ms == 0)
				return finish_disconnect(conn);
			peer_has_closed(conn, conn->closing.peer_close_deadline);
			continue;
		}
		ret = srdma_conn_wait_until(conn, disconnect_goes_on, disconnect_awaits(conn), &patience);
		if (ret == -EAGAIN)
			return ret;
		if (ret != 0)
			return srdma_conn_end(conn, ret);
	}
	return ret;
}
