/* SPDX-License-Identifier: Apache-2.0 */
/* verify: two ends that send each other random data with every kind of reliable work request, and check every byte.
 * Plain libibverbs: it runs on any RDMA device. The pieces that its files share. */
#ifndef VERIFY_H
#define VERIFY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <infiniband/verbs.h>

enum { EXIT_BAD_DATA = 1, EXIT_USAGE = 2, EXIT_DEADLINE = 3 };
enum { MAX_SIZES = 64, MAX_QPS = 1024, MAX_DEPTH = 64, MAX_SGES = 4, MAX_INLINE = 256, GUARD = 64 };
enum operation { SEND, SEND_IMM, WRITE, WRITE_IMM, READ, COMPARE_SWAP, FETCH_ADD, OPERATIONS };
/* Half a second, eight times: for machines that are busy. */
enum { PATIENT_TIMEOUT = 17, PATIENT_RETRY = 7 };
/* What the server does to the connection in the end, to show what the client makes of it. */
enum lose { LOSE_NOTHING, LOSE_KILL, LOSE_STOP, LOSE_MUTE, LOSE_DEAD };
enum side { SERVER, CLIENT };

extern const char *const operation_names[OPERATIONS];

/* Chosen by the client and sent to the server. */
struct plan {
	uint64_t seed;
	uint32_t operations; /* bits */
	uint32_t iterations; /* rounds with mixed operations and sizes */
	uint32_t qps;
	uint32_t depth; /* messages per queue pair, direction and round */
	uint32_t mtu;   /* enum ibv_mtu */
	uint32_t timeout;
	uint32_t retry;
	uint32_t unreliable; /* UC instead of RC */
	uint32_t lose;
	uint32_t sizes;
	uint32_t size[MAX_SIZES];
};

/* One message, as both ends know it from the plan. */
struct item {
	enum operation op;
	uint32_t size;
	uint64_t key;     /* of its data */
	uint32_t choices; /* random bits for how it is posted */
};

/* ---- the plan: verify_plan.c ---- */

uint32_t plan_rounds(const struct plan *plan);
uint32_t plan_max_size(const struct plan *plan);
struct item plan_item(const struct plan *plan, uint32_t round, enum side sender, uint32_t qp, uint32_t slot);
bool takes_receive(enum operation op);
bool is_atomic(enum operation op);
uint64_t mix(uint64_t value);
void fill(uint8_t *bytes, size_t length, uint64_t key);
/* The first byte that differs, or -1. */
ssize_t differs(const uint8_t *bytes, size_t length, uint64_t key);
ssize_t differs_from_byte(const uint8_t *bytes, size_t length, uint8_t byte);

/* ---- the TCP connection between the ends: verify_wire.c. All end the program when they fail. ---- */

int wire_listen(const char *port); /* prints the port it got */
int wire_accept(int listener);
int wire_connect(const char *host, const char *port);
void wire_send(int fd, const void *data, size_t length);
void wire_receive(int fd, void *data, size_t length);
void wire_wait_end(int fd); /* until the other end has gone */
void wire_plan_send(int fd, const struct plan *plan);
void wire_plan_receive(int fd, struct plan *plan);
/* Both ends are at the same point. */
void wire_barrier(int fd, uint32_t number);

/* ---- the RDMA side: verify_qp.c ---- */

struct options {
	const char *device;
	const char *host; /* NULL: server */
	const char *port;
	uint32_t gid;
	bool events;
	bool structs;
};

struct end {
	const struct plan *plan;
	enum side side;
	uint32_t gid_index;
	bool events;
	bool structs;
	int fd; /* TCP */
	struct ibv_context *context;
	struct ibv_comp_channel *channel;
	struct ibv_pd *pd;
	struct ibv_cq *cq;
	struct ibv_qp **qp;
	uint32_t *psn;
	uint32_t max_inline;
	uint32_t max_sge;
	/* [queue pair][slot], `stride` bytes each. `source`: what this end sends or where it reads to. `target`: what
	 * the peer's messages arrive in or are read from. */
	size_t stride;
	size_t total;
	uint8_t *source;
	uint8_t *target;
	struct ibv_mr *source_mr;
	struct ibv_mr *target_mr;
	uint64_t remote_address;
	uint32_t remote_rkey;
	int remote_pid;
};

void end_open(struct end *end, const struct options *options);
void end_connect(struct end *end);
void end_close(struct end *end);

static inline size_t slot_offset(const struct end *end, uint32_t qp, uint32_t slot)
{
	return ((size_t)qp * end->plan->depth + slot) * end->stride;
}

/* Takes up to `count` completions; with events, may sleep when there is none. Ends the program at the deadline. */
int end_poll(struct end *end, struct ibv_wc *wc, int count);
void end_post_receive(struct end *end, uint32_t qp, uint32_t slot, const struct item *item);
/* Whether an item goes out with IBV_SEND_INLINE; its memory is used again as soon as it is posted. */
bool end_posts_inline(const struct end *end, const struct item *item);
/* Posts a round's messages of one queue pair; `signaled` gets a flag for each. */
void end_post_items(struct end *end, uint32_t qp, const struct item *items, bool *signaled);

/* ---- verify_lose.c ---- */

/* The server's last act, and what the client must see after it. Returns the exit status. */
int lose_as_server(struct end *end);
int lose_as_client(struct end *end);

/* ---- verify.c ---- */

void fail(int status, const char *format, ...) __attribute__((format(printf, 2, 3), noreturn));

/* ---- verify_clock.c ---- */

extern unsigned deadline_seconds;
uint64_t now_ns(void);
/* Starts the time that one step may take; deadline_left: milliseconds, 0 when over. */
void deadline_start(void);
int deadline_left(void);

#endif
