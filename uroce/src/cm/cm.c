/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cm_parts.h"
#include "random.h"

enum { DISCONNECT_RETRIES = 3, RATE_40 = 7 /* IBTA: 40 Gbit/s */ };
/* Messages of a local network are answered sooner than the peer may take: the first is sent again after this time, the next after twice. */
#define FIRST_PAUSE_NS UINT64_C(500000000)

/* ---- timers ---- */

void cm_set_device_timer(struct cm *cm)
{
	uint64_t due = timers_next(&cm->timers);

	if (due == UINT64_MAX)
		timer_cancel(&cm->device->timers, &cm->timer);
	else
		timer_set(&cm->device->timers, &cm->timer, due);
}

static void device_timer_fired(struct timer *timer)
{
	struct cm *cm = (struct cm *)((char *)timer - offsetof(struct cm, timer));

	timers_run(&cm->timers, cm->device->now);
	cm_set_device_timer(cm);
}

void cm_set_timer(struct cm_endpoint *endpoint, uint64_t ns)
{
	timer_set(&endpoint->cm->timers, &endpoint->timer, endpoint->cm->device->now + ns);
	cm_set_device_timer(endpoint->cm);
}

void cm_stop_timer(struct cm_endpoint *endpoint)
{
	timer_cancel(&endpoint->cm->timers, &endpoint->timer);
	cm_set_device_timer(endpoint->cm);
}

/* ---- sending ---- */

void cm_send_again(struct cm_endpoint *endpoint)
{
	gsi_send(endpoint->cm->gsi, &endpoint->path, &endpoint->last);
}

/* Sends a message that is sent again until something ends it. */
static void send_until_answered(struct cm_endpoint *endpoint, unsigned retries)
{
	endpoint->pause = FIRST_PAUSE_NS;
	endpoint->give_up = endpoint->cm->device->now + (retries + 1) * CM_NS(CM_RESPONSE_TIMEOUT);
	cm_set_timer(endpoint, endpoint->pause);
	cm_send_again(endpoint);
}

/* Sends a message that the peer repeats its own for, if it is lost. */
void cm_send_once(struct cm_endpoint *endpoint, enum mad_kind kind)
{
	struct mad mad = {.kind = kind, .transaction = endpoint->transaction, .local = endpoint->id, .remote = endpoint->remote};

	if (kind == MAD_MRA) {
		mad.about = MAD_ABOUT_REQ;
		mad.service_timeout = CM_MRA_TIMEOUT;
	} else if (kind == MAD_LAP) {
		mad.qpn = endpoint->peer_qpn;
		mad.remote_timeout = CM_RESPONSE_TIMEOUT;
	}
	gsi_send(endpoint->cm->gsi, &endpoint->path, &mad);
}

void cm_tell(struct cm_endpoint *endpoint, enum cm_event event, int status, const struct mad *mad)
{
	endpoint->cm->user->event(endpoint, event, status, mad);
}

void cm_enter_timewait(struct cm_endpoint *endpoint)
{
	endpoint->state = CM_TIMEWAIT;
	cm_set_timer(endpoint, CM_NS(CM_PACKET_LIFETIME + 1));
}

static void send_rej(struct cm_endpoint *endpoint, enum mad_reason reason, const struct mad *message)
{
	struct mad mad = {.kind = MAD_REJ,
			  .transaction = endpoint->transaction,
			  .local = endpoint->id,
			  .remote = endpoint->remote,
			  .about = MAD_ABOUT_OTHER,
			  .reason = (uint16_t)reason};

	if (endpoint->state == CM_REQ_RECEIVED)
		mad.about = MAD_ABOUT_REQ;
	else if (endpoint->state == CM_REP_RECEIVED)
		mad.about = MAD_ABOUT_REP;
	if (reason == MAD_REASON_TIMEOUT) {
		/* The peer has no ID of ours to find it by, if the answer is not there yet: our device's GUID and ID tell. */
		mad.info_length = sizeof endpoint->last.guid;
		for (size_t i = 0; i < sizeof endpoint->last.guid; i++)
			mad.info[i] = (uint8_t)(endpoint->last.guid >> (56 - 8 * i));
	}
	if (message && message->private_length > 0) {
		mad.private_length = message->private_length;
		memcpy(mad.private_data, message->private_data, message->private_length);
	}
	gsi_send(endpoint->cm->gsi, &endpoint->path, &mad);
}

/* ---- time passes ---- */

static void give_up(struct cm_endpoint *endpoint)
{
	switch (endpoint->state) {
	case CM_REQ_SENT:
	case CM_REP_SENT:
		send_rej(endpoint, MAD_REASON_TIMEOUT, NULL);
		endpoint->state = CM_ENDED;
		cm_tell(endpoint, CM_UNREACHABLE, -ETIMEDOUT, NULL);
		return;
	case CM_SIDR_SENT:
		endpoint->state = CM_ENDED;
		cm_tell(endpoint, CM_UNREACHABLE, -ETIMEDOUT, NULL);
		return;
	case CM_DREQ_SENT:
		cm_enter_timewait(endpoint);
		cm_tell(endpoint, CM_DISCONNECTED, -ETIMEDOUT, NULL);
		return;
	default:
		return;
	}
}

static void endpoint_timer_fired(struct timer *timer)
{
	struct cm_endpoint *endpoint = (struct cm_endpoint *)((char *)timer - offsetof(struct cm_endpoint, timer));
	uint64_t now = endpoint->cm->device->now;

	if (endpoint->state == CM_TIMEWAIT) {
		endpoint->state = CM_ENDED;
		cm_tell(endpoint, CM_TIMEWAIT_EXIT, 0, NULL);
	} else if (now >= endpoint->give_up) {
		give_up(endpoint);
	} else {
		endpoint->pause = endpoint->pause < CM_NS(CM_RESPONSE_TIMEOUT) / 2 ? 2 * endpoint->pause : CM_NS(CM_RESPONSE_TIMEOUT);
		/* Set in the heap that is running: the device's timer follows when all have run. */
		timer_set(&endpoint->cm->timers, timer, now + endpoint->pause);
		cm_send_again(endpoint);
	}
}

/* ---- endpoints ---- */

/* A number that is not in use. */
static uint32_t choose_id(struct cm *cm)
{
	const uint32_t mask = (UINT32_C(1) << GSI_NUMBER_BITS) - 1;
	uint32_t id;

	do
		id = gsi_prefix(cm->gsi) | (cm->next_number++ & mask);
	while (table_find(&cm->ids, id));
	return id;
}

int cm_add(struct cm *cm, struct cm_endpoint *endpoint)
{
	uint32_t random;

	if (cm->count >= (UINT32_C(1) << GSI_NUMBER_BITS) / 2)
		return -ENOSPC;
	if (timers_reserve(&cm->timers, cm->count + 2) != 0 || random_u32(&random) != 0)
		return -ENOMEM;
	endpoint->cm = cm;
	endpoint->state = CM_IDLE;
	endpoint->name.fd = -1;
	endpoint->timer.fire = endpoint_timer_fired;
	endpoint->id = choose_id(cm);
	endpoint->transaction = (uint64_t)random << 32 | endpoint->id;
	int error = table_add(&cm->ids, endpoint->id, endpoint);
	if (error == 0)
		cm->count++;
	return error;
}

struct cm_endpoint **cm_chain_of(struct cm *cm, uint32_t remote, const union ibv_gid *peer)
{
	uint64_t hash = remote;

	for (size_t i = 0; i < sizeof peer->raw; i++)
		hash = (hash ^ peer->raw[i]) * UINT64_C(0x100000001b3);
	return &cm->peers[hash >> 16 & (CM_PEERS - 1)];
}

struct cm_endpoint *cm_find_peer(struct cm *cm, uint32_t remote, const union ibv_gid *peer)
{
	struct cm_endpoint *endpoint = *cm_chain_of(cm, remote, peer);

	while (endpoint && (endpoint->remote != remote || memcmp(&endpoint->path.peer, peer, sizeof *peer) != 0))
		endpoint = endpoint->next;
	return endpoint;
}

static void unchain(struct cm_endpoint *endpoint)
{
	struct cm *cm = endpoint->cm;
	struct cm_endpoint **at =
		endpoint->state == CM_LISTENING ? &cm->listeners : cm_chain_of(cm, endpoint->remote, &endpoint->path.peer);

	if (!endpoint->chained)
		return;
	while (*at != endpoint)
		at = &(*at)->next;
	*at = endpoint->next;
	endpoint->chained = false;
}

static void send_sidr_answer(struct cm_endpoint *endpoint, uint16_t status, const struct mad *message)
{
	struct mad mad = *message;

	mad.kind = MAD_SIDR_REP;
	mad.transaction = endpoint->transaction;
	mad.local = endpoint->remote;
	mad.remote = 0;
	mad.service = endpoint->service;
	mad.reason = status;
	gsi_send(endpoint->cm->gsi, &endpoint->path, &mad);
}

/* The peer learns that this end is gone. */
static void take_leave(struct cm_endpoint *endpoint)
{
	static const struct mad nothing;

	switch (endpoint->state) {
	case CM_REQ_SENT:
		send_rej(endpoint, MAD_REASON_TIMEOUT, NULL);
		break;
	case CM_REQ_RECEIVED:
	case CM_REP_SENT:
	case CM_REP_RECEIVED:
		send_rej(endpoint, MAD_REASON_CONSUMER, NULL);
		break;
	case CM_ESTABLISHED:
		cm_disconnect(endpoint);
		break;
	case CM_DREQ_RECEIVED:
		cm_send_once(endpoint, MAD_DREP);
		break;
	case CM_SIDR_RECEIVED:
		send_sidr_answer(endpoint, MAD_SIDR_REJECTED, &nothing);
		break;
	default:
		break;
	}
}

void cm_remove(struct cm_endpoint *endpoint)
{
	struct cm *cm = endpoint->cm;

	if (!cm)
		return;
	take_leave(endpoint);
	timer_cancel(&cm->timers, &endpoint->timer);
	if (--cm->count == 0)
		timer_cancel(&cm->timers, &cm->watch);
	cm_set_device_timer(cm);
	gsi_unlisten(cm->gsi, &endpoint->name);
	unchain(endpoint);
	table_remove(&cm->ids, endpoint->id);
	endpoint->cm = NULL;
}

/* ---- what a program asks for ---- */

int cm_reserve(struct cm_endpoint *endpoint, const struct gsi_name *name)
{
	if (endpoint->state != CM_IDLE || endpoint->name.fd >= 0)
		return -EINVAL;
	int error = gsi_listen(endpoint->cm->gsi, name, &endpoint->name);
	if (error != 0)
		return error;
	endpoint->service = name->service;
	endpoint->at = *name;
	return 0;
}

int cm_rename(struct cm_endpoint *endpoint, const struct gsi_name *name)
{
	const struct gsi_name was = endpoint->at;

	if (endpoint->state != CM_IDLE || endpoint->name.fd < 0)
		return -EINVAL;
	gsi_unlisten(endpoint->cm->gsi, &endpoint->name);
	int error = cm_reserve(endpoint, name);
	if (error != 0)
		cm_reserve(endpoint, &was); /* as far as nobody has taken it since */
	return error;
}

int cm_listen(struct cm_endpoint *endpoint)
{
	struct cm *cm = endpoint->cm;

	if (endpoint->state != CM_IDLE || endpoint->name.fd < 0)
		return -EINVAL;
	endpoint->state = CM_LISTENING;
	endpoint->next = cm->listeners;
	endpoint->chained = true;
	cm->listeners = endpoint;
	return 0;
}

int cm_connect(struct cm_endpoint *endpoint, uint64_t service, const struct mad *message)
{
	if (endpoint->state != CM_IDLE)
		return -EINVAL;
	int error = random_u32(&endpoint->psn);
	if (error != 0)
		return error;
	endpoint->psn &= WIRE_PSN_MASK;
	endpoint->service = service;
	endpoint->qpn = message->qpn;
	endpoint->transport = message->transport;
	endpoint->responder_resources = message->responder_resources;
	endpoint->initiator_depth = message->initiator_depth;
	endpoint->retry_count = message->retry_count;
	struct mad *req = &endpoint->last;
	*req = *message;
	req->kind = MAD_REQ;
	req->transaction = endpoint->transaction;
	req->local = endpoint->id;
	req->service = service;
	req->psn = endpoint->psn;
	req->remote_timeout = req->local_timeout = CM_RESPONSE_TIMEOUT;
	req->max_retries = CM_MAX_RETRIES;
	req->pkey = WIRE_PKEY;
	req->mtu = endpoint->mtu;
	req->local_gid = endpoint->path.own;
	req->remote_gid = endpoint->path.peer;
	req->tclass = endpoint->path.tclass;
	req->hop_limit = endpoint->path.hop_limit;
	req->rate = RATE_40;
	req->ack_timeout = endpoint->ack_timeout;
	endpoint->state = CM_REQ_SENT;
	send_until_answered(endpoint, CM_MAX_RETRIES);
	return 0;
}

int cm_resolve_service(struct cm_endpoint *endpoint, uint64_t service, const struct mad *message)
{
	if (endpoint->state != CM_IDLE)
		return -EINVAL;
	endpoint->service = service;
	endpoint->last = *message;
	endpoint->last.kind = MAD_SIDR_REQ;
	endpoint->last.transaction = endpoint->transaction;
	endpoint->last.local = endpoint->id;
	endpoint->last.pkey = WIRE_PKEY;
	endpoint->last.service = service;
	endpoint->state = CM_SIDR_SENT;
	send_until_answered(endpoint, CM_MAX_RETRIES);
	return 0;
}

static int accept_connection(struct cm_endpoint *endpoint, const struct mad *message)
{
	endpoint->qpn = message->qpn;
	endpoint->responder_resources = message->responder_resources;
	endpoint->initiator_depth = message->initiator_depth;
	struct mad *rep = &endpoint->last;
	*rep = *message;
	rep->kind = MAD_REP;
	rep->transaction = endpoint->transaction;
	rep->local = endpoint->id;
	rep->remote = endpoint->remote;
	rep->psn = endpoint->psn;
	rep->failover = endpoint->alternate ? MAD_FAILOVER_UNSUPPORTED : 0;
	endpoint->state = CM_REP_SENT;
	send_until_answered(endpoint, CM_MAX_RETRIES);
	return 0;
}

int cm_accept(struct cm_endpoint *endpoint, const struct mad *message)
{
	if (endpoint->state == CM_REQ_RECEIVED)
		return accept_connection(endpoint, message);
	if (endpoint->state != CM_SIDR_RECEIVED)
		return -EINVAL;
	send_sidr_answer(endpoint, MAD_SIDR_VALID, message);
	endpoint->state = CM_ENDED;
	return 0;
}

int cm_confirm(struct cm_endpoint *endpoint)
{
	if (endpoint->state != CM_REP_RECEIVED)
		return -EINVAL;
	endpoint->state = CM_ESTABLISHED;
	cm_send_once(endpoint, MAD_RTU);
	return 0;
}

int cm_reject(struct cm_endpoint *endpoint, const struct mad *message)
{
	switch (endpoint->state) {
	case CM_SIDR_RECEIVED:
		send_sidr_answer(endpoint, MAD_SIDR_REJECTED, message);
		break;
	case CM_REQ_RECEIVED:
	case CM_REP_SENT:
	case CM_REP_RECEIVED:
		send_rej(endpoint, message->reason ? (enum mad_reason)message->reason : MAD_REASON_CONSUMER, message);
		break;
	default:
		return -EINVAL;
	}
	cm_stop_timer(endpoint);
	endpoint->state = CM_ENDED;
	return 0;
}

int cm_disconnect(struct cm_endpoint *endpoint)
{
	switch (endpoint->state) {
	case CM_ESTABLISHED:
	case CM_REP_SENT:
		endpoint->last = (struct mad){.kind = MAD_DREQ,
					      .transaction = endpoint->transaction,
					      .local = endpoint->id,
					      .remote = endpoint->remote,
					      .qpn = endpoint->peer_qpn};
		endpoint->state = CM_DREQ_SENT;
		send_until_answered(endpoint, DISCONNECT_RETRIES);
		return 0;
	case CM_DREQ_RECEIVED:
		cm_send_once(endpoint, MAD_DREP);
		cm_enter_timewait(endpoint);
		return 0;
	/* It is over, or on its way: the kernel says the same. */
	case CM_DREQ_SENT:
	case CM_TIMEWAIT:
		return 0;
	default:
		return -EINVAL;
	}
}

void cm_establish(struct cm_endpoint *endpoint, const struct mad *mad)
{
	cm_stop_timer(endpoint);
	endpoint->state = CM_ESTABLISHED;
	cm_tell(endpoint, CM_CONNECTED, 0, mad);
}

int cm_note_established(struct cm_endpoint *endpoint)
{
	if (endpoint->state == CM_REP_SENT)
		cm_establish(endpoint, NULL);
	return endpoint->state == CM_ESTABLISHED ? 0 : -EINVAL;
}

/* ---- opening and ending ---- */

int cm_open(struct device *device, const struct cm_user *user, struct cm **out)
{
	struct cm *cm = calloc(1, sizeof *cm);

	if (!cm)
		return -ENOMEM;
	cm->device = device;
	cm->user = user;
	cm->gsi = device->gsi;
	cm->knock.fd = -1;
	cm->timer.fire = device_timer_fired;
	*out = cm;
	return 0;
}

void cm_close(struct cm **cm)
{
	if (!*cm)
		return;
	gsi_end_knock(&(*cm)->knock.fd);
	timer_cancel(&(*cm)->device->timers, &(*cm)->timer);
	timers_clear(&(*cm)->timers);
	table_clear(&(*cm)->ids);
	free(*cm);
	*cm = NULL;
}

void cm_abandon(struct cm *cm)
{
	timer_cancel(&cm->device->timers, &cm->timer);
	gsi_end_knock(&cm->knock.fd);
}

int cm_start(struct cm *cm)
{
	if (cm->started)
		return 0;
	int error = random_u32(&cm->next_number);
	if (error == 0)
		error = gsi_start(cm->gsi, cm_take, cm);
	cm->started = error == 0;
	return error;
}

void cm_settle(struct cm *cm)
{
	for (size_t i = 0; i < cm->ids.size; i++) {
		uint32_t number = cm->ids.slot[i].number;
		struct cm_endpoint *endpoint = number != 0 ? table_find(&cm->ids, number) : NULL;
		if (endpoint)
			take_leave(endpoint);
	}
}
