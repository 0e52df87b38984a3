/* SPDX-License-Identifier: Apache-2.0 */
/* Queue pairs and the queues in them. */
#ifndef UROCE_QP_H
#define UROCE_QP_H

#include "ah.h"
#include "congestion.h"
#include "newer.h"
#include "recv_queue.h"
#include "ring.h"
#include "timer.h"
#include "window.h"

/* ---- sending ---- */

/* States of a posted work request, in order. */
enum send_state {
	SEND_POSTED,  /* nothing of it has been sent */
	SEND_STARTED, /* some packets have been sent */
	SEND_SENT,    /* all of them */
	SEND_DONE,    /* answered: completes when all before it have */
};

struct send_wqe {
	uint64_t wr_id;
	enum ibv_wr_opcode opcode; /* IBV_WR_*, BIND_MW and LOCAL_INV included; WR_* of newer.h */
	unsigned flags;            /* enum ibv_send_flags; IBV_SEND_SIGNALED also when sq_sig_all */
	union {
		__be32 imm;
		uint32_t invalidate; /* SEND_WITH_INV, LOCAL_INV */
	};
	uint32_t rkey;
	uint64_t remote; /* address */
	uint64_t compare_add;
	uint64_t swap;
	/* UD */
	struct address_vector av;
	uint32_t remote_qpn;
	uint32_t remote_qkey;
	union {
		/* BIND_MW */
		struct {
			struct mw *mw;
			struct ibv_mw_bind_info bind;
		};
		/* FLUSH: of `flush_length` bytes at `remote`, though the message has none */
		struct {
			uint32_t flush_length;
			uint8_t flush_type;
			uint8_t flush_level;
		};
	};

	uint32_t length; /* of the message */
	uint32_t sges;   /* 0 when inline */
	bool inlined;

	/* Of the requester. */
	enum send_state state;
	enum ibv_wc_status status; /* of a local failure found before sending */
	uint32_t first_psn;
	uint32_t last_psn; /* an acknowledgement must reach it */

	/* Scatter/gather entries, or inline data of `length` bytes: room for the queue's stride. */
	struct ibv_sge sge[];
};

static inline uint8_t *send_wqe_inline(struct send_wqe *wqe)
{
	return (uint8_t *)wqe->sge;
}

/* Guarded by the device's lock. Positions count up for ever; the slot is position & (size - 1). */
struct send_queue {
	uint8_t *ring;
	size_t stride;
	uint32_t size;   /* a power of two, at least max_send_wr */
	uint32_t tail;   /* next to fill */
	uint32_t next;   /* the requester's: next to be sent, or being sent */
	uint32_t head;   /* oldest that has not completed */
};

static inline struct send_wqe *send_queue_at(const struct send_queue *sq, uint32_t position)
{
	return ring_slot(sq->ring, sq->stride, sq->size, position);
}

/* ---- the queue pair ---- */

enum { QP_TIMERS = 2 };
enum { STAMPS = 32 /* a power of two */ };

struct repair;

/* State of the requester. unacked <= next <= top, on the circle of PSNs; after a loss `next` goes back. */
struct requester {
	uint32_t unacked;    /* oldest PSN that has not been answered */
	uint32_t next;       /* next PSN to send */
	uint32_t top;        /* one past the highest PSN ever sent */
	uint32_t offset;     /* bytes sent of the message at sq.next, or asked for by its READ */
	uint32_t since_ack_request; /* packets */
	uint8_t retries;     /* left */
	uint8_t rnr_retries; /* left; 7 in the attribute is for ever */
	bool waiting_rnr;    /* nothing is sent until the timer fires */
	bool recovering;     /* went back, and nothing has been answered since */
	bool peer_reports;   /* the peer keeps what comes ahead of a gap, and tells what is missing: repair.c */
	bool flush_twice;    /* the next FLUSH has the ICRC that rdma_rxe takes: link.h */
	/* READ requests (a long READ makes several) and atomics outstanding, oldest first: a ring. */
	struct asked {
		uint32_t last_psn; /* of the answer */
		bool ends;         /* it is the last request of its READ, or an atomic */
	} asked[MAX_RD_ATOMIC];
	uint32_t asked_head; /* positions count up for ever */
	uint32_t asked_next; /* the next to be sent, or sent again */
	uint32_t asked_tail;
	/* The peer has refused a request, while an answer to an older READ or atomic is still missing. It ends the queue pair as
	 * soon as all before it is answered; nothing is sent any more. */
	enum ibv_wc_status refusal; /* IBV_WC_SUCCESS: none */
	uint32_t refused_psn;
	unsigned early_retransmits; /* of this flight */
	unsigned backoff;     /* doublings of the time before them, until an answer has measured the round trip */
	uint64_t lateness;    /* of our own timer: how long this process waits for a processor */
	uint64_t silent_since; /* all was sent again, for nothing had been heard since then; 0: no */
	uint64_t progress_at; /* when the flight began, or something of it was last answered */
	bool progress_undated; /* something was answered since, at a time that is not known */
	struct timer timer;

	struct repair *repair; /* what is known to be missing; NULL: there never was anything */
	struct congestion path; /* how much may be on its way, and how fast */
	/* Packets whose answers measure the round trip, oldest first: a ring. */
	struct stamp {
		uint32_t psn;
		uint64_t sent;
	} stamps[STAMPS];
	uint32_t stamp_head; /* positions count up for ever */
	uint32_t stamp_tail;
	uint32_t waited_psn; /* the request of this PSN has waited at the peer ... */
	uint32_t waited_ns;  /* ... for so long before it was answered; 0: none has, as far as is known */
	bool repeating;      /* a packet is sent again by itself */
	uint32_t repeat_bytes; /* that a READ then asks for */
	bool limited;        /* there was more to send than the window, or the pace, let out */
	uint64_t pace_at;    /* the next burst leaves then */
	uint32_t burst_left; /* packets of this one */
	struct timer send_timer; /* for it */
};

/* One READ, atomic, FLUSH or ATOMIC WRITE that was executed: kept for its responses and for repetition. */
struct read_atomic {
	uint32_t first_psn;
	uint32_t packets;
	uint8_t opcode; /* OP_READ_REQUEST, OP_COMPARE_SWAP, OP_FETCH_ADD, OP_FLUSH, OP_ATOMIC_WRITE */
	bool pending;   /* responses are still to be sent */
	bool repeated;  /* answered before: gives way to new ones */
	bool asked_again;
	uint32_t rkey;
	uint64_t va;
	uint32_t length;
	uint32_t begin;    /* bytes: where the response that is sent, or sent again, starts */
	uint32_t sent;     /* bytes */
	uint32_t arrived_us; /* when the request did, in microseconds, as far as 32 bits hold them */
	uint64_t original; /* atomics: the answer */
	uint32_t msn;
};

enum { AGAIN = 1024 /* a power of two */ };

/* tag.c's. All zero: nothing is agreed. */
struct tag {
	uint16_t own;     /* in all packets to the peer, which has asked for it; 0: it has not */
	uint16_t peer;    /* in all packets of the peer, and others are none of its; 0: not known */
	uint8_t received; /* long packets, until the peer is asked */
	bool ask_due;
	uint64_t asked_at;
};

struct hold;

struct responder {
	uint32_t expected; /* PSN */
	uint32_t msn;
	bool not_ready;    /* it was for want of a receive: what is ahead comes again */
	bool nak_sent;     /* for a gap: silent until `expected` arrives */
	bool in_message;   /* between first and last */
	uint32_t message_kind; /* T_SEND or T_WRITE */
	bool has_receive;  /* `receive` was taken for the message under way */
	uint64_t write_va; /* of the write under way */
	uint32_t write_rkey;
	uint32_t write_left;
	uint32_t written;
	uint32_t received; /* bytes of the send under way */
	bool ack_due;      /* an acknowledgement of everything before `expected` is to be sent */
	uint8_t nak_due;   /* syndrome to send instead; 0: none */
	uint32_t nak_psn;
	struct read_atomic *reads; /* a ring of read_size, a power of two, at least max_dest_rd_atomic */
	uint32_t read_size;
	uint32_t read_kept; /* entries that hold something */
	uint32_t read_head; /* oldest with responses still to be sent; counts up for ever */
	uint32_t read_tail; /* next to fill */
	struct read_atomic *again; /* pieces of READs that are asked for again: a ring of AGAIN, made when first needed */
	uint32_t again_head; /* counts up for ever */
	uint32_t again_tail;
	bool gaps_due;             /* the peer is to hear what is missing */
	uint32_t asked_psn; /* the newest request in order that is to be acknowledged ... */
	uint64_t asked_at;  /* ... and when it arrived; 0: none, or not known */
	struct hold *hold;         /* requests ahead of a gap: hold.c; NULL: there never were any */
	struct recv_taken *receive; /* room for one, allocated with the queue pair */
};

struct qp {
	struct ibv_qp_ex ibv;
#ifndef HAVE_IBV_WR_FLUSH
	wr_flush_function *wr_flush; /* where the ibv_qp_ex of a newer verbs.h has it */
#endif
	struct device *device;
	struct context *context;
	struct pd *pd;
	struct cq *send_cq;
	struct cq *recv_cq;
	struct srq *srq; /* or NULL */
	enum ibv_qp_type type;
	uint32_t qpn;
	struct ibv_qp_cap cap;
	bool sq_sig_all;
	bool draining; /* in SQD: nothing new is started, and it is drained when nothing is outstanding */
	bool sqd_event_wanted;
	bool last_wqe_raised;
	bool blocks_own_multicast; /* what it sends to a group itself does not come back */
	unsigned groups; /* multicast groups that it is attached to */
	bool binds_windows; /* a BIND_MW was posted: destroying looks for windows of type 2 */

	enum ibv_qp_state state; /* under the device's lock */
	struct ibv_qp_attr attr; /* as last set by modify_qp */
	struct address_vector av; /* of attr.ah_attr */
	uint32_t mtu;            /* bytes */

	struct send_queue sq;
	struct recv_queue rq;
	struct requester req;
	struct responder resp;
	struct tag tag;
	bool cnp_due;     /* marking.c's */
	uint64_t cnp_at;  /* the last one */

	struct shm_path *path; /* to the peer, where it is on this host; NULL: the link */
	struct qp *active_next; /* of the active, or the parked ones */
	bool active;
	bool parked;

	/* ibv_wr_start ... ibv_wr_complete: the builder's position. The device's lock is not held between. */
	struct lock build_lock; /* held from wr_start to wr_complete */
	uint32_t build_tail;
	uint32_t build_limit; /* position that was free when last looked, with the device's lock held */
	int build_error;
	uint64_t allowed_ops; /* send_ops_flags */
};

#ifndef HAVE_IBV_WR_FLUSH
_Static_assert(offsetof(struct qp, wr_flush) == offsetof(struct ibv_qp_ex, wr_atomic_write) + sizeof(void (*)(void)),
	       "wr_flush must follow wr_atomic_write");
#endif

static inline struct qp *qp_of(struct ibv_qp *qp)
{
	return (struct qp *)qp;
}

/* Where its receives come from. */
static inline struct recv_queue *qp_recv_queue(struct qp *qp)
{
	return qp->srq ? &qp->srq->rq : &qp->rq;
}

#endif
