/* SPDX-License-Identifier: Apache-2.0 */
/* A connected client, which its worker serves one turn at a time until the client has gone. */
#include "clock.h"
#include "events.h"
#include "log.h"
#include "metrics.h"
#include "server.h"
#include "stream.h"
#include "wake.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

/* Messages of one client in a turn, so that other clients get theirs. */
#define TURN 16

void srdma_client_cool(struct srdma_client *client)
{
	struct srdma_worker *worker = client->worker;

	if (!client->hot)
		return;
	client->hot = false;
	for (unsigned i = 0; i < worker->hot_count; i++) {
		if (worker->hot[i] == client) {
			worker->hot[i] = worker->hot[--worker->hot_count];
			return;
		}
	}
}

/* Runs before the slot is released, so that a reader that sees the client gone sees it counted, and a stop that begins later is not
 * taken for the cause. */
static void count_end(struct srdma_client *client, int status, bool lost)
{
	struct srdma_server *server = client->server;

	pthread_mutex_lock(&server->mutex);
	srdma_metrics_count_end(server, client->conn, status, lost);
	server->lost += lost;
	server->unclean += lost && atomic_load(&server->stopping);
	pthread_mutex_unlock(&server->mutex);
}

static void release(struct srdma_client *client)
{
	struct srdma_server *server = client->server;
	struct srdma_worker *worker = client->worker;
	struct srdma_conn *conn = client->conn;

	pthread_mutex_lock(&server->slots.mutex);
	srdma_traffic_add(&server->gone, conn);
	client->conn = NULL;
	pthread_mutex_unlock(&server->slots.mutex);
	srdma_client_cool(client);
	for (enum srdma_mark mark = 0; mark < SRDMA_MARKS; mark++)
		srdma_client_mark(client, mark, false);
	srdma_clients_remove(&worker->clients, client);
	/* The objects go first, then the slot, then the channel, so that a client that sees the channel close can connect again at once. */
	srdma_conn_release_verbs(conn);
	srdma_slots_release(&server->slots, &client->slot);
	srdma_worker_leave(worker);
	srdma_conn_free(&conn);
	OPENSSL_cleanse(&client->info, sizeof client->info); /* PSNs */
	free(client);
	pthread_mutex_lock(&server->mutex);
	server->clients--;
	pthread_cond_broadcast(&server->ended);
	pthread_mutex_unlock(&server->mutex);
	if (atomic_load(&server->draining))
		srdma_server_nudge(server);
}

void srdma_client_finish(struct srdma_client *client, int status, bool lost)
{
	const struct srdma_server_options *o = &client->server->options;
	char text[512];

	srdma_error_keep(text, sizeof text);
	client->worker->served = client;
	if (o->on_disconnect)
		o->on_disconnect(client->conn, status, client->arg, o->arg);
	srdma_event_ended(client, status, lost, text);
	count_end(client, status, lost);
	release(client);
}

/* `ret`: the result of the disconnect. */
static void finish_ending(struct srdma_client *client, int ret)
{
	if (client->status == 0) {
		srdma_client_finish(client, ret, ret != 0);
	} else {
		/* The server's program ended the client, not a failure of the connection: a client that was told why is not lost. */
		if (ret == 0)
			srdma_fail(SRDMA_ECLOSED, "disconnected by this server: %s", client->reason);
		srdma_client_finish(client, client->status, ret != 0);
	}
}

/* The call may free the client. */
static void go_on_ending(struct srdma_client *client)
{
	int ret;

	srdma_conn_progress(client->conn, false);
	ret = srdma_conn_go_on_leaving(client->conn, client->reason[0] ? client->reason : NULL);
	if (ret == -EAGAIN) {
		if (srdma_deadline_left_ms(client->deadline) > 0 && !atomic_load(&client->server->cancelled))
			return;
		ret = srdma_conn_end(client->conn, srdma_fail(-ETIMEDOUT, "timed out waiting for the client to answer the disconnect"));
	}
	finish_ending(client, ret);
}

void srdma_client_end(struct srdma_client *client, int status, const char *reason)
{
	if (client->marks[SRDMA_MARK_ENDING])
		return;
	srdma_client_cool(client);
	srdma_client_mark(client, SRDMA_MARK_BLOCKED, false);
	srdma_client_mark(client, SRDMA_MARK_ENDING, true);
	client->status = status;
	if (reason != client->reason)
		snprintf(client->reason, sizeof client->reason, "%s", reason);
	client->deadline = srdma_deadline(client->server->options.drain_timeout_ms);
}

/* Before a function of the program is called. */
static void begin_call(struct srdma_client *client)
{
	client->conn->declined = NULL;
	client->conn->waited_us = 0;
	client->worker->served = client;
}

/* A function of the program has returned `ret`. Returns whether it has put its matter off. */
static bool note_put_off(struct srdma_client *client, struct srdma_put_off *off, int ret)
{
	*off = (struct srdma_put_off){.is = ret == -EAGAIN, .until = client->conn->declined};
	return off->is;
}

static bool can_go_on(const struct srdma_client *client, const struct srdma_put_off *off)
{
	return off->is && off->until && off->until(client->conn);
}

static bool at_once(const struct srdma_conn *conn)
{
	(void)conn;
	return true;
}

void srdma_client_retry(struct srdma_client *client)
{
	client->message.until = client->control.until = client->complete.until = at_once;
}

/* Notes whether the oldest message has to wait, for the program or for on_wake. The client has its time anew when it has taken
 * something. */
static void block(struct srdma_client *client, bool blocked, bool got_on)
{
	uint64_t sent = srdma_counter_read(&client->conn->queues.counters.messages_sent);

	if (blocked && (!client->marks[SRDMA_MARK_BLOCKED] || got_on || sent != client->sent)) {
		client->deadline = srdma_deadline(client->server->options.conn->timeout_ms);
		client->sent = sent;
	}
	srdma_client_mark(client, SRDMA_MARK_BLOCKED, blocked);
}

/* The program's function has returned `ret`. A failure that the client's own disconnect causes is no error. */
static void take_result(struct srdma_client *client, int ret)
{
	const struct srdma_conn *conn = client->conn;

	if (ret != 0 && conn->status == 0)
		srdma_client_end(client, conn->closing.peer_requested ? 0 : ret, client->reason[0] ? client->reason : "ended by the server");
}

/* Whether on_wake has to finish before the next message: it is due, or waits for room. So the program is done with one message before
 * it gets another, even if it cannot answer the first at once. */
static bool is_held_by_wake(const struct srdma_client *client)
{
	struct srdma_conn *conn = client->conn;

	return client->server->options.on_wake && (conn->woken || atomic_load(&conn->wake_requested) || (client->wake.is && client->wake.until));
}

static bool has_stream_event(const struct srdma_client *client)
{
	return client->server->options.on_stream && client->conn->status == 0 && srdma_stream_has_event(client->conn->stream);
}

static int hand_over_notice(struct srdma_client *client, const struct srdma_notice *notice)
{
	const struct srdma_server_options *o = &client->server->options;

	if (o->on_notice)
		return o->on_notice(client->conn, notice, client->reason, client->arg, o->arg);
	snprintf(client->reason, sizeof client->reason, "this server takes no notices");
	return srdma_fail(SRDMA_EPROTOCOL, "the client sent a notice, and the program has no on_notice");
}

/* Hands over the oldest message or notice; *length is that of the message. 0, or the program's result; -ENODATA: the connection has ended. */
static int hand_over(struct srdma_client *client, uint32_t *length)
{
	const struct srdma_server_options *o = &client->server->options;
	struct srdma_conn *conn = client->conn;
	struct srdma_notice notice;
	const void *data;

	*length = 0;
	if (srdma_queues_next_is_notice(&conn->queues))
		return srdma_conn_peek_notice(conn, &notice) == 0 ? hand_over_notice(client, &notice) : -ENODATA;
	if (srdma_conn_peek(conn, &data, length) != 1)
		return -ENODATA;
	return o->on_message ? o->on_message(conn, data, *length, client->reason, client->arg, o->arg) : 0;
}

/* Hands over the messages and notices that have come, up to a turn. Returns whether there was any. */
static bool serve_messages(struct srdma_client *client)
{
	struct srdma_conn *conn = client->conn;
	bool held = false;
	uint32_t length;
	int ret = 0, taken = 0;

	if (client->message.is && !can_go_on(client, &client->message))
		return false;
	while (taken < TURN && ret == 0 && conn->status == 0 && srdma_rate_is_open(&conn->rate) && srdma_queues_has_message(&conn->queues)) {
		held = is_held_by_wake(client);
		if (held)
			break;
		begin_call(client);
		ret = hand_over(client, &length);
		if (ret == -ENODATA && conn->status != 0)
			return taken > 0;
		if (note_put_off(client, &client->message, ret))
			break;
		if (ret == 0) {
			srdma_rate_take(&conn->rate, length);
			ret = srdma_queues_consume(&conn->queues);
		}
		taken += ret == 0;
		if (ret == 0 && srdma_queues_should_poll(&conn->queues))
			srdma_conn_progress_receives(conn);
	}
	block(client, held || client->message.is, taken > 0);
	if (!client->message.is)
		take_result(client, ret);
	return taken > 0;
}

static bool has_control(const struct srdma_client *client)
{
	return srdma_control_queue_has_message(client->conn) && (!client->control.is || can_go_on(client, &client->control));
}

/* Moves the client's stream on, and tells the program when a call on it is worth repeating. Returns whether it was told. */
static bool serve_stream(struct srdma_client *client)
{
	const struct srdma_server_options *o = &client->server->options;
	struct srdma_conn *conn = client->conn;
	int ret;

	srdma_stream_pump(conn->stream);
	if (!has_stream_event(client))
		return false;
	srdma_stream_begin_turn(conn->stream);
	ret = o->on_stream(conn, conn->stream, client->reason, client->arg, o->arg);
	if (ret == -EAGAIN && conn->stream)
		srdma_stream_ask_for_turn(conn->stream);
	take_result(client, ret == -EAGAIN ? 0 : ret);
	return true;
}

/* Hands over the control messages that have come; the protocol limits their number. */
static void serve_control(struct srdma_client *client)
{
	const struct srdma_server_options *o = &client->server->options;
	struct srdma_conn *conn = client->conn;
	const void *data;
	size_t length;
	int ret = 0;

	while (ret == 0 && has_control(client) && srdma_control_queue_peek(conn, &data, &length)) {
		begin_call(client);
		ret = o->on_control(conn, data, length, client->reason, client->arg, o->arg);
		if (note_put_off(client, &client->control, ret))
			return;
		if (ret == 0)
			ret = srdma_control_queue_consume(conn);
	}
	take_result(client, ret);
}

static void serve_regions(struct srdma_client *client)
{
	const struct srdma_server_options *o = &client->server->options;
	struct srdma_regions *regions = client->conn->regions;

	if (!o->on_regions || !srdma_regions_have_changed(regions))
		return;
	regions->handled = regions->changes;
	take_result(client, o->on_regions(client->conn, client->reason, client->arg, o->arg));
}

static bool is_woken(const struct srdma_client *client)
{
	return client->server->options.on_wake && (client->conn->woken || can_go_on(client, &client->wake));
}

static void serve_wake(struct srdma_client *client)
{
	const struct srdma_server_options *o = &client->server->options;
	int ret;

	if (!is_woken(client))
		return;
	client->conn->woken = false;
	begin_call(client);
	ret = o->on_wake(client->conn, client->reason, client->arg, o->arg);
	if (!note_put_off(client, &client->wake, ret))
		take_result(client, ret);
}

static bool has_completions(const struct srdma_client *client)
{
	/* A stream takes its own. */
	if (!client->server->options.on_complete || client->conn->stream)
		return false;
	return client->complete.is ? can_go_on(client, &client->complete) : client->conn->queues.done_ring.count > 0;
}

/* Hands over the completions that have come, up to a turn. */
static void serve_completions(struct srdma_client *client)
{
	const struct srdma_server_options *o = &client->server->options;
	int ret = 0;

	for (int taken = 0; taken < TURN && ret == 0 && has_completions(client); taken++) {
		if (!client->complete.is)
			srdma_queues_take_done(&client->conn->queues, &client->cookie);
		begin_call(client);
		ret = o->on_complete(client->conn, client->cookie, client->reason, client->arg, o->arg);
		if (note_put_off(client, &client->complete, ret))
			return;
	}
	take_result(client, ret);
}

/* Calls the program's functions, but for on_message, for what has happened. */
static void serve_events(struct srdma_client *client)
{
	serve_control(client);
	if (!client->marks[SRDMA_MARK_ENDING])
		serve_regions(client);
	if (!client->marks[SRDMA_MARK_ENDING])
		serve_completions(client);
	if (!client->marks[SRDMA_MARK_ENDING])
		serve_wake(client);
}

bool srdma_client_has_work(const struct srdma_client *client)
{
	const struct srdma_conn *conn = client->conn;

	if (conn->status != 0)
		return true;
	if (client->server->options.on_regions && srdma_regions_have_changed(conn->regions))
		return true;
	if (conn->queues.receives_left || has_control(client) || has_completions(client) || is_woken(client))
		return true;
	if (conn->stream && (srdma_stream_has_work(conn->stream) || has_stream_event(client)))
		return true;
	if (client->marks[SRDMA_MARK_BLOCKED] && (srdma_sealed_rdma_has_work(&conn->sealed_rdma) || conn->control_more))
		return true;
	if (client->marks[SRDMA_MARK_BLOCKED])
		return can_go_on(client, &client->message);
	return (srdma_queues_has_message(&conn->queues) && !client->marks[SRDMA_MARK_THROTTLED]) || conn->closing.peer_requested || conn->control_more ||
	       srdma_sealed_rdma_has_work(&conn->sealed_rdma);
}

/* A client has a deadline while it gets new PSNs, and while it does not read its TLS channel. */
static void watch_change(struct srdma_client *client)
{
	bool changing = client->conn->status == 0 && (srdma_epoch_is_changing(client->conn) || srdma_conn_control_is_stalled(client->conn));

	srdma_client_mark(client, SRDMA_MARK_CHANGING, changing);
}

/* A client that has used up its bytes for now must be looked at again by the clock, since no event will announce it. */
static void watch_rate(struct srdma_client *client)
{
	srdma_client_mark(client, SRDMA_MARK_THROTTLED, !srdma_rate_is_open(&client->conn->rate));
}

void srdma_client_watch(struct srdma_client *client, int operation)
{
	/* After FINISH only the peer's close is left to wait for. */
	short events = srdma_conn_control_events(client->conn) | (client->conn->closing.finished ? POLLIN : 0);
	struct epoll_event event = {.events = (events & POLLIN ? EPOLLIN : 0u) | (events & POLLOUT ? EPOLLOUT : 0u), .data.ptr = client};

	if (operation == EPOLL_CTL_MOD && events == client->events)
		return;
	client->events = events;
	if (epoll_ctl(client->worker->epoll_fd, operation, srdma_tls_fd(client->conn->tls), &event) != 0)
		srdma_conn_end(client->conn, srdma_fail(-errno, "cannot watch a socket: %s", strerror(errno)));
}

void srdma_client_progress(struct srdma_client *client, bool control)
{
	srdma_conn_progress(client->conn, control);
	srdma_client_watch(client, EPOLL_CTL_MOD);
	watch_change(client);
	watch_rate(client);
}

void srdma_client_rest(struct srdma_client *client, bool was_busy)
{
	struct srdma_worker *worker = client->worker;
	int spin = client->server->options.conn->spin;

	was_busy = was_busy || srdma_sealed_rdma_is_active(&client->conn->sealed_rdma);
	if (was_busy && spin != 0 && (client->hot || worker->hot_count < SRDMA_HOT_MAX)) {
		if (!client->hot)
			worker->hot[worker->hot_count++] = client;
		client->hot = true;
		client->hot_until = spin < 0 ? UINT64_MAX : srdma_clock_us() + (uint64_t)spin;
	}
	if (client->hot)
		return;
	srdma_conn_arm(client->conn);
	/* A completion between the last look and the arming raises no event. */
	srdma_client_progress(client, false);
	if (srdma_client_has_work(client))
		srdma_notifier_add(&worker->notifier, client->conn);
}

void srdma_client_run(struct srdma_client *client)
{
	struct srdma_conn *conn = client->conn;
	bool busy;

	if (client->waits) {
		if (conn->wait_fd >= 0)
			srdma_wake_send(conn->wait_fd);
		return;
	}
	watch_change(client);
	if (client->marks[SRDMA_MARK_ENDING]) {
		go_on_ending(client);
		return;
	}
	srdma_client_progress(client, false);
	serve_events(client);
	busy = !client->marks[SRDMA_MARK_ENDING] && (conn->stream ? serve_stream(client) : serve_messages(client));
	if (busy)
		srdma_client_progress(client, false); /* returns credits, and takes messages that came meanwhile */
	if (conn->status != 0) {
		srdma_client_finish(client, srdma_conn_check(conn), true);
		return;
	}
	if (conn->closing.peer_requested && !srdma_queues_has_message(&conn->queues))
		srdma_client_end(client, 0, "");
	else if (atomic_load_explicit(&client->kicked, memory_order_acquire))
		srdma_client_end(client, -ECONNABORTED, client->kick_reason); /* written before `kicked`, and constant since */
	else if (atomic_load_explicit(&client->server->stopping, memory_order_relaxed))
		srdma_client_end(client, 0, "the server is shutting down");
	if (client->marks[SRDMA_MARK_ENDING]) {
		go_on_ending(client);
		return;
	}
	if (srdma_client_has_work(client))
		srdma_notifier_add(&client->worker->notifier, conn);
	else
		srdma_client_rest(client, busy);
}

/* A client that is being disconnected must stay armed, because the disconnect waits for its completions. */
void srdma_client_rest_ending(struct srdma_client *client)
{
	srdma_conn_arm(client->conn);
	go_on_ending(client);
}
