/* SPDX-License-Identifier: Apache-2.0 */
/* status: does something wrong in every way that there is, and prints what becomes of it at both ends. Plain libibverbs: it runs
 * on any RDMA device, with both ends in one process. The pieces that its files share. */
#ifndef STATUS_H
#define STATUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <infiniband/verbs.h>

enum { EXIT_NO_DEVICE = 2 };
enum operation { SEND, SEND_IMM, SEND_INV, WRITE, WRITE_IMM, READ, FETCH_ADD, COMPARE_SWAP, BIND_1, BIND_2, LOCAL_INV, RECV, DEREG, FLUSH,
	ATOMIC_WRITE, OPERATIONS };
enum {
	SENDS = 1 << SEND | 1 << SEND_IMM | 1 << SEND_INV,
	WRITES = 1 << WRITE | 1 << WRITE_IMM,
	ATOMICS = 1 << FETCH_ADD | 1 << COMPARE_SWAP,
	SOURCES = SENDS | WRITES,             /* read local memory */
	TARGETS = 1 << READ | ATOMICS,        /* write local memory */
	REMOTES = WRITES | 1 << READ | ATOMICS, /* name remote memory */
	BINDS = 1 << BIND_1 | 1 << BIND_2,
	PLACEMENTS = 1 << FLUSH | 1 << ATOMIC_WRITE, /* no struct ibv_send_wr has them: status_placement.c posts them */
};
enum { RC = 1 << 0, UC = 1 << 1, UD = 1 << 2 }; /* queue pair types, as bits */
enum { MAX_SGES = 64, MAX_SEEN = 64, MAX_EVENTS = 8, RECEIVES = 2 };
enum { MESSAGE = 64, LONG = 524288 + 1 /* longer than a device may ask for at once */ };

/* ---- the device, and memory that all trials share: status_memory.c ---- */

/* Registered each by a key of its own, over the same bytes. */
enum region {
	LOCAL,         /* local write: sources, targets and receives */
	LOCAL_FOREIGN, /* the same in another PD */
	LOCAL_CONST,   /* without local write */
	FAR,           /* a peer's: all rights, windows too; no other region lies around it */
	FAR_FOREIGN,
	FAR_NO_READ,
	FAR_NO_WRITE,
	FAR_NO_ATOMIC,
	FAR_NO_WINDOW,
	FAR_CONST, /* windows, but without local write */
	FAR_NO_FLUSH,
	REGIONS,
};
enum { FAR_LENGTH = 524288 };

struct lab {
	struct ibv_context *context;
	struct ibv_pd *pd;
	struct ibv_pd *foreign;
	struct ibv_mr *region[REGIONS];
	struct ibv_ah *ah; /* to this port */
	union ibv_gid gid;
	unsigned gid_index;
	unsigned operations; /* that the device has */
	unsigned flush_right; /* IBV_ACCESS_FLUSH_GLOBAL, if it has FLUSH */
	enum ibv_mtu mtu;
	uint8_t *local;
	uint8_t *far; /* of FAR_LENGTH, in the middle of memory that has no key */
	int patience; /* ms: after that, what has not come counts as never coming */
	uint8_t timeout;
};
extern struct lab lab;

void lab_open(const char *device, unsigned gid_index);
void lab_close(void);
uint64_t address(const void *memory);
void must(bool good, const char *what);

/* ---- one trial: status_trial.c ---- */

struct end {
	struct ibv_cq *cq;
	struct ibv_qp *qp; /* NULL: destroyed */
	enum ibv_wc_status seen[MAX_SEEN];
	int count;
	enum ibv_event_type event[MAX_EVENTS];
	int events;
	int posted; /* what has to complete */
	int room;   /* of its completion queue */
};

struct way;

struct trial {
	/* Right, unless the way to be wrong changes it. Of the queue pairs: */
	enum ibv_qp_type type;
	struct ibv_qp_cap cap; /* what the device gave, once they exist */
	int access; /* a peer's rights */
	uint8_t timeout, retry_cnt, rnr_retry, max_rd_atomic, max_dest_rd_atomic;
	enum ibv_qp_state requester_state;
	enum ibv_qp_state target_state;
	/* Of what is posted: */
	struct ibv_send_wr wr;
	struct ibv_sge sge[MAX_SGES];
	struct ibv_recv_wr receive;
	struct ibv_sge receive_sge[MAX_SGES];
	unsigned send_ops; /* IBV_QP_EX_WITH_...; 0: ibv_create_qp() makes the queue pair */
	bool flushes; /* FLUSH, and not ATOMIC WRITE */
	uint8_t flush_type, flush_level;
	size_t flush_extra; /* bytes more than the entry has */
	int receives;
	int arrivals; /* completions at the target when nothing ends it */
	struct ibv_mw *window;
	struct ibv_mr *region; /* of this trial alone */
	struct ibv_ah *ah;     /* the same */
	struct ibv_qp *other;  /* a third queue pair at the target's side */

	struct end requester, target;
	int refused; /* errno of a call */
	const char *note;
};

/* A way to be wrong. */
struct way {
	const char *name;
	unsigned operations;
	unsigned types;
	void (*set)(struct trial *trial, enum operation op);   /* before there are queue pairs; may be NULL */
	void (*spoil)(struct trial *trial, enum operation op); /* when they are connected; may be NULL */
	void (*act)(struct trial *trial, enum operation op);   /* NULL: posts the request and another one */
};

extern const struct way key_ways[], message_ways[], window_ways[], state_ways[], placement_ways[];

/* The first two fields of its line. */
void trial_name(const struct way *way, enum operation op, unsigned type, char *name, size_t size);
void trial_run(const struct way *way, enum operation op, unsigned type);

/* ---- what ways are made of: status_pair.c, status_watch.c ---- */

void pair_open(struct trial *trial);
void pair_close(struct trial *trial);
/* FLUSH or ATOMIC WRITE, and behind it a SEND that is right. */
void placement_post(struct trial *trial, struct ibv_send_wr *right);
/* What the queue pair and the memory have to allow for an operation beyond what all have. */
void placement_set_right(struct trial *trial, enum operation op);
/* Of the device, which has these operations. */
void placement_open(void);

struct ibv_qp *pair_create_qp(struct trial *trial, struct ibv_cq *cq);
/* From RESET up to a state; the peer's number is `to`. */
void pair_raise(const struct trial *trial, struct ibv_qp *qp, uint32_t to, enum ibv_qp_state state);
void pair_set_state(struct ibv_qp *qp, enum ibv_qp_state state);

/* Sets the first local entry. */
void use_local(struct trial *trial, enum region region, const void *memory, uint32_t length);
void use_remote(struct trial *trial, const void *memory, uint32_t rkey);
/* The request, and behind it a SEND that is right. */
void post_both(struct trial *trial);
void post_one(struct trial *trial);
/* A right SEND at this end, or the errno. */
int post_right(struct trial *trial, struct end *end);
int post_receive(struct trial *trial, struct end *end);

/* Takes completions and events for so long, or until everything has come. */
void watch(struct trial *trial);
void watch_ms(struct trial *trial, int ms);
/* So many completions of one end. */
void watch_end(struct end *end, int count);
/* Leaves completions where they are. */
void watch_for_event(struct trial *trial, const struct end *end);
enum ibv_qp_state state_of(const struct end *end);
/* The next completion of a queue pair that is not under test must be good. */
void expect_success(struct ibv_cq *cq, const char *what);
void report(const struct trial *trial, const char *name);

#endif
