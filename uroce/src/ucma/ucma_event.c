/* SPDX-License-Identifier: Apache-2.0 */
/* Events, from the connection manager to the program: to a thread that waits for one, or else to the queue. A byte is in the file's pipe
 * while there are any, so that the program can poll the descriptor as it polls the kernel's. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "log.h"
#include "ucma_parts.h"

struct ucma_event *ucma_event_new(struct ucma_id *id, enum ucma_event_kind kind, int status)
{
	struct ucma_file *file = id->file;
	struct ucma_event *event = file->events < UCMA_EVENTS ? calloc(1, sizeof *event) : NULL;

	if (!event) {
		log_write(LOG_ERROR, "%s: an event of a connection is lost",
			  file->events < UCMA_EVENTS ? "out of memory" : "the program does not fetch the events of its channel");
		return NULL;
	}
	event->id = id;
	event->resp.uid = id->uid;
	event->resp.id = id->handle;
	event->resp.event = kind;
	event->resp.status = (uint32_t)status;
	return event;
}

/* Makes the program's descriptor readable, or not. */
static void show(struct ucma_file *file, bool any)
{
	char byte = 0;
	int bytes = 1;
	ssize_t n = 0;

	if (any == file->shown)
		return;
	file->shown = any;
	if (any)
		n = write(file->signal_fd, &byte, 1); /* there is room for one */
	else if (ioctl(file->drain_fd, FIONREAD, &bytes) == 0 && bytes > 0) /* the program may have read it */
		n = read(file->drain_fd, &byte, 1);
	(void)n;
}

/* Calls threads for the events that there are; the pipe tells of those that are left. */
static void settle(struct ucma_file *file)
{
	while (file->waiters && file->events > file->called) {
		struct ucma_waiter *waiter = file->waiters;
		file->waiters = waiter->next;
		file->called++;
		waiter->called = true;
		sem_post(&waiter->woken);
	}
	show(file, file->events > file->called);
}

void ucma_event_wait(struct ucma_waiter *waiter)
{
	struct ucma_waiter **at = &waiter->file->waiters;

	while (*at)
		at = &(*at)->next;
	waiter->next = NULL;
	waiter->called = false;
	*at = waiter;
}

void ucma_event_stop_waiting(struct ucma_waiter *waiter)
{
	struct ucma_file *file = waiter->file;
	struct ucma_waiter **at = &file->waiters;

	if (waiter->called) {
		file->called--;
		settle(file);
		return;
	}
	while (*at != waiter)
		at = &(*at)->next;
	*at = waiter->next;
}

void ucma_event_queue(struct ucma_event *event)
{
	struct ucma_file *file = event->id->file;

	*file->last = event;
	file->last = &event->next;
	file->events++;
	settle(file);
}

void ucma_event_tell(struct ucma_id *id, enum ucma_event_kind kind, int status)
{
	struct ucma_event *event = ucma_event_new(id, kind, status);

	if (event)
		ucma_event_queue(event);
}

static uint8_t copy_private(uint8_t to[RDMA_MAX_PRIVATE_DATA], const struct mad *mad, size_t skip)
{
	if (mad->private_length <= skip)
		return 0;
	memcpy(to, mad->private_data + skip, mad->private_length - skip);
	return (uint8_t)(mad->private_length - skip);
}

void ucma_event_fill(struct ucma_event *event, const struct cm_endpoint *endpoint, bool datagram, const struct mad *mad, size_t skip)
{
	struct rdma_ucm_conn_param *conn = &event->resp.param.conn;
	struct rdma_ucm_ud_param *ud = &event->resp.param.ud;

	event->resp.ece.vendor_id = mad->ece_vendor;
	event->resp.ece.attr_mod = mad->ece_options;
	if (datagram) {
		ud->private_data_len = copy_private(ud->private_data, mad, skip);
		ud->qp_num = mad->qpn;
		ud->qkey = mad->qkey;
		ucma_fill_ah(endpoint, &ud->ah_attr);
		return;
	}
	conn->private_data_len = copy_private(conn->private_data, mad, skip);
	if (mad->kind != MAD_REQ && mad->kind != MAD_REP)
		return;
	conn->qp_num = mad->qpn;
	/* What the peer asks for is what this end answers. */
	conn->responder_resources = mad->initiator_depth;
	conn->initiator_depth = mad->responder_resources;
	conn->flow_control = mad->flow_control;
	conn->retry_count = mad->retry_count;
	conn->rnr_retry_count = mad->rnr_retry_count;
	conn->srq = mad->srq;
}

static void unlink_event(struct ucma_file *file, struct ucma_event **at)
{
	struct ucma_event *event = *at;

	*at = event->next;
	if (!event->next)
		file->last = at;
	event->next = NULL;
	file->events--;
	settle(file);
}

/* The program has it: a request that it knows of no longer counts for its listener's backlog, as in the kernel. */
static void note_reported(const struct ucma_event *event)
{
	event->id->events_reported++;
	if (event->made)
		ucma_id_leave_listener(event->made);
	if (event->multicast)
		event->multicast->events_reported++;
}

int ucma_event_take(struct ucma_waiter *waiter, const struct rdma_ucm_cmd_hdr *header, uint64_t response)
{
	struct ucma_file *file = waiter->file;
	struct ucma_event *event = file->first;

	file->called -= waiter->called;
	waiter->called = false;
	int error = event ? ucma_respond(header, response, &event->resp, sizeof event->resp) : -EAGAIN;
	if (error != 0) {
		settle(file);
		return error;
	}
	note_reported(event);
	unlink_event(file, &file->first);
	free(event);
	return 0;
}

void ucma_event_purge(struct ucma_id *id, void (*destroy)(struct ucma_id *id))
{
	struct ucma_file *file = id->file;

	for (struct ucma_event **at = &file->first; *at;) {
		struct ucma_event *event = *at;
		if (event->id != id && event->made != id) {
			at = &event->next;
			continue;
		}
		unlink_event(file, at);
		struct ucma_id *made = event->made;
		free(event);
		if (made && made != id) {
			destroy(made);
			at = &file->first; /* its own events have gone too */
		}
	}
}

void ucma_event_purge_multicast(struct ucma_file *file, const struct ucma_multicast *multicast)
{
	for (struct ucma_event **at = &file->first; *at;) {
		struct ucma_event *event = *at;
		if (event->multicast != multicast) {
			at = &event->next;
			continue;
		}
		unlink_event(file, at);
		free(event);
	}
}

void ucma_event_move(struct ucma_id *id, struct ucma_file *to)
{
	struct ucma_file *from = id->file;

	if (to == from)
		return;
	id->file = to;
	for (struct ucma_event **at = &from->first; *at;) {
		struct ucma_event *event = *at;
		if (event->id != id) {
			at = &event->next;
			continue;
		}
		unlink_event(from, at);
		if (event->made)
			event->made->file = to;
		ucma_event_queue(event);
	}
}
