/* SPDX-License-Identifier: Apache-2.0 */
/* The window grows along the curve of CUBIC (RFC 9438), so that it shares a queue with TCP, and is paid for in TCP's segments, so
 * that small packets are no disadvantage.
 *
 * A loss that comes with a full queue, or with many others, says that the path carries no more. The window then becomes what the
 * path carries without a queue: the best rate of late times the shortest round trip; but not less than TCP's 0.7 of the window (0.5
 * where the whole round trip is a queue's), nor more than 0.85. A loss without either is one that the path makes at random: it takes
 * away the queue and nothing else.
 *
 * A full queue drops the ends of bursts. TCP sends in bursts of up to a third of its window, and takes the losses for one that sends
 * evenly, which then has several times its rate by the same curve. So where the round trip is a queue's, packets leave in trains here as
 * well, and a loss costs more than it costs TCP. */
#include "congestion.h"

#include "wire.h"

enum {
	LEAST_WINDOW = 4,
	BASE_AGE_NS = 1000000000, /* in two parts: a base is forgotten after one to two of these */
	SEGMENT = 1448,           /* of TCP at an MTU of 1500 */
	SEGMENT_JUMBO = 5800,     /* at 9000 it has 8,948: as large, a step would be too much for short queues */
	BURST_NS = 150000,
	BURST_BYTES_MOST = 64,    /* packets */
	TRAIN_PART = 6,           /* of the window, where the round trip is a queue's ... */
	TRAIN_MOST = 44,          /* ... and packets: 64 KiB, as TCP's */
	SPACED_FROM_NS = 500000,  /* a longer way is no loopback: its packets are spaced before any is lost */
	RECENT_PACKETS = 800,
	RATE_PACKETS = 128,
	/* Where there is no queue, the window grows by one such part a round trip; near to where there was too much, by the smallest. */
	ROOM_STEP = 8,
	ROOM_STEP_BEYOND = 16,
	ROOM_STEP_NEAR = 32,
	LATE_SAMPLES = 8,         /* in a row: there is a queue */
	LATE_LEAST_NS = 200000,   /* beyond the base: less is the machine's */
	LONG_FROM_NS = 4000000,   /* a path that may hold more than its queue */
	ENDS_FADE = 64,           /* samples */
};

static const double CUBIC_C = 0.4;
static const double CUBIC_BETA = 0.7;
static const double QUEUE_CUT = 0.2; /* more, where the round trip is a queue's */
static const double RENO_STEP = 0.53; /* segments a round trip: as fast as Reno, with this beta */
static const double LEAST_CUT = 0.85;
static const double STARTING_BETA = 0.4;
static const double MANY_LOST = 0.035;
static const double BEYOND = 1.5; /* of where there was too much: it was not too much */

static double least(double a, double b)
{
	return a < b ? a : b;
}

static double greatest(double a, double b)
{
	return a > b ? a : b;
}

static double cube_root(double of)
{
	double x = of > 1 ? of : 1;
	for (int i = 0; i < 50; i++)
		x -= (x * x * x - of) / (3 * x * x);
	return x;
}

void congestion_start(struct congestion *c, uint32_t mtu, double first, double limit, uint32_t psn)
{
	uint32_t segment = mtu >= 4096 ? SEGMENT_JUMBO : SEGMENT;
	*c = (struct congestion){
		.window = least(first, limit),
		.limit = limit,
		.threshold = 1e9,
		.weight = mtu >= segment ? 1 : (double)mtu / segment,
		.round_psn = psn,
		.recovery = psn,
	};
}

/* ---- what the path is like ---- */

static double best_rate(const struct congestion *c)
{
	double best = 0;
	for (unsigned i = 0; i < CONGESTION_RATES; i++)
		best = greatest(best, c->rates[i]);
	return best;
}

/* A round trip without a queue: the path's, and what the ends add. They send in bursts when they look rarely: the first packet of a
 * burst waits longest at the end, and the last one in the queue that the burst has made. So the longest wait counts, and the queue of a
 * burst is short beside it. */
static double idle_trip(const struct congestion *c)
{
	return (double)(c->base + c->ends);
}

/* Packets that are on the way when there is no queue, or wait at the ends. 0: unknown. */
static double path_holds(const struct congestion *c)
{
	return best_rate(c) * idle_trip(c);
}

/* The part of the round trip that is a queue's. */
static double queue_part(const struct congestion *c)
{
	double trip = (double)c->rtt;
	return trip > 0 ? greatest(trip - idle_trip(c), 0) / trip : 0;
}

/* The delay beyond the base: of two samples the smaller one, since one that is late for another reason is not followed by another. */
static double queue_delay(const struct congestion *c)
{
	uint64_t sample = c->recent[0] < c->recent[1] ? c->recent[0] : c->recent[1];
	return sample > c->base ? (double)(sample - c->base) : 0;
}

void congestion_round_trip(struct congestion *c, uint64_t now, uint64_t whole, uint64_t ends)
{
	whole += whole == 0;
	if (ends >= whole)
		ends = whole - 1;
	uint64_t sample = whole - ends;
	if (c->rtt == 0) {
		c->rtt = whole;
		c->deviation = whole / 2;
		c->ends = ends;
		c->base = c->base_next = sample;
		c->base_at = now;
		c->recent[1] = sample;
	} else {
		uint64_t off = whole > c->rtt ? whole - c->rtt : c->rtt - whole;
		c->deviation = c->deviation - c->deviation / 4 + off / 4;
		c->rtt = c->rtt - c->rtt / 8 + whole / 8;
		c->ends = ends > c->ends ? ends : c->ends - (c->ends - ends) / ENDS_FADE;
		c->recent[1] = c->recent[0];
	}
	c->recent[0] = sample;
	if (now - c->base_at > BASE_AGE_NS + 20 * c->rtt) {
		c->base = c->base_next;
		c->base_next = sample;
		c->base_at = now;
	}
	if (sample < c->base)
		c->base = sample;
	if (sample < c->base_next)
		c->base_next = sample;
	c->queue_most = greatest(c->queue_most, queue_delay(c));
	uint64_t late = c->base / 32 > LATE_LEAST_NS ? c->base / 32 : LATE_LEAST_NS;
	c->late = sample > c->base + late ? c->late + 1 : 0;
}

/* ---- growth ---- */

static void grow_cubic(struct congestion *c, uint64_t now, double packets)
{
	double window = c->window * c->weight;
	if (c->epoch == 0) {
		c->epoch = now;
		c->friendly = window;
		c->origin = greatest(window, c->most);
		c->reach = c->most > window ? cube_root((c->most - window) / CUBIC_C) : 0;
	}
	double t = (double)(now - c->epoch + c->rtt) / 1e9 - c->reach;
	double target = least(c->origin + CUBIC_C * t * t * t, 1.5 * window);
	c->friendly += RENO_STEP * packets * c->weight / window;
	if (target > window)
		window += packets * c->weight * (target - window) / window;
	c->window = greatest(window, c->friendly) / c->weight;
}

static double room_step(const struct congestion *c)
{
	double segments = c->window * c->weight;
	if (c->most == 0 || segments < LEAST_CUT * c->most)
		return ROOM_STEP;
	return segments > BEYOND * c->most ? ROOM_STEP_BEYOND : ROOM_STEP_NEAR;
}

/* What ended slow start may have been a delay of the machine's: until something is lost, a long path is filled all the same, step by
 * step. */
static void grow(struct congestion *c, uint64_t now, double packets)
{
	if (c->window < c->threshold)
		c->window = least(c->window + packets, greatest(c->threshold, c->window));
	else if (c->roomy || (c->most == 0 && c->base >= LONG_FROM_NS))
		c->window += packets / room_step(c);
	else
		grow_cubic(c, now, packets);
	c->window = least(c->window, c->limit);
}

/* A queue in slow start, which sends twice as fast as the window says, tells that the path does not hold much more. A long path would
 * lose as much as it holds before the first loss is known. The queue of a short one may hold more than the path, and TCP fills it. */
static void look_for_queue(struct congestion *c)
{
	if (c->window < c->threshold && c->base >= LONG_FROM_NS && c->late >= LATE_SAMPLES)
		c->threshold = c->window;
}

/* Slow start has found the path's rate when that no longer grows with the window. */
static void look_for_full_path(struct congestion *c, bool limited)
{
	double rate = best_rate(c);
	if (c->window >= c->threshold || !limited)
		return;
	if (rate > 1.25 * c->full_rate) {
		c->full_rate = rate;
		c->full_rounds = 0;
	} else if (++c->full_rounds >= 3 && queue_delay(c) > idle_trip(c) / 4) {
		c->threshold = c->window;
	}
}

static void measure_rate(struct congestion *c, uint64_t now, double packets)
{
	c->rate_answered += packets;
	uint64_t time = now - c->rate_at;
	if (c->rate_at != 0 && time < c->rtt && (time < c->rtt / 2 || c->rate_answered < RATE_PACKETS))
		return;
	if (c->rate_at != 0 && time > 0)
		c->rates[c->rate_count++ % CONGESTION_RATES] = c->rate_answered / (double)time;
	c->rate_at = now;
	c->rate_answered = 0;
}

void congestion_answered(struct congestion *c, uint64_t now, double packets, uint32_t upto, uint32_t next, bool limited)
{
	c->answered += packets;
	double recent = greatest(RECENT_PACKETS, 2 * c->window);
	if (c->answered > recent) {
		c->answered /= 2;
		c->lost /= 2;
	}
	measure_rate(c, now, packets);
	look_for_queue(c);
	if (psn_diff(upto, c->round_psn) > 0) {
		look_for_full_path(c, limited);
		c->round_psn = next;
		double queue = queue_delay(c);
		c->roomy = queue * 16 <= idle_trip(c) && queue * 4 <= c->queue_most + idle_trip(c) / 64;
		c->queue_most -= c->queue_most / 16;
	}
	if (limited)
		grow(c, now, packets);
}

/* ---- reduction ---- */

static void reduce(struct congestion *c, double lowest, double highest)
{
	double window = c->window;
	c->undo_window = window;
	c->undo_threshold = c->threshold;
	c->undo_most = c->most;

	double holds = path_holds(c);
	double to = least(greatest(holds, lowest * window), highest * window);
	/* One that has not come back to where it was leaves room for others. */
	double segments = window * c->weight;
	c->most = segments < c->most ? segments * (1 + CUBIC_BETA) / 2 : segments;
	c->window = c->threshold = greatest(to, LEAST_WINDOW);
	c->epoch = 0;
	c->reduced = true;
}

void congestion_lost(struct congestion *c, uint64_t now, double packets, uint32_t psn, uint32_t next, bool again)
{
	c->lost += packets;
	if (again ? now - c->reduced_at < congestion_patience(c) : psn_diff(psn, c->recovery) < 0)
		return;
	double queue = queue_delay(c);
	bool many = c->lost >= 8 && c->lost > MANY_LOST * (c->lost + c->answered);
	bool fullest = queue >= c->queue_most / 2;
	bool queued = c->rtt == 0 || (fullest && queue >= idle_trip(c) / 8);
	bool starting = c->window < c->threshold;
	c->reduced = true;
	if (!many && !queued && (starting || !fullest || queue < idle_trip(c) / 32))
		return;
	bool full = many || queued;
	reduce(c, starting ? STARTING_BETA : CUBIC_BETA - QUEUE_CUT * queue_part(c), full ? LEAST_CUT : 1);
	if (many)
		c->lost = c->answered * MANY_LOST / 2;
	c->recovery = next;
	c->reduced_at = now;
}

void congestion_undo(struct congestion *c)
{
	if (c->undo_window <= c->window)
		return;
	c->window = c->undo_window;
	c->threshold = c->undo_threshold;
	c->most = c->undo_most;
	c->epoch = 0;
	c->undo_window = 0;
}

void congestion_marked(struct congestion *c, uint64_t now)
{
	if (c->marked_at != 0 && now - c->marked_at < c->rtt)
		return;
	c->marked_at = now;
	reduce(c, CUBIC_BETA, LEAST_CUT);
}

void congestion_silent(struct congestion *c)
{
	if (c->window > LEAST_WINDOW) {
		reduce(c, 0.5, 0.5);
		c->window = LEAST_WINDOW;
	}
}

/* ---- pace ---- */

double congestion_interval(const struct congestion *c)
{
	if (c->rtt == 0 || (!c->reduced && c->base < SPACED_FROM_NS))
		return 0;
	double gain = c->window < c->threshold ? 2 : 1.25;
	return (double)c->rtt / (c->window * gain);
}

uint32_t congestion_train(const struct congestion *c)
{
	double packets = least(c->window / TRAIN_PART * queue_part(c), TRAIN_MOST);
	return packets < 1 || congestion_interval(c) <= 0 ? 1 : (uint32_t)packets;
}

uint32_t congestion_burst(const struct congestion *c)
{
	double interval = congestion_interval(c);
	double burst = interval > 0 ? greatest(BURST_NS / interval, congestion_train(c)) : BURST_BYTES_MOST;
	return burst < 2 ? 2 : burst > BURST_BYTES_MOST ? BURST_BYTES_MOST : (uint32_t)burst;
}

uint64_t congestion_patience(const struct congestion *c)
{
	return c->rtt + 4 * c->deviation + c->rtt / 4;
}
