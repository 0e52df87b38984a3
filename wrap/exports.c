/* SPDX-License-Identifier: Apache-2.0 */
/* The functions of libibverbs that this library stands before. versions.map has their versions. */
#include "link.h"
#include "modify.h"
#include "next.h"
#include "ports.h"
#include "queue_pairs.h"
#include "refuse.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

/* The program's thread may be cancelled, but not while this library holds a lock or has half done something. */
#define UNCANCELLED(call) \
	({ \
		int cancel_; \
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_); \
		__auto_type result_ = call; \
		pthread_setcancelstate(cancel_, NULL); \
		result_; \
	})

EXPORT int ibv_modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask)
{
	int saved = errno, error = UNCANCELLED(modify(qp, attr, mask));

	if (error == 0)
		errno = saved;
	return error;
}

EXPORT int ibv_destroy_qp(struct ibv_qp *qp)
{
	int saved = errno, error = UNCANCELLED(modify_destroy(qp));

	if (error == 0)
		errno = saved;
	return error;
}

EXPORT int ibv_close_device(struct ibv_context *context)
{
	__typeof__(&ibv_close_device) next = NEXT(ibv_close_device);
	int saved = errno;

	queue_pairs_forget_context(context);
	errno = saved;
	return next ? next(context) : ENOSYS;
}

/* 0, or EACCES. */
static int check_address(struct ibv_pd *pd, const struct ibv_ah_attr *attr)
{
	struct local_address request = {.port = attr->port_num, .peer_lid = attr->dlid};
	struct local_answer answer = {.status = EINVAL, .text = "the GID at this index can't be read"};
	struct report_record record = {.kind = REPORT_ADDRESS};
	char what[160], peer[REFUSE_GID];
	union ibv_gid own;

	snprintf(request.device, sizeof request.device, "%s", pd->context->device->name);
	if (attr->is_global)
		memcpy(request.peer_gid, attr->grh.dgid.raw, sizeof request.peer_gid);
	if (port_report(pd->context, attr->port_num, attr->is_global ? attr->grh.sgid_index : 0, &own) == 0) {
		memcpy(request.gid, own.raw, sizeof request.gid);
		if (link_ask(&request, sizeof request, LOCAL_ADDRESS, &answer) != 0)
			answer.status = answer.status ? answer.status : ETIMEDOUT;
	}
	memcpy(record.device, request.device, sizeof record.device);
	memcpy(record.peer_gid, request.peer_gid, sizeof record.peer_gid);
	memcpy(record.peer, answer.peer, sizeof record.peer);
	memcpy(record.encryption, answer.encryption, sizeof record.encryption);
	if (answer.status == 0 && !answer.observed) {
		report_append(&record);
		return 0;
	}
	snprintf(what, sizeof what, "send datagrams from %s to %s", request.device, refuse_gid_text(request.peer_gid, attr->dlid, peer));
	return refuse(&record, "ud", answer.status != ETIMEDOUT, what, answer.text[0] ? answer.text : strerror((int)answer.status));
}

static struct ibv_ah *create_address(struct ibv_pd *pd, struct ibv_ah_attr *attr)
{
	__typeof__(&ibv_create_ah) next = NEXT(ibv_create_ah);

	if (!next) {
		errno = ENOSYS;
		return NULL;
	}
	return check_address(pd, attr) == 0 ? next(pd, attr) : NULL;
}

EXPORT struct ibv_ah *ibv_create_ah(struct ibv_pd *pd, struct ibv_ah_attr *attr)
{
	int saved = errno;
	struct ibv_ah *ah = UNCANCELLED(create_address(pd, attr));

	if (ah)
		errno = saved;
	return ah;
}

EXPORT struct ibv_ah *ibv_create_ah_from_wc(struct ibv_pd *pd, struct ibv_wc *wc, struct ibv_grh *grh, uint8_t port)
{
	/* The steps that it consists of, so that the address is seen. */
	__typeof__(&ibv_init_ah_from_wc) init = NEXT(ibv_init_ah_from_wc);
	struct ibv_ah_attr attr;

	if (!init) {
		errno = ENOSYS;
		return NULL;
	}
	return init(pd->context, port, wc, grh, &attr) == 0 ? ibv_create_ah(pd, &attr) : NULL;
}
