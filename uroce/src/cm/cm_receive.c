/* SPDX-License-Identifier: Apache-2.0 */
/* What peers send, or anyone who says that he is one: every message is looked at in the state that its endpoint is in, and the others
 * are left unanswered. */
#include <errno.h>
#include <string.h>

#include "cm_parts.h"
#include "random.h"

enum { LONGEST_TIMEOUT = 24 };

/* Those who listen at the very address that the program has connected to come before those who listen at more. */
static struct cm_endpoint *find_listener(struct cm *cm, const struct mad *mad, const struct gsi_path *path)
{
	struct cm_endpoint *wider = NULL;
	struct mad_ip ip;
	bool has_ip = mad_read_ip(mad->private_data, mad->private_length, &ip);

	for (struct cm_endpoint *listener = cm->listeners; listener; listener = listener->next) {
		bool covers = (has_ip && gsi_name_covers(&listener->at, &ip.destination)) || gsi_name_covers(&listener->at, &path->own);
		if (listener->service != mad->service || !covers)
			continue;
		if (listener->at.where == GSI_ONE)
			return listener;
		wider = listener;
	}
	return wider;
}

/* Programs tell others the port that they are bound to just before they listen there: the request will come again. */
static bool is_reserved(const struct cm *cm, uint64_t service)
{
	for (size_t i = 0; i < cm->ids.size; i++) {
		uint32_t number = cm->ids.slot[i].number;
		const struct cm_endpoint *endpoint = number != 0 ? table_find(&cm->ids, number) : NULL;
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
	struct cm_endpoint **chain = cm_chain_of(cm, endpoint->remote, &endpoint->path.peer);
	endpoint->next = *chain;
	endpoint->chained = true;
	*chain = endpoint;
	cm_watch(endpoint);
	return endpoint;
}

static void refuse_request(struct cm *cm, const struct mad *mad, const struct gsi_path *path, enum mad_reason reason)
{
	const struct mad rej = {
		.kind = MAD_REJ, .transaction = mad->transaction, .remote = mad->local, .about = MAD_ABOUT_REQ, .reason = (uint16_t)reason};

	gsi_send(cm->gsi, path, &rej);
}

static void take_req(struct cm *cm, const struct mad *mad, const struct gsi_path *path)
{
	struct cm_endpoint *endpoint = cm_find_peer(cm, mad->local, &path->peer);

	/* One that the program has rejected, and not destroyed yet, may be asked again: the rejection was lost. */
	if (endpoint && endpoint->peer_qpn == mad->qpn && endpoint->state != CM_ENDED) {
		/* It was sent again: what answers it, too. */
		if (endpoint->state == CM_REQ_RECEIVED)
			cm_send_once(endpoint, MAD_MRA);
		else if (endpoint->state == CM_REP_SENT)
			cm_send_again(endpoint);
		return;
	}
	struct cm_endpoint *listener = find_listener(cm, mad, path);
	if (!listener && is_reserved(cm, mad->service))
		return;
	uint32_t psn;
	endpoint = random_u32(&psn) == 0 ? new_request(cm, listener, mad, path, CM_REQ_RECEIVED) : NULL;
	if (!endpoint) {
		refuse_request(cm, mad, path, listener ? MAD_REASON_NO_RESOURCES : MAD_REASON_SERVICE);
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
	endpoint->alternate = mad->alternate;
	enum ibv_mtu own = cm->device->mtu;
	endpoint->mtu = mad->mtu < own ? mad->mtu : (uint8_t)own;
	cm->user->requested(listener, endpoint, mad);
}

static void take_rep(struct cm_endpoint *endpoint, const struct mad *mad)
{
	/* The confirmation was lost. */
	if (endpoint->state == CM_ESTABLISHED && endpoint->remote == mad->local) {
		cm_send_once(endpoint, MAD_RTU);
		return;
	}
	if (endpoint->state != CM_REQ_SENT)
		return;
	cm_stop_timer(endpoint);
	endpoint->state = CM_REP_RECEIVED;
	endpoint->remote = mad->local;
	endpoint->peer_qpn = mad->qpn;
	endpoint->peer_psn = mad->psn;
	endpoint->peer_qkey = mad->qkey;
	endpoint->responder_resources = mad->initiator_depth;
	endpoint->initiator_depth = mad->responder_resources;
	endpoint->rnr_retry_count = mad->rnr_retry_count;
	cm_watch(endpoint);
	cm_tell(endpoint, CM_RESPONSE, 0, mad);
}

void cm_take_rej(struct cm_endpoint *endpoint, const struct mad *mad)
{
	switch (endpoint->state) {
	case CM_REQ_SENT:
	case CM_REP_SENT:
	case CM_REP_RECEIVED:
	case CM_REQ_RECEIVED:
		cm_stop_timer(endpoint);
		endpoint->state = CM_ENDED;
		cm_tell(endpoint, CM_REJECTED, mad->reason, mad);
		return;
	case CM_ESTABLISHED:
		cm_enter_timewait(endpoint);
		cm_tell(endpoint, CM_DISCONNECTED, 0, mad);
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
	if (endpoint->state == CM_REQ_SENT) {
		endpoint->remote = mad->local;
		cm_watch(endpoint);
	}
	/* The peer needs this long, and no message until then. */
	endpoint->give_up = endpoint->cm->device->now + CM_NS(power) + (CM_MAX_RETRIES + 1) * CM_NS(CM_RESPONSE_TIMEOUT);
	cm_set_timer(endpoint, CM_NS(power));
}

static void take_dreq(struct cm_endpoint *endpoint, const struct mad *mad)
{
	if (mad->qpn != endpoint->qpn && endpoint->qpn != 0)
		return;
	switch (endpoint->state) {
	case CM_REP_SENT:
	case CM_ESTABLISHED:
		cm_stop_timer(endpoint);
		endpoint->state = CM_DREQ_RECEIVED;
		cm_tell(endpoint, CM_DISCONNECTED, 0, mad);
		return;
	case CM_DREQ_SENT: /* both at once */
		cm_send_once(endpoint, MAD_DREP);
		cm_enter_timewait(endpoint);
		cm_tell(endpoint, CM_DISCONNECTED, 0, mad);
		return;
	case CM_TIMEWAIT:
		cm_send_once(endpoint, MAD_DREP);
		return;
	default:
		return;
	}
}

/* There are no alternate paths. The kernel leaves this unanswered on RoCE. */
static void refuse_path(struct cm_endpoint *endpoint, const struct mad *mad)
{
	const struct mad apr = {.kind = MAD_APR,
				.transaction = mad->transaction,
				.local = endpoint->id,
				.remote = endpoint->remote,
				.reason = MAD_APR_UNSUPPORTED};

	gsi_send(endpoint->cm->gsi, &endpoint->path, &apr);
}

static void take_sidr_req(struct cm *cm, const struct mad *mad, const struct gsi_path *path)
{
	struct cm_endpoint *endpoint = cm_find_peer(cm, mad->local, &path->peer);

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
	gsi_send(cm->gsi, path, &answer);
}

static void take_sidr_rep(struct cm_endpoint *endpoint, const struct mad *mad)
{
	if (endpoint->state != CM_SIDR_SENT)
		return;
	cm_stop_timer(endpoint);
	endpoint->state = CM_ENDED;
	endpoint->peer_qpn = mad->qpn;
	endpoint->peer_qkey = mad->qkey;
	if (mad->reason == MAD_SIDR_VALID)
		cm_tell(endpoint, CM_CONNECTED, 0, mad);
	else
		cm_tell(endpoint, CM_UNREACHABLE, mad->reason, mad);
}

/* A message about none of our connections, or from a stranger. A peer whose goodbye comes late, or who accepts what was given up
 * meanwhile, is answered all the same, so that it does not wait. */
static void answer_late(struct cm *cm, const struct mad *mad, const struct gsi_path *path, bool has_endpoint)
{
	struct mad late = {.transaction = mad->transaction, .local = mad->remote, .remote = mad->local};

	if (mad->kind == MAD_DREQ) {
		late.kind = MAD_DREP;
	} else if (mad->kind == MAD_REP && !has_endpoint) {
		late.kind = MAD_REJ;
		late.about = MAD_ABOUT_REP;
		late.reason = MAD_REASON_NO_ID;
	} else if (mad->kind == MAD_LAP && !has_endpoint) {
		late.kind = MAD_APR;
		late.reason = MAD_APR_NO_ID;
	} else {
		return;
	}
	gsi_send(cm->gsi, path, &late);
}

/* A message about a connection, which only its peer may send. */
static void take_of_connection(struct cm *cm, const struct mad *mad, const struct gsi_path *path)
{
	struct cm_endpoint *endpoint = table_find(&cm->ids, mad->kind == MAD_SIDR_REP ? mad->local : mad->remote);

	/* The peer rejects what it has not answered: it knows no ID of ours but its own request's. */
	if (!endpoint && mad->kind == MAD_REJ && mad->remote == 0)
		endpoint = cm_find_peer(cm, mad->local, &path->peer);
	bool known = endpoint && endpoint->state != CM_LISTENING &&
		     cm->device->same_peer(cm->device, &endpoint->path.peer, &path->peer);
	/* While the request is under way, the peer's ID is what an MRA has said, if one came; the answer may be of another process that
	 * has begun to listen since, or of nobody: then it has none. */
	bool settled = endpoint && endpoint->state != CM_REQ_SENT && endpoint->remote != 0;
	if (known && mad->kind != MAD_SIDR_REP && settled && endpoint->remote != mad->local)
		known = false;
	if (!known) {
		answer_late(cm, mad, path, endpoint != NULL);
		return;
	}
	switch (mad->kind) {
	case MAD_REP:
		take_rep(endpoint, mad);
		return;
	case MAD_RTU:
		if (endpoint->state == CM_REP_SENT)
			cm_establish(endpoint, mad);
		return;
	case MAD_REJ:
		cm_take_rej(endpoint, mad);
		return;
	case MAD_MRA:
		take_mra(endpoint, mad);
		return;
	case MAD_DREQ:
		take_dreq(endpoint, mad);
		return;
	case MAD_DREP:
		if (endpoint->state == CM_DREQ_SENT) {
			cm_enter_timewait(endpoint);
			cm_tell(endpoint, CM_DISCONNECTED, 0, mad);
		}
		return;
	case MAD_SIDR_REP:
		take_sidr_rep(endpoint, mad);
		return;
	case MAD_LAP:
		refuse_path(endpoint, mad);
		return;
	case MAD_APR:
		cm_take_apr(endpoint, mad);
		return;
	default:
		return;
	}
}

void cm_take(void *arg, const struct mad *mad, const struct gsi_path *path)
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
