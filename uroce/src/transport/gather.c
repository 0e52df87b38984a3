/* SPDX-License-Identifier: Apache-2.0 */
#include "gather.h"

#include <errno.h>
#include <string.h>

#include "guard.h"

/* The part [offset, offset + length) of a list, entry by entry. */
struct walk {
	const struct ibv_sge *sge;
	uint32_t left; /* entries */
	uint32_t skip; /* bytes of the current entry that lie before the part */
};

static void walk_begin(struct walk *walk, const struct ibv_sge *sge, uint32_t count, uint32_t offset)
{
	while (count > 0 && offset >= sge->length) {
		offset -= sge->length;
		sge++;
		count--;
	}
	*walk = (struct walk){ .sge = sge, .left = count, .skip = offset };
}

/* The next piece, at most `length` bytes: its address, NULL when the list ends or a key does not allow it. */
static uint8_t *walk_next(struct walk *walk, const struct pd *pd, int access, uint32_t length, uint32_t *got)
{
	while (walk->left > 0 && walk->sge->length == walk->skip) {
		walk->sge++;
		walk->left--;
		walk->skip = 0;
	}
	if (walk->left == 0)
		return NULL;

	const struct ibv_sge *sge = walk->sge;
	uint32_t here = sge->length - walk->skip;
	if (here > length)
		here = length;
	uint8_t *memory = memory_local(pd, sge->lkey, sge->addr + walk->skip, here, access);
	walk->skip += here;
	*got = here;
	return memory;
}

int send_gather(struct qp *qp, struct send_wqe *wqe, uint32_t offset, uint32_t length, struct packet_out *out)
{
	out->pieces = 0;
	out->payload_length = length;
	if (length == 0)
		return 0;
	if (wqe->inlined) {
		out->piece[0] = (struct iovec){ .iov_base = send_wqe_inline(wqe) + offset, .iov_len = length };
		out->pieces = 1;
		return 0;
	}

	struct walk walk;
	walk_begin(&walk, wqe->sge, wqe->sges, offset);
	while (length > 0) {
		uint32_t got;
		uint8_t *memory = walk_next(&walk, qp->pd, 0, length, &got);
		if (!memory || out->pieces == LINK_MAX_PIECES)
			return -EFAULT;
		out->piece[out->pieces++] = (struct iovec){ .iov_base = memory, .iov_len = got };
		length -= got;
	}
	return 0;
}

static bool scatter(const struct pd *pd, const struct ibv_sge *sge, uint32_t sges, uint32_t offset, const uint8_t *from,
		    uint32_t length)
{
	struct walk walk;
	walk_begin(&walk, sge, sges, offset);
	while (length > 0) {
		uint32_t got;
		uint8_t *memory = walk_next(&walk, pd, IBV_ACCESS_LOCAL_WRITE, length, &got);
		if (!memory)
			return false;
		if (!guard_copy(memory, from, got))
			return false;
		from += got;
		length -= got;
	}
	return true;
}

bool send_scatter(struct qp *qp, const struct send_wqe *wqe, uint32_t offset, const uint8_t *from, uint32_t length)
{
	return scatter(qp->pd, wqe->sge, wqe->sges, offset, from, length);
}

enum ibv_wc_status receive_scatter(const struct recv_queue *rq, const struct recv_taken *receive, uint32_t offset,
				   const uint8_t *from, uint32_t length)
{
	if (length > receive->length || offset > receive->length - length)
		return IBV_WC_LOC_LEN_ERR;
	return scatter(rq->pd, receive->sge, receive->sges, offset, from, length) ? IBV_WC_SUCCESS : IBV_WC_LOC_PROT_ERR;
}
