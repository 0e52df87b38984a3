/* SPDX-License-Identifier: Apache-2.0 */
/* Devices on a simulated wire, in simulated time: one thread, no sockets, the same run for the same seed. A test makes
 * nodes, connects queue pairs, posts work and lets time pass; or it plays the peer itself with hand-made packets. */
#ifndef UROCE_TESTS_SIM_H
#define UROCE_TESTS_SIM_H

#include "check.h"
#include "device.h"
#include "engine.h"
#include "qp_state.h"
#include "verbs.h"

#define US     1000ull
#define MS     1000000ull
#define SECOND 1000000000ull

struct sim_packet;

/* What happens to the packets that a node sends. All zero: they arrive at once and in order. */
struct sim_wire {
	double loss; /* chances, 0 to 1 */
	double duplicate;
	double reorder;
	double burst; /* that a run of `burst_length` lost packets starts */
	unsigned burst_length;
	uint64_t delay;            /* ns */
	uint64_t jitter;           /* ns: up to that much more; by itself it reorders */
	uint64_t bytes_per_second; /* 0: no limit */
	size_t queue;              /* bytes that wait for the wire before the link is not ready; 0: no limit */
	/* A narrow place on the way: packets that find no room in its queue are dropped, and the sender is not told. */
	uint64_t path_rate;   /* bytes a second; 0: there is none */
	size_t path_queue;    /* bytes, the packet that is being sent included */
	size_t path_mark;     /* packets that may be marked and find so many bytes before them are marked (ECN); 0: never */
	double late;          /* chance that a packet comes later than those behind it ... */
	uint64_t late_by;     /* ... by so many ns */
	/* The same packet is lost at most that often (0: no limit): a run with retry_cnt 7 then always gets through. */
	unsigned loss_cap;
	/* Decides alone when it is set: true loses the packet. */
	bool (*drop)(void *arg, const struct sim_packet *packet);
	void *arg;
};

/* A packet in flight, or taken by the test. `packet.payload` points into `bytes`. */
struct sim_packet {
	uint64_t time; /* of arrival, or of being taken; for one that the test has, of sending */
	uint64_t arrived;
	uint64_t order;
	unsigned from;
	unsigned to;
	size_t length;
	bool may_change; /* as the link was told */
	bool icrc_twice; /* the same */
	uint8_t tclass;
	/* Of something else than a device: it is called when this arrives. */
	void (*arrive)(void *arg, uint64_t number);
	void *arg;
	uint64_t number;
	struct packet packet;
	uint8_t bytes[WIRE_MAX_HEADER + WIRE_MAX_MTU + 4];
};

struct sim_node {
	struct device device;
	struct link link;
	struct counters counters;
	struct context context;
	struct ibv_pd *pd;
	union ibv_gid gid;
	unsigned number;
	struct sim_wire wire;
	uint64_t looks_every; /* ns: what arrives is taken at multiples of this, as by a busy program; 0: at once */
	bool blocked;  /* the link is not ready, whatever the wire */
	bool dead;     /* neither sends nor receives: pulled out */
	uint64_t sent; /* packets that reached the link */
	uint64_t sent_bytes;
	/* the harness's own */
	struct packet_out *waiting;
	size_t waiting_count;
	size_t waiting_room;
	uint64_t wire_free; /* when the last byte has left */
	uint64_t path_free; /* when the narrow place has sent the last byte */
	uint64_t path_carried; /* packets that it took */
	uint64_t path_dropped; /* packets that it had no room for */
	uint64_t path_marked;
	unsigned burst_left;
};

/* A fresh world. Time starts above 0. */
void sim_start(uint64_t seed);
/* Checks that the devices kept the link's contract, and frees the nodes. */
void sim_stop(void);
struct sim_node *sim_node(void);
uint64_t sim_now(void);
uint64_t sim_random(void);
uint64_t sim_below(uint64_t n);

/* Lets time pass until nothing is in flight and no timer is set (true), or for `limit` ns. */
bool sim_run(uint64_t limit);
/* Lets that much time pass. */
void sim_pass(uint64_t ns);

/* ---- others that use the same wires ---- */

/* `length` bytes, all headers included, leave the node as one packet, which may be lost on the way; `arrive` is called when it arrives. */
void sim_other_send(struct sim_node *node, size_t length, void (*arrive)(void *arg, uint64_t number), void *arg, uint64_t number);
/* Calls it at that time. */
void sim_call_at(uint64_t time, void (*call)(void *arg, uint64_t number), void *arg, uint64_t number);

/* ---- one end of a connection ---- */

struct sim_options {
	enum ibv_qp_type type;
	enum ibv_mtu mtu;
	uint32_t psn; /* both directions start there */
	uint8_t timeout;
	uint8_t retry_cnt;
	uint8_t rnr_retry;
	uint8_t min_rnr_timer;
	uint8_t rd_atomic;      /* as requester; 255: none */
	uint8_t dest_rd_atomic; /* as responder */
	int access;             /* of the queue pair; -1: none */
	int mr_access;
	uint32_t depth;
	uint32_t sges;
	uint32_t inline_bytes;
	size_t memory;
	uint32_t qkey;
	bool signal_all;
	struct ibv_srq *srq;
	struct ibv_pd *pd;
	struct ibv_comp_channel *channel;
};

struct sim_end {
	struct sim_node *node;
	struct ibv_pd *pd;
	struct ibv_cq *scq;
	struct ibv_cq *rcq;
	struct ibv_qp *qp;
	struct ibv_mr *mr;
	uint8_t *memory;
	size_t size;
	struct sim_options options;
};

/* RC, MTU 1024, timeout 10 (4.2 ms), 7 retries, depth 64, 1 MiB of memory with all rights... */
struct sim_options sim_defaults(void);
void sim_open(struct sim_end *end, struct sim_node *node, const struct sim_options *options);
void sim_connect(struct sim_end *end, const union ibv_gid *peer, uint32_t qpn);
void sim_pair(struct sim_end *a, struct sim_node *na, struct sim_end *b, struct sim_node *nb,
	      const struct sim_options *options);
void sim_close(struct sim_end *end);
int sim_modify(struct sim_end *end, enum ibv_qp_state state);
enum ibv_qp_state sim_state(const struct sim_end *end);

/* Posting: from or to `offset` of the end's memory. */
void sim_post(struct sim_end *end, struct ibv_send_wr *wr, size_t offset, uint32_t length);
void sim_send(struct sim_end *end, uint64_t id, size_t offset, uint32_t length);
void sim_write(struct sim_end *end, uint64_t id, size_t offset, uint32_t length, const struct sim_end *to, size_t at);
void sim_read(struct sim_end *end, uint64_t id, size_t offset, uint32_t length, const struct sim_end *from, size_t at);
void sim_fetch_add(struct sim_end *end, uint64_t id, size_t offset, const struct sim_end *to, size_t at, uint64_t add);
void sim_recv(struct sim_end *end, uint64_t id, size_t offset, uint32_t length);

/* The next completion must be this one. */
struct ibv_wc sim_expect(struct ibv_cq *cq, uint64_t id, enum ibv_wc_status status);
/* There is none. */
void sim_expect_none(struct ibv_cq *cq);
/* Takes all; returns their number; each must be a success. */
unsigned sim_count(struct ibv_cq *cq);
/* Whether the event is waiting in the node's context. */
bool sim_event(struct sim_node *node, enum ibv_event_type type, const void *element);

void sim_fill(uint8_t *at, size_t length, uint64_t seed);
bool sim_filled(const uint8_t *at, size_t length, uint64_t seed);

/* ---- the test as the peer ---- */

#define SCRIPT_QPN 0x00abcdu

/* The address at which the test itself answers, and packets that arrived there, oldest first. */
const union ibv_gid *script_gid(void);
/* Connects an end to the test. */
void script_connect(struct sim_end *end);
/* Sends a packet to the end; qpn, P_Key and padding are filled in. The device has handled it when this returns. */
void script_send(struct sim_end *end, struct packet packet, const void *payload, uint32_t length);
/* Takes the oldest packet that has arrived at the test; NULL: none. Good until sim_stop. */
const struct sim_packet *script_take(void);
/* The next must have that opcode and PSN. */
const struct packet *script_expect(uint8_t opcode, uint32_t psn);
/* The next must be an ACK packet of this syndrome. */
const struct packet *script_expect_ack(uint8_t syndrome, uint32_t psn);
void script_expect_none(void);
void script_forget(void);
/* From now on the test's packets have that tag, and the end knows it; 0: none, and the end knows none. */
void script_have_tag(struct sim_end *end, uint16_t tag);
/* The same, and the end does not know. */
void script_use_tag(uint16_t tag);
/* From now on the test's packets have waited for so long, at the end's host, before the end takes them. */
void script_wait(uint64_t ns);
/* From now on the test's packets have that traffic class. */
void script_use_class(uint8_t tclass);
/* How often the test was asked for its tag: such packets are not among those that it takes. */
unsigned script_asked(void);
void script_ack(struct sim_end *end, uint32_t psn, uint8_t syndrome);

#endif
