/* SPDX-License-Identifier: Apache-2.0 */
/* The listener thread: accepts while there is room, and watches the device and the drain. */
#include "clock.h"
#include "device.h"
#include "events.h"
#include "listener.h"
#include "log.h"
#include "net.h"
#include "psn_watch.h"
#include "server.h"
#include "server_limits.h"
#include "wake.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* If accept fails because descriptors or memory are short, trying again at once would only waste time. */
#define ACCEPT_PAUSE_MS 100
#define DEVICE_CHECK_MS 2000

void srdma_server_nudge(struct srdma_server *server)
{
	srdma_wake_send(server->room_fd);
}

/* A connection was accepted: one of the set-up threads takes it. */
static void begin_setup(struct srdma_server *server, const struct srdma_newcomer *newcomer, unsigned turn)
{
	struct srdma_client *client = calloc(1, sizeof *client);
	const struct sockaddr *peer = (const struct sockaddr *)&newcomer->peer;

	if (!client) {
		srdma_log(SRDMA_LOG_ERROR, "out of memory: closed the connection of a client");
		close(newcomer->socket);
		return;
	}
	client->server = server;
	client->slot.client = client;
	client->newcomer = *newcomer;
	client->arrived = srdma_clock_us();
	srdma_net_format(peer, client->address, sizeof client->address);
	client->newcomer.behind_proxy = srdma_net_gid_of(peer, &client->peer) && srdma_networks_contain(&server->proxies, &client->peer);
	pthread_mutex_lock(&server->mutex);
	server->pending++;
	pthread_mutex_unlock(&server->mutex);
	srdma_setup_thread_give(&server->setup_threads[turn % server->setup_thread_count], client);
}

static void raise_event(struct srdma_server *server)
{
	srdma_wake_send(server->event_fd);
}

static void fail_device(struct srdma_server *server, const char *why)
{
	if (atomic_exchange(&server->device_failed, true))
		return;
	srdma_event_device_gone(server->device, why);
	raise_event(server);
}

struct failed_queue {
	const struct ibv_async_event *event;
	bool found;
};

static void fail_queue_of(void *entry, void *arg)
{
	struct srdma_client *client = entry;
	struct failed_queue *failed = arg;
	const struct ibv_async_event *event = failed->event;
	struct srdma_conn *conn = client->conn;

	if (!conn || failed->found)
		return;
	failed->found = event->event_type == IBV_EVENT_CQ_ERR
				? event->element.cq == conn->send_cq || event->element.cq == conn->recv_cq
				: event->element.qp->qp_context == conn; /* its queue pair may be replaced meanwhile */
	if (failed->found)
		srdma_conn_fail_later(conn, event->event_type);
}

/* Ends the client that has this queue, and no other. */
static void fail_queue(struct srdma_server *server, const struct ibv_async_event *event)
{
	struct failed_queue failed = {.event = event};

	srdma_slots_each(&server->slots, fail_queue_of, &failed);
	/* The client is in set-up or is ending: its completions and its TLS channel report the failure. */
	if (!failed.found)
		srdma_log(SRDMA_LOG_DEBUG, "%s: %s, which concerns no connected client", srdma_device_name(server->device),
			  ibv_event_type_str(event->event_type));
}

static void take_device_event(struct srdma_server *server)
{
	struct ibv_async_event event;

	if (ibv_get_async_event(srdma_device_context(server->device), &event) != 0)
		return;
	switch (event.event_type) {
	case IBV_EVENT_DEVICE_FATAL: fail_device(server, "fatal device error"); break;
	case IBV_EVENT_CQ_ERR:
	case IBV_EVENT_QP_FATAL:
	case IBV_EVENT_QP_REQ_ERR:
	case IBV_EVENT_QP_ACCESS_ERR:
	case IBV_EVENT_PATH_MIG_ERR: fail_queue(server, &event); break;
	case IBV_EVENT_COMM_EST:
	case IBV_EVENT_SQ_DRAINED: break; /* nothing is wrong */
	default: srdma_event_device(server->device, &event); break;
	}
	/* A queue pair can't be destroyed before its events are acknowledged. */
	ibv_ack_async_event(&event);
}

/* Some drivers raise no event when their device is removed: rdma_rxe raises no DEVICE_FATAL. */
static void check_device(struct srdma_server *server)
{
	struct ibv_port_attr attr;
	int error = ibv_query_port(srdma_device_context(server->device), srdma_device_port(server->device), &attr);

	if (error == ENODEV || error == EIO)
		fail_device(server, strerror(error));
}

/* The rate at which set-ups may begin: so many each second, and as many in one burst. */
struct allowance {
	double tokens;
	uint64_t at;
};

/* Milliseconds until the next set-up may begin; 0: now. */
static int allowance_left(struct allowance *allowance, unsigned rate)
{
	uint64_t now = srdma_clock_us();

	if (rate == 0)
		return 0;
	allowance->tokens += (double)(now - allowance->at) * rate / 1e6;
	allowance->at = now;
	if (allowance->tokens > rate)
		allowance->tokens = rate;
	return allowance->tokens >= 1 ? 0 : 1 + (int)((1 - allowance->tokens) * 1000 / rate);
}

static unsigned setup_rate(struct srdma_server *server)
{
	unsigned rate;

	pthread_mutex_lock(&server->mutex);
	rate = server->limits.max_setups_per_second;
	pthread_mutex_unlock(&server->mutex);
	return rate;
}

/* Whether there is a place to set up one more client. If there is none, silent clients that hold a place get less time. */
static bool has_room(struct srdma_server *server)
{
	bool room;

	pthread_mutex_lock(&server->mutex);
	room = server->pending < srdma_limits_most_pending(&server->limits);
	pthread_mutex_unlock(&server->mutex);
	if (atomic_exchange(&server->pressed, !room) == room && !room)
		for (unsigned i = 0; i < server->setup_thread_count; i++)
			srdma_setup_thread_wake(&server->setup_threads[i]);
	return room;
}

/* During a drain, shortens `timeout_ms` to the time left until the deadline. */
static int drain_wait(struct srdma_server *server, int timeout_ms)
{
	int left;

	if (!atomic_load(&server->draining) || atomic_load(&server->drained))
		return timeout_ms;
	left = srdma_deadline_left_ms(atomic_load(&server->drain_deadline));
	return left < timeout_ms ? left : timeout_ms;
}

static void check_drain(struct srdma_server *server)
{
	unsigned left;

	if (!atomic_load(&server->draining) || atomic_load(&server->drained))
		return;
	left = srdma_slots_used(&server->slots);
	if (left > 0 && srdma_deadline_left_ms(atomic_load(&server->drain_deadline)) > 0)
		return;
	atomic_store(&server->drained, true);
	if (left == 0)
		srdma_log(SRDMA_LOG_INFO, "drained; no client is connected any more");
	else
		srdma_log(SRDMA_LOG_WARN, "the time of the drain is over, and %u client%s still connected", left, left == 1 ? " is" : "s are");
	raise_event(server);
}

static void take_client(struct srdma_server *server, struct srdma_listener *listener, unsigned turn)
{
	struct srdma_newcomer newcomer = {0};

	newcomer.socket = srdma_listener_accept_from(listener, 0, &newcomer.peer);
	if (newcomer.socket >= 0) {
		begin_setup(server, &newcomer, turn);
	} else if (newcomer.socket != -EAGAIN) {
		srdma_log(SRDMA_LOG_ERROR, "%s", srdma_error_text());
		poll(NULL, 0, ACCEPT_PAUSE_MS);
	}
}

/* Whether the server may accept one more connection. */
static bool is_open(struct srdma_server *server, const struct allowance *allowance, unsigned rate)
{
	return (rate == 0 || allowance->tokens >= 1) && has_room(server);
}

/* How long the thread may sleep: it looks at the device's counters for all clients. */
static int watch_wait(const struct srdma_server *server, int timeout_ms)
{
	int left = srdma_deadline_left_ms(srdma_psn_watch_next(srdma_clock_us()));

	return srdma_device_watches(server->device) && left < timeout_ms ? left : timeout_ms;
}

static void check_sweeps(struct srdma_server *server)
{
	uint64_t sweeps = srdma_device_sweeps(server->device);

	if (atomic_exchange(&server->sweeps, sweeps) != sweeps)
		srdma_workers_wake(server);
}

void *srdma_acceptor_main(void *arg)
{
	struct srdma_server *server = arg;
	struct pollfd fds[3 + SRDMA_LISTENERS_MAX] = {
		{.fd = server->stop_fd, .events = POLLIN},
		{.fd = server->room_fd, .events = POLLIN},
		{.fd = srdma_device_context(server->device)->async_fd, .events = POLLIN},
	};
	struct pollfd *const doors = fds + 3;
	const unsigned door_count = server->listener_count;
	struct allowance allowance = {.tokens = setup_rate(server), .at = srdma_clock_us()};
	uint64_t checked = srdma_clock_us();

	for (unsigned turn = 0;;) {
		unsigned rate = setup_rate(server);
		int pause = allowance_left(&allowance, rate);
		bool open = is_open(server, &allowance, rate);

		for (unsigned i = 0; i < door_count; i++)
			doors[i] = (struct pollfd){.fd = open ? srdma_listener_fd(server->listeners[i]) : -1, .events = POLLIN};
		if (poll(fds, 3 + door_count, watch_wait(server, drain_wait(server, pause > 0 ? pause : DEVICE_CHECK_MS))) < 0)
			continue;
		check_sweeps(server);
		if (fds[2].revents || srdma_clock_us() - checked >= DEVICE_CHECK_MS * 1000) {
			check_device(server);
			checked = srdma_clock_us();
		}
		if (fds[0].revents)
			break;
		if (fds[1].revents)
			srdma_wake_take(server->room_fd);
		check_drain(server);
		if (fds[2].revents & POLLIN)
			take_device_event(server);
		if (fds[2].revents & (POLLERR | POLLHUP | POLLNVAL)) {
			fail_device(server, "its event channel is closed");
			fds[2].fd = -1;
		}
		/* Accepts one connection from each socket, so that no socket's clients wait behind another's. */
		for (unsigned i = 0; i < door_count; i++) {
			if (!doors[i].revents || !is_open(server, &allowance, rate))
				continue;
			take_client(server, server->listeners[i], turn++);
			allowance.tokens -= rate > 0;
		}
	}
	return NULL;
}
