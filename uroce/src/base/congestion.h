/* SPDX-License-Identifier: Apache-2.0 */
/* How much a queue pair may have on its way, and how fast it sends: a window that grows as TCP's CUBIC does, and that shrinks to
 * what the path carries, which the rate and the delay of the answers tell. It knows nothing of queue pairs: packets are counted
 * alike, those that the queue pair sends and those that its READs ask for. All times are in nanoseconds. */
#ifndef UROCE_CONGESTION_H
#define UROCE_CONGESTION_H

#include <stdbool.h>
#include <stdint.h>

enum { CONGESTION_RATES = 16 /* of which the best one counts */ };

struct congestion {
	double window;    /* packets that may be on their way */
	double limit;     /* the window's largest */
	double threshold; /* where slow start ends */
	double weight;    /* of a packet, in segments of TCP */
	bool reduced;     /* packets have been lost, or marked: from then on they are spaced */

	/* the cubic curve; windows in segments */
	double most;      /* before the last reduction */
	double origin;
	double reach;     /* seconds from the epoch to the origin */
	double friendly;  /* what TCP Reno would have */
	uint64_t epoch;   /* 0: none */

	/* before the last reduction, to undo it */
	double undo_window;
	double undo_threshold;
	double undo_most;

	uint64_t rtt;       /* smoothed, that of the ends included; 0: unknown */
	uint64_t ends;      /* what the ends take of it, at most; it fades */
	uint64_t deviation; /* of it, mean */
	uint64_t base;      /* the shortest round trip of the last seconds: the path without a queue */
	uint64_t base_next; /* of the time since base_at */
	uint64_t base_at;
	uint64_t recent[2]; /* the last samples, without what the ends took */
	unsigned late;      /* samples in a row that tell of a queue */
	double queue_most;  /* the longest delay beyond the base of late; it fades */

	bool roomy; /* it has no queue */
	double rate_answered; /* since rate_at */
	uint64_t rate_at;

	/* the round: from the answer to one packet to the answer of one that was sent then */
	uint32_t round_psn;
	double rates[CONGESTION_RATES]; /* packets a nanosecond, of half a round or more each */
	unsigned rate_count;
	double full_rate;     /* slow start: the rate that must be exceeded */
	unsigned full_rounds; /* without that */

	double answered; /* of late: both fade together */
	double lost;
	uint32_t recovery; /* losses before this PSN have been paid for, unless they had been sent again ... */
	uint64_t reduced_at; /* ... a round trip after this */
	uint64_t marked_at;
};

/* `mtu`: bytes of a packet. `first`, `limit`: packets. */
void congestion_start(struct congestion *c, uint32_t mtu, double first, double limit, uint32_t psn);
/* A packet was answered `sample` after it was sent; for `ends` of this time it was not on the path, but waited at one of its ends for a
 * program or a thread to look. Timers count the whole, and what tells of the path counts the rest. */
void congestion_round_trip(struct congestion *c, uint64_t now, uint64_t sample, uint64_t ends);
/* `packets` more have arrived; `upto` is one past the newest that has, and `next` the next to be sent. `limited`: there was more to
 * send than the window, or the pace, let out. */
void congestion_answered(struct congestion *c, uint64_t now, double packets, uint32_t upto, uint32_t next, bool limited);
/* `packets` from `psn` on are taken for lost; `again`: they had been sent again. `next` is the next to be sent. */
void congestion_lost(struct congestion *c, uint64_t now, double packets, uint32_t psn, uint32_t next, bool again);
/* It was not: it came late. */
void congestion_undo(struct congestion *c);
/* The peer tells that packets were marked. */
void congestion_marked(struct congestion *c, uint64_t now);
/* Nothing was answered for long. */
void congestion_silent(struct congestion *c);

/* Nanoseconds from one packet to the next; 0: they need not be spaced. */
double congestion_interval(const struct congestion *c);
/* Packets that may leave together when they are spaced. */
uint32_t congestion_burst(const struct congestion *c);
/* Packets that should leave together: there should be room for as many in the window. */
uint32_t congestion_train(const struct congestion *c);
/* When something that was sent, and is not answered, should have been. */
uint64_t congestion_patience(const struct congestion *c);

#endif
