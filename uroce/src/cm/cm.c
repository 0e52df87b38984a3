/* SPDX-License-Identifier: Apache-2.0 */
#include "cm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "random.h"
#include "wake.h"

enum {
	PEERS = 4096,
	/* The times that messages carry: 4.096 us times 2 to this power. The kernel's are the same. */
	RESPONSE_TIMEOUT = 20,
	MRA_TIMEOUT = 24,
	PACKET_LIFETIME = 18,
	MAX_RETRIES = 15,
	DISCONNECT_RETRIES = 3,
	LONGEST_TIMEOUT = 24,
	RATE_40 = 7, /* IBTA: 40 Gbit/s */
};
/* Messages of a local network are answered sooner than the peer may take: the first is sent again after this time, the next after twice. */
#define FIRST_PAUSE_NS UINT64_C(500000000)
#define FULL_NS(power) (UINT64_C(4096) << (power))

struct cm {
	struct device *device;
	struct gsi *gsi;
	const struct cm_user *user;
	bool started;
	uint32_t next_number;
	struct table ids; /* endpoints by ID */
	struct timers timers;
	struct timer timer; /* the device's, for them */
	size_t count;
	struct cm_endpoint *listeners; /* by `next` */
	struct cm_endpoint *peers[PEERS];
};

/* ---- timers ---- */

static void set_device_timer(struct cm *cm)
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
	set_device_timer(cm);
}

static void set_timer(struct cm_endpoint *endpoint, uint64_t ns)
{
	timer_set(&endpoint->cm->timers, &endpoint->timer, endpoint->cm->device->now + ns);
	set_device_timer(endpoint->cm);
}

static void stop_timer(struct cm_endpoint *endpoint)
{
	timer_cancel(&endpoint->cm->timers, &endpoint->timer);
	set_device_timer(endpoint->cm);
}

/* ---- sending ---- */

static const union ibv_gid *address_of(const struct cm_endpoint *endpoint)
{
	return endpoint->any_address ? NULL : &endpoint->address;
}

static void send_again(struct cm_endpoint *endpoint)
{
	gsi_send(endpoint->cm->gsi, &endpoint->path, &endpoint->last, address_of(endpoint));
}

/* Sends a message that is sent again until something ends it. */
static void send_until_answered(struct cm_endpoint *endpoint, unsigned retries)
{
	endpoint->pause = FIRST_PAUSE_NS;
	endpoint->give_up = endpoint->cm->device->now + (retries + 1) * FULL_NS(RESPONSE_TIMEOUT);
	set_timer(endpoint, endpoint->pause);
	send_again(endpoint);
}

/* Sends a message that the peer repeats its own for, if it is lost. */
static void send_once(struct cm_endpoint *endpoint, enum mad_kind kind)
{
	struct mad mad = {.kind = kind, .transaction = endpoint->transaction, .local = endpoint->id, .remote = endpoint->remote};

	if (kind == MAD_MRA) {
		mad.about = MAD_ABOUT_REQ;
		mad.service_timeout = MRA_TIMEOUT;
	}
	gsi_send(endpoint->cm->gsi, &endpoint->path, &mad, NULL);
}

static void tell(struct cm_endpoint *endpoint, enum cm_event event, int status, const struct mad *mad)
{
	endpoint->cm->user->event(endpoint, event, status, mad);
}

static void enter_timewait(struct cm_endpoint *endpoint)
{
	endpoint->state = CM_TIMEWAIT;
	set_timer(endpoint, FULL_NS(PACKET_LIFETIME + 1));
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
	gsi_send(endpoint->cm->gsi, &endpoint->path, &mad, address_of(endpoint));
}

/* ---- time passes ---- */

static void give_up(struct cm_endpoint *endpoint)
{
	switch (endpoint->state) {
	case CM_REQ_SENT:
	case CM_REP_SENT:
		send_rej(endpoint, MAD_REASON_TIMEOUT, NULL);
		endpoint->state = CM_ENDED;
		tell(endpoint, CM_UNREACHABLE, -ETIMEDOUT, NULL);
		return;
	case CM_SIDR_SENT:
		endpoint->state = CM_ENDED;
		tell(endpoint, CM_UNREACHABLE, -ETIMEDOUT, NULL);
		return;
	case CM_DREQ_SENT:
		enter_timewait(endpoint);
		tell(endpoint, CM_DISCONNECTED, 0, NULL);
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
		tell(endpoint, CM_TIMEWAIT_EXIT, 0, NULL);
	} else if (now >= endpoint->give_up) {
		give_up(endpoint);
	} else {
		endpoint->pause = endpoint->pause < FULL_NS(RESPONSE_TIMEOUT) / 2 ? 2 * endpoint->pause : FULL_NS(RESPONSE_TIMEOUT);
		/* Set in the heap that is running: the device's timer follows when all have run. */
		timer_set(&endpoint->cm->timers, timer, now + endpoint->pause);
		send_again(endpoint);
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
	if (timers_reserve(&cm->timers, cm->count + 1) != 0 || random_u32(&random) != 0)
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

static struct cm_endpoint **chain_of(struct cm *cm, uint32_t remote, const union ibv_gid *peer)
{
	uint64_t hash = remote;

	for (size_t i = 0; i < sizeof peer->raw; i++)
		hash = (hash ^ peer->raw[i]) * UINT64_C(0x100000001b3);
	return &cm->peers[hash >> 16 & (PEERS - 1)];
}

static struct cm_endpoint *find_peer(struct cm *cm, uint32_t remote, const union ibv_gid *peer)
{
	struct cm_endpoint *endpoint = *chain_of(cm, remote, peer);

	while (endpoint && (endpoint->remote != remote || memcmp(&endpoint->path.peer, peer, sizeof *peer) != 0))
		endpoint = endpoint->next;
	return endpoint;
}

static void unchain(struct cm_endpoint *endpoint)
{
	struct cm *cm = endpoint->cm;
	struct cm_endpoint **at =
		endpoint->state == CM_LISTENING ? &cm->listeners : chain_of(cm, endpoint->remote, &endpoint->path.peer);

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
	gsi_send(endpoint->cm->gsi, &endpoint->path, &mad, NULL);
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
		send_once(endpoint, MAD_DREP);
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
	set_device_timer(cm);
	gsi_unlisten(cm->gsi, &endpoint->name);
	unchain(endpoint);
	table_remove(&cm->ids, endpoint->id);
	cm->count--;
	endpoint->cm = NULL;
}

/* ---- what a program asks for ---- */

int cm_reserve(struct cm_endpoint *endpoint, uint64_t service, const union ibv_gid *address)
{
	if (endpoint->state != CM_IDLE || endpoint->name.fd >= 0)
		return -EINVAL;
	int error = gsi_listen(endpoint->cm->gsi, service, address, &endpoint->name);
	if (error != 0)
		return error;
	endpoint->service = service;
	endpoint->any_address = !address;
	if (address)
		endpoint->address = *address;
	return 0;
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

static void note_destination(struct cm_endpoint *endpoint, uint64_t service, const union ibv_gid *address)
{
	endpoint->service = service;
	endpoint->any_address = false;
	endpoint->address = *address;
}

int cm_connect(struct cm_endpoint *endpoint, uint64_t service, const union ibv_gid *address, const struct mad *message)
{
	if (endpoint->state != CM_IDLE)
		return -EINVAL;
	int error = random_u32(&endpoint->psn);
	if (error != 0)
		return error;
	endpoint->psn &= WIRE_PSN_MASK;
	note_destination(endpoint, service, address);
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
	req->remote_timeout = req->local_timeout = RESPONSE_TIMEOUT;
	req->max_retries = MAX_RETRIES;
	req->pkey = WIRE_PKEY;
	req->mtu = endpoint->mtu;
	req->local_gid = endpoint->path.own;
	req->remote_gid = endpoint->path.peer;
	req->tclass = endpoint->path.tclass;
	req->hop_limit = endpoint->path.hop_limit;
	req->rate = RATE_40;
	req->ack_timeout = endpoint->ack_timeout;
	endpoint->state = CM_REQ_SENT;
	send_until_answered(endpoint, MAX_RETRIES);
	return 0;
}

int cm_resolve_service(struct cm_endpoint *endpoint, uint64_t service, const union ibv_gid *address, const struct mad *message)
{
	if (endpoint->state != CM_IDLE)
		return -EINVAL;
	note_destination(endpoint, service, address);
	endpoint->last = *message;
	endpoint->last.kind = MAD_SIDR_REQ;
	endpoint->last.transaction = endpoint->transaction;
	endpoint->last.local = endpoint->id;
	endpoint->last.pkey = WIRE_PKEY;
	endpoint->last.service = service;
	endpoint->state = CM_SIDR_SENT;
	send_until_answered(endpoint, MAX_RETRIES);
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
	endpoint->state = CM_REP_SENT;
	send_until_answered(endpoint, MAX_RETRIES);
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
	send_once(endpoint, MAD_RTU);
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
	stop_timer(endpoint);
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
		send_once(endpoint, MAD_DREP);
		enter_timewait(endpoint);
		return 0;
	/* It is over, or on its way: the kernel says the same. */
	case CM_DREQ_SENT:
	case CM_TIMEWAIT:
		return 0;
	default:
		return -EINVAL;
	}
}

static void establish(struct cm_endpoint *endpoint, const struct mad *mad)
{
	stop_timer(endpoint);
	endpoint->state = CM_ESTABLISHED;
	tell(endpoint, CM_CONNECTED, 0, mad);
}

int cm_note_established(struct cm_endpoint *endpoint)
{
	if (endpoint->state == CM_REP_SENT)
		establish(endpoint, NULL);
	return endpoint->state == CM_ESTABLISHED ? 0 : -EINVAL;
}

/* ---- what peers send ---- */

static struct cm_endpoint *find_listener(struct cm *cm, const struct mad *mad, const struct gsi_path *path)
{
	struct cm_endpoint *any = NULL;
	struct mad_ip ip;
	bool has_ip = mad_read_ip(mad->private_data, mad->private_length, &ip);

	for (struct cm_endpoint *listener = cm->listeners; listener; listener = listener->next) {
		if (listener->service != mad->service)
			continue;
		if (listener->any_address)
			any = listener;
		else if ((has_ip && memcmp(&listener->address, &ip.destination, sizeof ip.destination) == 0) ||
			 memcmp(&listener->address, &path->own, sizeof path->own) == 0)
			return listener;
	}
	return any;
}

/* Programs tell others the port that they are bound to just before they listen there: the request will come again. */
static bool is_reserved(const struct cm *cm, uint64_t service)
{
	for (size_t i = 0; i < cm->ids.size; i++) {
		const struct cm_endpoint *endpoint = table_find(&cm->ids, cm->ids.slot[i].number);
		if (endpoint && endpoint->state == CM_IDLE && endpoint->name.fd >= 0 && endpoint->service == service)
			return true;
	}
	return false;
}

/* An endpoint for a request, or NULL: the peer is told. */
static struct cm_endpoint *new_request(struct cm *cm, struct cm_endpoint *listener, const struct mad *mad, const struct gsi_path *path,
				       enum cm_state state)
{
	struct cm_endpoint *endpoint = listener ? cm->user->request(listener, mad) : NULL;

	if (!endpoint)
		return NULL;
	endpoint->state = state;
	endpoint->remote = mad->local;
	endpoint->transaction = mad->transaction;
	endpoint->path = *path;
	endpoint->service = mad->service;
	struct cm_endpoint **chain = chain_of(cm, endpoint->remote, &endpoint->path.peer);
	endpoint->next = *chain;
	endpoint->chained = true;
	*chain = endpoint;
	return endpoint;
}

static void refuse_request(struct cm *cm, const struct mad *mad, const struct gsi_path *path, enum mad_reason reason)
{
	const struct mad rej = {
		.kind = MAD_REJ, .transaction = mad->transaction, .remote = mad->local, .about = MAD_ABOUT_REQ, .reason = (uint16_t)reason};

	gsi_send(cm->gsi, path, &rej, NULL);
}

static void take_req(struct cm *cm, const struct mad *mad, const struct gsi_path *path)
{
	struct cm_endpoint *endpoint = find_peer(cm, mad->local, &path->peer);

	if (endpoint && endpoint->peer_qpn == mad->qpn) {
		/* It was sent again: what answers it, too. */
		if (endpoint->state == CM_REQ_RECEIVED)
			send_once(endpoint, MAD_MRA);
		else if (endpoint->state == CM_REP_SENT)
			send_again(endpoint);
		return;
	}
	struct cm_endpoint *listener = find_listener(cm, mad, path);
	if (!listener && is_reserved(cm, mad->service))
		return;
	endpoint = new_request(cm, listener, mad, path, CM_REQ_RECEIVED);
	if (!endpoint) {
		refuse_request(cm, mad, path, listener ? MAD_REASON_NO_RESOURCES : MAD_REASON_SERVICE);
		return;
	}
	uint32_t psn;
	if (random_u32(&psn) != 0) {
		refuse_request(cm, mad, path, MAD_REASON_NO_RESOURCES);
		endpoint->state = CM_ENDED;
		return;
	}
	endpoint->psn = psn & WIRE_PSN_MASK;
	endpoint->transport = mad->transport;
	endpoint->peer_qpn = mad->qpn;
	endpoint->peer_psn = mad->psn;
	endpoint->peer_qkey = mad->qkey;
	/* What the peer asks for is what this end answers, and the other way round. */
	endpoint->responder_resources = mad->initiator_depth;
	endpoint->initiator_depth = mad->responder_resources;
	endpoint->retry_count = mad->retry_count;
	endpoint->rnr_retry_count = mad->rnr_retry_count;
	endpoint->ack_timeout = mad->ack_timeout;
	enum ibv_mtu own = cm->device->mtu;
	endpoint->mtu = mad->mtu < own ? mad->mtu : (uint8_t)own;
	cm->user->requested(listener, endpoint, mad);
}

static void take_rep(struct cm_endpoint *endpoint, const struct mad *mad)
{
	/* The confirmation was lost. */
	if (endpoint->state == CM_ESTABLISHED && endpoint->remote == mad->local) {
		send_once(endpoint, MAD_RTU);
		return;
	}
	if (endpoint->state != CM_REQ_SENT)
		return;
	stop_timer(endpoint);
	endpoint->state = CM_REP_RECEIVED;
	endpoint->remote = mad->local;
	endpoint->peer_qpn = mad->qpn;
	endpoint->peer_psn = mad->psn;
	endpoint->peer_qkey = mad->qkey;
	endpoint->responder_resources = mad->initiator_depth;
	endpoint->initiator_depth = mad->responder_resources;
	endpoint->rnr_retry_count = mad->rnr_retry_count;
	tell(endpoint, CM_RESPONSE, 0, mad);
}

static void take_rej(struct cm_endpoint *endpoint, const struct mad *mad)
{
	switch (endpoint->state) {
	case CM_REQ_SENT:
	case CM_REP_SENT:
	case CM_REP_RECEIVED:
	case CM_REQ_RECEIVED:
		stop_timer(endpoint);
		endpoint->state = CM_ENDED;
		tell(endpoint, CM_REJECTED, mad->reason, mad);
		return;
	case CM_ESTABLISHED:
		enter_timewait(endpoint);
		tell(endpoint, CM_DISCONNECTED, 0, mad);
		return;
	default:
		return;
	}
}

static void take_mra(struct cm_endpoint *endpoint, const struct mad *mad)
{
	uint8_t power = mad->service_timeout < LONGEST_TIMEOUT ? mad->service_timeout : LONGEST_TIMEOUT;
	bool fits = (endpoint->state == CM_REQ_SENT && mad->about == MAD_ABOUT_REQ) ||
		    (endpoint->state == CM_REP_SENT && mad->about == MAD_ABOUT_REP);

	if (!fits)
		return;
	/* The peer needs this long, and no message until then. */
	endpoint->give_up = endpoint->cm->device->now + FULL_NS(power) + (MAX_RETRIES + 1) * FULL_NS(RESPONSE_TIMEOUT);
	set_timer(endpoint, FULL_NS(power));
}

static void take_dreq(struct cm_endpoint *endpoint, const struct mad *mad)
{
	if (mad->qpn != endpoint->qpn && endpoint->qpn != 0)
		return;
	switch (endpoint->state) {
	case CM_REP_SENT:
	case CM_ESTABLISHED:
		stop_timer(endpoint);
		endpoint->state = CM_DREQ_RECEIVED;
		tell(endpoint, CM_DISCONNECTED, 0, mad);
		return;
	case CM_DREQ_SENT: /* both at once */
		send_once(endpoint, MAD_DREP);
		enter_timewait(endpoint);
		tell(endpoint, CM_DISCONNECTED, 0, mad);
		return;
	case CM_TIMEWAIT:
		send_once(endpoint, MAD_DREP);
		return;
	default:
		return;
	}
}

static void take_sidr_req(struct cm *cm, const struct mad *mad, const struct gsi_path *path)
{
	struct cm_endpoint *endpoint = find_peer(cm, mad->local, &path->peer);

	if (endpoint && endpoint->state == CM_SIDR_RECEIVED)
		return;
	struct cm_endpoint *listener = find_listener(cm, mad, path);
	if (!listener && is_reserved(cm, mad->service))
		return;
	endpoint = new_request(cm, listener, mad, path, CM_SIDR_RECEIVED);
	if (endpoint) {
		cm->user->requested(listener, endpoint, mad);
		return;
	}
	const struct mad answer = {.kind = MAD_SIDR_REP,
				   .transaction = mad->transaction,
				   .local = mad->local,
				   .service = mad->service,
				   .reason = listener ? MAD_SIDR_REJECTED : MAD_SIDR_UNSUPPORTED};
	gsi_send(cm->gsi, path, &answer, NULL);
}

static void take_sidr_rep(struct cm_endpoint *endpoint, const struct mad *mad)
{
	if (endpoint->state != CM_SIDR_SENT)
		return;
	stop_timer(endpoint);
	endpoint->state = CM_ENDED;
	endpoint->peer_qpn = mad->qpn;
	endpoint->peer_qkey = mad->qkey;
	if (mad->reason == MAD_SIDR_VALID)
		tell(endpoint, CM_CONNECTED, 0, mad);
	else
		tell(endpoint, CM_UNREACHABLE, mad->reason, mad);
}

/* A message about a connection, which only its peer may send. */
static void take_of_connection(struct cm *cm, const struct mad *mad, const struct gsi_path *path)
{
	struct cm_endpoint *endpoint = table_find(&cm->ids, mad->kind == MAD_SIDR_REP ? mad->local : mad->remote);

	/* The peer rejects what it has not answered: it knows no ID of ours but its own request's. */
	if (!endpoint && mad->kind == MAD_REJ && mad->remote == 0)
		endpoint = find_peer(cm, mad->local, &path->peer);
	bool known = endpoint && endpoint->state != CM_LISTENING &&
		     cm->device->same_peer(cm->device, &endpoint->path.peer, &path->peer);
	if (known && mad->kind != MAD_SIDR_REP && mad->kind != MAD_REJ && endpoint->remote != 0 && endpoint->remote != mad->local)
		known = false;
	if (!known) {
		/* A peer whose goodbye comes late is answered all the same, so that it does not wait. */
		if (mad->kind == MAD_DREQ) {
			const struct mad drep = {
				.kind = MAD_DREP, .transaction = mad->transaction, .local = mad->remote, .remote = mad->local};
			gsi_send(cm->gsi, path, &drep, NULL);
		}
		return;
	}
	switch (mad->kind) {
	case MAD_REP:
		take_rep(endpoint, mad);
		return;
	case MAD_RTU:
		if (endpoint->state == CM_REP_SENT)
			establish(endpoint, mad);
		return;
	case MAD_REJ:
		take_rej(endpoint, mad);
		return;
	case MAD_MRA:
		take_mra(endpoint, mad);
		return;
	case MAD_DREQ:
		take_dreq(endpoint, mad);
		return;
	case MAD_DREP:
		if (endpoint->state == CM_DREQ_SENT) {
			enter_timewait(endpoint);
			tell(endpoint, CM_DISCONNECTED, 0, mad);
		}
		return;
	case MAD_SIDR_REP:
		take_sidr_rep(endpoint, mad);
		return;
	default:
		return;
	}
}

static void take(void *arg, const struct mad *mad, const struct gsi_path *path)
{
	struct cm *cm = arg;

	switch (mad->kind) {
	case MAD_REQ:
		take_req(cm, mad, path);
		return;
	case MAD_SIDR_REQ:
		take_sidr_req(cm, mad, path);
		return;
	default:
		take_of_connection(cm, mad, path);
	}
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
	cm->timer.fire = device_timer_fired;
	*out = cm;
	return 0;
}

int cm_start(struct cm *cm)
{
	if (cm->started)
		return 0;
	int error = random_u32(&cm->next_number);
	if (error == 0)
		error = gsi_start(cm->gsi, take, cm);
	cm->started = error == 0;
	return error;
}

void cm_settle(struct cm *cm)
{
	for (size_t i = 0; i < cm->ids.size; i++) {
		struct cm_endpoint *endpoint = table_find(&cm->ids, cm->ids.slot[i].number);
		if (endpoint)
			take_leave(endpoint);
	}
}
