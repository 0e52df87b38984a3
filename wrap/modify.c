/* SPDX-License-Identifier: Apache-2.0 */
#include "modify.h"

#include "link.h"
#include "next.h"
#include "ports.h"
#include "queue_pairs.h"
#include "refuse.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int call_next(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask)
{
	__typeof__(&ibv_modify_qp) next = NEXT(ibv_modify_qp);

	if (next)
		return next(qp, attr, mask);
	errno = ENOSYS;
	return ENOSYS;
}

/* With another PSN in place of the one at `offset`. The program's own structure stays as it is, and may be one of before `rate_limit`. */
static int call_next_with(struct ibv_qp *qp, const struct ibv_qp_attr *attr, int mask, size_t offset, uint32_t psn)
{
	struct ibv_qp_attr changed;
	size_t size = mask & IBV_QP_RATE_LIMIT ? sizeof changed : offsetof(struct ibv_qp_attr, rate_limit);

	memset(&changed, 0, sizeof changed);
	memcpy(&changed, attr, size);
	memcpy((char *)&changed + offset, &psn, sizeof psn);
	return call_next(qp, &changed, mask);
}

static struct report_record record_of(const struct ibv_qp *qp, const struct queue_pair *pair)
{
	struct report_record record = {.qpn = qp->qp_num, .type = qp->qp_type, .peer_qpn = pair ? pair->peer_qpn : 0};

	snprintf(record.device, sizeof record.device, "%s", qp->context->device->name);
	if (pair)
		memcpy(record.peer_gid, pair->peer_gid, sizeof record.peer_gid);
	return record;
}

/* Whether its packets have PSNs, and one peer, which RTR names. */
static bool has_peer(const struct ibv_qp *qp)
{
	return qp->qp_type == IBV_QPT_RC || qp->qp_type == IBV_QPT_UC || qp->qp_type == IBV_QPT_XRC_SEND || qp->qp_type == IBV_QPT_XRC_RECV;
}

/* `verb`: what the program wants to do to it. As refuse(). */
static int refuse_pair(const struct ibv_qp *qp, const char *verb, const char *why)
{
	struct report_record record = record_of(qp, NULL);
	char what[160];

	link_reach();
	snprintf(what, sizeof what, "%s queue pair %u (0x%x) of %s", verb, qp->qp_num, qp->qp_num, qp->context->device->name);
	return refuse(&record, "queue pair", false, what, why);
}

/* ---- to INIT ---- */

static int register_pair(struct queue_pair *pair)
{
	struct local_queue_pair request = {.port = pair->port, .qpn = pair->qpn, .type = queue_pair_agents_type(pair->type)};
	struct report_record record = record_of(pair->qp, NULL);
	struct local_answer answer = {.status = EINVAL, .text = "the port or its addresses can't be read"};
	union ibv_gid none;
	char what[128];

	memcpy(request.device, pair->device, sizeof request.device);
	if (port_report(pair->context, pair->port, -1, &none) == 0 &&
	    link_ask(&request, sizeof request, LOCAL_REGISTER, &answer) == 0 && answer.status == 0 && !answer.observed) {
		pair->psn = answer.psn;
		pair->registered = true;
		return 0;
	}
	snprintf(what, sizeof what, "register queue pair %u (0x%x) of %s", pair->qpn, pair->qpn, pair->device);
	return refuse(&record, "register", answer.status == EACCES || answer.observed, what, answer.text[0] ? answer.text : strerror((int)answer.status));
}

static int to_init(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask)
{
	struct queue_pair pair, old;
	int error;

	/* From INIT to INIT only attributes change. */
	if (queue_pairs_find(qp, &old) && old.state == QUEUE_PAIR_INIT && old.qpn == qp->qp_num && (!(mask & IBV_QP_PORT) || attr->port_num == old.port))
		return call_next(qp, attr, mask);
	queue_pairs_forget(qp, &old);
	pair = (struct queue_pair){.qp = qp, .context = qp->context, .qpn = qp->qp_num, .type = qp->qp_type, .port = attr->port_num, .state = QUEUE_PAIR_INIT};
	snprintf(pair.device, sizeof pair.device, "%s", qp->context->device->name);
	/* A call that the device will refuse in any case concerns nobody. */
	if (!(mask & IBV_QP_PORT))
		return call_next(qp, attr, mask);
	error = register_pair(&pair);
	if (error != 0)
		return error;
	error = queue_pairs_put(&pair);
	if (error == 0)
		error = call_next(qp, attr, mask);
	if (error != 0)
		queue_pairs_forget(qp, &old);
	return error;
}

/* ---- to RTR ---- */

static void describe(const struct queue_pair *pair, char *what, size_t size)
{
	char peer[REFUSE_GID];

	snprintf(what, size, "connect queue pair %u (0x%x) of %s with queue pair %u (0x%x) at %s", pair->qpn, pair->qpn, pair->device, pair->peer_qpn, pair->peer_qpn,
		 refuse_gid_text(pair->peer_gid, pair->peer_lid, peer));
}

/* Asks for the peer. 0: it may go on, and pair->vouched says with whose PSNs; else EACCES. */
static int ask_for_peer(struct queue_pair *pair, const struct ibv_qp_attr *attr, struct report_record *record)
{
	/* Without a GRH the port's first GID stands for it. */
	uint8_t index = attr->ah_attr.is_global ? attr->ah_attr.grh.sgid_index : 0;
	struct local_connect request = {.port = pair->port, .qpn = pair->qpn, .gid_index = index,
					.peer_qpn = pair->peer_qpn, .peer_lid = pair->peer_lid, .psn_would_be = attr->rq_psn};
	struct local_answer answer = {.status = EINVAL, .text = "the GID at this index can't be read"};
	union ibv_gid own;
	char what[200];

	memcpy(request.device, pair->device, sizeof request.device);
	memcpy(request.peer_gid, pair->peer_gid, sizeof request.peer_gid);
	if (port_report(pair->context, pair->port, index, &own) == 0) {
		memcpy(pair->gid, own.raw, sizeof pair->gid);
		memcpy(request.gid, own.raw, sizeof request.gid);
		if (link_ask(&request, sizeof request, LOCAL_CONNECT, &answer) != 0)
			answer.status = answer.status ? answer.status : ETIMEDOUT;
	}
	memcpy(record->peer, answer.peer, sizeof record->peer);
	memcpy(record->encryption, answer.encryption, sizeof record->encryption);
	pair->vouched = pair->registered && answer.status == 0 && answer.vouched;
	pair->peer_psn = answer.psn;
	pair->asked = answer.status == 0 || answer.status == ETIMEDOUT;
	if (answer.status == 0 && !answer.observed)
		return 0;
	describe(pair, what, sizeof what);
	return refuse(record, "connect", answer.status != ETIMEDOUT, what, answer.text[0] ? answer.text : strerror((int)answer.status));
}

/* What the thread was told while the call was under way. */
static int stop_if_revoked(struct ibv_qp *qp, int error)
{
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
	struct queue_pair pair;

	if (!queue_pairs_find(qp, &pair) || !pair.revoked)
		return error;
	call_next(qp, &attr, IBV_QP_STATE);
	errno = EACCES;
	return EACCES;
}

/* Why a queue pair can't go to RTR; NULL: it can. */
static const char *unfit(bool known, const struct queue_pair *pair)
{
	if (!known)
		return "it did not come to INIT in this process by ibv_modify_qp, so the agent does not know it; connect it where it was made";
	if (pair->revoked)
		return "the agent had it stopped; reset it first";
	return pair->state != QUEUE_PAIR_INIT ? "it is connected; reset it first" : NULL;
}

/* Takes the peer that the program names. An earlier attempt may have failed at the device after its peer was told the PSN: another peer gets
 * another one. */
static int name_peer(struct queue_pair *pair, const struct ibv_qp_attr *attr)
{
	struct queue_pair before = *pair;
	int error;

	pair->peer_qpn = attr->dest_qp_num;
	pair->peer_lid = attr->ah_attr.dlid;
	memset(pair->peer_gid, 0, sizeof pair->peer_gid);
	if (attr->ah_attr.is_global)
		memcpy(pair->peer_gid, attr->ah_attr.grh.dgid.raw, sizeof pair->peer_gid);
	if (!before.asked || (before.peer_qpn == pair->peer_qpn && before.peer_lid == pair->peer_lid &&
			      memcmp(before.peer_gid, pair->peer_gid, sizeof pair->peer_gid) == 0))
		return 0;
	pair->asked = pair->registered = false;
	error = register_pair(pair);
	return error ? error : queue_pairs_put(pair);
}

static int to_rtr(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask)
{
	struct report_record record;
	struct queue_pair pair;
	const char *problem = unfit(queue_pairs_find(qp, &pair), &pair);
	int error;

	if (problem) {
		error = refuse_pair(qp, "connect", problem);
		return error ? error : call_next(qp, attr, mask);
	}
	/* A call that the device will refuse in any case concerns nobody. */
	if (!(mask & IBV_QP_AV) || !(mask & IBV_QP_DEST_QPN) || !(mask & IBV_QP_RQ_PSN))
		return call_next(qp, attr, mask);
	error = name_peer(&pair, attr);
	if (error != 0)
		return error;
	record = record_of(qp, &pair);
	record.psn = attr->rq_psn;
	error = ask_for_peer(&pair, attr, &record);
	/* The program may have destroyed it meanwhile, from another thread. */
	if (!queue_pairs_note_asked(&pair) && error == 0)
		errno = error = EINVAL;
	if (error != 0)
		return error;
	error = pair.vouched ? call_next_with(qp, attr, mask, offsetof(struct ibv_qp_attr, rq_psn), pair.peer_psn) : call_next(qp, attr, mask);
	if (error == 0) {
		pair.state = QUEUE_PAIR_CONNECTED;
		error = queue_pairs_put(&pair);
		record.kind = REPORT_CONNECTED;
		record.replaced = pair.vouched;
		report_append(&record);
	}
	return stop_if_revoked(qp, error);
}

/* ---- to RTS and beyond ---- */

static int to_rts(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask)
{
	struct report_record record;
	struct queue_pair pair;
	bool known = queue_pairs_find(qp, &pair);
	int error;

	if (known && pair.revoked)
		return stop_if_revoked(qp, EACCES);
	if (!known || pair.state == QUEUE_PAIR_INIT) {
		error = refuse_pair(qp, "start", "it did not come to RTR in this process by ibv_modify_qp, so the agent can't tell its peer; connect it where it was made");
		return error ? error : call_next(qp, attr, mask);
	}
	if (pair.state == QUEUE_PAIR_STARTED || !(mask & IBV_QP_SQ_PSN))
		return call_next(qp, attr, mask);
	error = pair.vouched ? call_next_with(qp, attr, mask, offsetof(struct ibv_qp_attr, sq_psn), pair.psn) : call_next(qp, attr, mask);
	if (error == 0) {
		pair.state = QUEUE_PAIR_STARTED;
		error = queue_pairs_put(&pair);
		record = record_of(qp, &pair);
		record.kind = REPORT_STARTED;
		record.psn = attr->sq_psn;
		record.replaced = pair.vouched;
		report_append(&record);
	}
	return stop_if_revoked(qp, error);
}

static int to_reset(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask)
{
	struct queue_pair old;
	int error = call_next(qp, attr, mask);

	if (error == 0)
		queue_pairs_forget(qp, &old);
	return error;
}

static bool leads_elsewhere(const struct queue_pair *pair, const struct ibv_ah_attr *ah)
{
	static const uint8_t none[16];

	return memcmp(pair->peer_gid, ah->is_global ? ah->grh.dgid.raw : none, sizeof none) != 0 || (!ah->is_global && ah->dlid != pair->peer_lid);
}

/* A connected queue pair can be given another path: only to the same peer. */
static int check_path(const struct ibv_qp *qp, const struct ibv_qp_attr *attr, int mask)
{
	struct queue_pair pair;
	bool known = queue_pairs_find(qp, &pair) && pair.vouched;

	if (!known || !(((mask & IBV_QP_AV) && leads_elsewhere(&pair, &attr->ah_attr)) || ((mask & IBV_QP_ALT_PATH) && leads_elsewhere(&pair, &attr->alt_ah_attr))))
		return 0;
	return refuse_pair(qp, "change the path of", "the new one leads to another address, which the agent did not vouch for; connect another queue pair to that address");
}

static int change(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask)
{
	int error = 0;

	if (mask & IBV_QP_STATE && attr->qp_state == IBV_QPS_INIT)
		return to_init(qp, attr, mask);
	if (mask & IBV_QP_STATE && attr->qp_state == IBV_QPS_RESET)
		return to_reset(qp, attr, mask);
	if (mask & IBV_QP_STATE && attr->qp_state == IBV_QPS_RTR) {
		/* Not known yet: with the path it would fail migrated to. */
		if (mask & IBV_QP_ALT_PATH && mask & IBV_QP_AV && memcmp(&attr->alt_ah_attr.grh.dgid, &attr->ah_attr.grh.dgid, 16) != 0)
			error = refuse_pair(qp, "connect", "its alternate path leads to another address than its path; give it none");
		return error ? error : to_rtr(qp, attr, mask);
	}
	error = check_path(qp, attr, mask);
	if (error != 0)
		return error;
	if (mask & IBV_QP_STATE && attr->qp_state == IBV_QPS_RTS)
		return to_rts(qp, attr, mask);
	return call_next(qp, attr, mask);
}

int modify(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask)
{
	int error = 0;

	if (has_peer(qp))
		return change(qp, attr, mask);
	if (qp->qp_type != IBV_QPT_UD && mask & IBV_QP_STATE && attr->qp_state == IBV_QPS_INIT)
		error = refuse_pair(qp, "use", qp->qp_type == IBV_QPT_RAW_PACKET ?
				    "its packets go to any address, past the agent; a program that needs raw packets can't be wrapped" :
				    "queue pairs of its type connect past the agent; let the program use RC, UC or UD");
	return error ? error : call_next(qp, attr, mask);
}

int modify_destroy(struct ibv_qp *qp)
{
	__typeof__(&ibv_destroy_qp) next = NEXT(ibv_destroy_qp);
	struct queue_pair pair;
	/* First: another process may get its number at once. */
	bool known = queue_pairs_forget(qp, &pair);
	int error = next ? next(qp) : ENOSYS;

	if (error != 0 && known)
		queue_pairs_restore(&pair);
	return error;
}
