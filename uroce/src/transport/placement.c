/* SPDX-License-Identifier: Apache-2.0 */
#include "placement.h"

#include "guard.h"
#include "newer.h"

/* The rights that a FLUSH of this type needs, from the queue pair and from the memory; 0: there is no such type. */
static int rights_of(uint8_t type)
{
	if (type == 0 || (type & ~(FLUSH_GLOBAL | FLUSH_PERSISTENT)))
		return 0;
	return (type & FLUSH_GLOBAL ? ACCESS_FLUSH_GLOBAL : 0) | (type & FLUSH_PERSISTENT ? ACCESS_FLUSH_PERSISTENT : 0);
}

/* A key's own memory, when a FLUSH is of all of it: then address and length mean nothing. */
static bool may_flush_all(const struct qp *qp, uint32_t rkey, int rights)
{
	const struct key *key = key_find(qp->device, rkey);
	if (!key || key->kind == KEY_LOCAL)
		return false;
	uint64_t first;
	if (key->kind == KEY_WINDOW) {
		const struct mw *mw = key->owner;
		first = mw->access & IBV_ACCESS_ZERO_BASED ? 0 : mw->va;
	} else {
		const struct mr *mr = key->owner;
		first = mr->iova;
	}
	return memory_remote(qp->pd, qp->qpn, rkey, first, 0, rights);
}

uint8_t placement_flush(const struct qp *qp, const struct packet *packet)
{
	int rights = rights_of(packet->flush_type);
	if (rights == 0 || packet->flush_level > FLUSH_REGION || ((int)qp->attr.qp_access_flags & rights) != rights)
		return AETH_NAK_INVALID;
	bool allowed = packet->flush_level == FLUSH_REGION ?
		may_flush_all(qp, packet->rkey, rights) :
		memory_remote(qp->pd, qp->qpn, packet->rkey, packet->va, packet->length, rights) != NULL;
	if (!allowed)
		return AETH_NAK_ACCESS;
	/* The CPU has written all that came before: its stores are visible to every thread once this one's have been ordered. */
#ifndef __SANITIZE_THREAD__ /* which knows no fences; the device's lock orders what it sees */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
	return 0;
}

uint8_t placement_atomic_write(const struct qp *qp, const struct packet *packet)
{
	uint64_t value;
	if (!(qp->attr.qp_access_flags & IBV_ACCESS_REMOTE_WRITE) || packet->length != sizeof value ||
	    packet->payload_length != sizeof value || packet->va % sizeof value != 0)
		return AETH_NAK_INVALID;
	uint8_t *memory = memory_remote(qp->pd, qp->qpn, packet->rkey, packet->va, sizeof value, IBV_ACCESS_REMOTE_WRITE);
	/* A region with an odd start makes an aligned remote address an odd one here. */
	if (!memory || (uintptr_t)memory % sizeof value != 0)
		return AETH_NAK_ACCESS;
	const struct iovec piece = { .iov_base = memory, .iov_len = sizeof value };
	if (GUARD_SET(*guard_begin(&piece, 1)) != 0)
		return AETH_NAK_ACCESS; /* the memory is not there, or may not be written */
	memcpy(&value, packet->payload, sizeof value);
	__atomic_store_n((uint64_t *)(void *)memory, value, __ATOMIC_SEQ_CST);
	guard_end();
	return 0;
}
