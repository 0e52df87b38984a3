/* SPDX-License-Identifier: Apache-2.0 */
#include "sim_tcp.h"

#include <math.h>

enum {
	SEGMENTS = 16384, /* a power of two: what may be on the way, and out of order */
	LIMIT = 8192,     /* segments: the receive window */
	FIRST_WINDOW = 10,
	HEADERS = 66, /* Ethernet, IPv4, TCP with its timestamps */
	TIMEOUT_LEAST = 200 * MS,
	TRAIN_SPACING = 2 * MS,
	DELAY_LEAST = 4 * MS, /* HyStart's */
	DELAY_MOST = 16 * MS,
	DELAY_SAMPLES = 8,
	BURST_PART = 3,      /* of the window, that it waits for before it sends anything new ... */
	BURST_MOST = 44,     /* ... or for so many segments, 64 KiB, ... */
	BURST_WAIT = 1 * MS, /* ... but not longer than this after what it sent last */
};

static const double C = 0.4, BETA = 0.7;

enum state { SENT, ARRIVED, LOST, RESENT /* sent again */ };

struct segment {
	enum state state;
	uint64_t sent;
};

struct sim_tcp {
	struct sim_node *from, *to;
	uint32_t payload;
	bool ended;
	struct segment segment[SEGMENTS];
	uint64_t unacked, next; /* counted up for ever */
	uint64_t recovery;      /* losses before it have been paid for */
	unsigned on_way, lost;  /* `lost`: to be sent again */
	uint64_t last_sent;
	uint64_t newest_sent;   /* when the newest that has arrived was sent */
	uint64_t newest;        /* one past the highest that has arrived */

	double window, threshold;
	double most, origin, reach, friendly;
	uint64_t epoch; /* 0: none */
	uint64_t rtt, deviation, shortest;
	uint64_t timer; /* its generation */

	/* HyStart's round */
	uint64_t round_end, round_start, last_ack, round_shortest;
	unsigned samples;
};

static struct segment *at(struct sim_tcp *tcp, uint64_t number)
{
	return &tcp->segment[number % SEGMENTS];
}

/* ---- the window ---- */

static void grow(struct sim_tcp *tcp)
{
	if (tcp->window < tcp->threshold) {
		tcp->window += 1;
		return;
	}
	if (tcp->epoch == 0) {
		tcp->epoch = sim_now();
		tcp->friendly = tcp->window;
		tcp->origin = fmax(tcp->window, tcp->most);
		tcp->reach = cbrt((tcp->origin - tcp->window) / C);
	}
	double t = (double)(sim_now() - tcp->epoch + tcp->rtt) / (double)SECOND - tcp->reach;
	double target = fmin(tcp->origin + C * t * t * t, 1.5 * tcp->window);
	tcp->friendly += 3 * (1 - BETA) / (1 + BETA) / tcp->window;
	tcp->window += target > tcp->window ? (target - tcp->window) / tcp->window : 0.01 / tcp->window;
	tcp->window = fmin(fmax(tcp->window, tcp->friendly), LIMIT);
}

static void reduce(struct sim_tcp *tcp)
{
	tcp->most = tcp->window < tcp->most ? tcp->window * (1 + BETA) / 2 : tcp->window;
	tcp->window = tcp->threshold = fmax(tcp->window * BETA, 2);
	tcp->epoch = 0;
	tcp->recovery = tcp->next;
}

/* Slow start ends when acknowledgements have come in a row for half a round trip, or with a delay. */
static void look_for_end_of_slow_start(struct sim_tcp *tcp, uint64_t number, uint64_t sample)
{
	uint64_t now = sim_now();
	if (tcp->window >= tcp->threshold)
		return;
	if (number >= tcp->round_end) {
		tcp->round_end = tcp->next;
		tcp->round_start = tcp->last_ack = now;
		tcp->round_shortest = UINT64_MAX;
		tcp->samples = 0;
	}
	if (now - tcp->last_ack <= TRAIN_SPACING) {
		tcp->last_ack = now;
		if (tcp->window >= 16 && now - tcp->round_start > tcp->shortest / 2)
			tcp->threshold = tcp->window;
	}
	if (sample < tcp->round_shortest)
		tcp->round_shortest = sample;
	uint64_t delay = tcp->shortest / 8;
	delay = delay < DELAY_LEAST ? DELAY_LEAST : delay > DELAY_MOST ? DELAY_MOST : delay;
	if (++tcp->samples >= DELAY_SAMPLES && tcp->round_shortest > tcp->shortest + delay)
		tcp->threshold = tcp->window;
}

static void measure(struct sim_tcp *tcp, uint64_t sample)
{
	if (tcp->rtt == 0) {
		tcp->rtt = tcp->shortest = sample;
		tcp->deviation = sample / 2;
	}
	uint64_t off = sample > tcp->rtt ? sample - tcp->rtt : tcp->rtt - sample;
	tcp->deviation += off / 4 - tcp->deviation / 4;
	tcp->rtt += sample / 8 - tcp->rtt / 8;
	if (sample < tcp->shortest)
		tcp->shortest = sample;
}

/* ---- sending ---- */

static void pump(struct sim_tcp *tcp);
static void set_timer(struct sim_tcp *tcp);
static void acknowledge(void *arg, uint64_t number);

static void arrive(void *arg, uint64_t number)
{
	struct sim_tcp *tcp = arg;
	sim_other_send(tcp->to, HEADERS, acknowledge, tcp, number);
}

static void send_segment(struct sim_tcp *tcp, uint64_t number, enum state state)
{
	*at(tcp, number) = (struct segment){ .state = state, .sent = sim_now() };
	tcp->on_way++;
	tcp->last_sent = sim_now();
	sim_other_send(tcp->from, tcp->payload + HEADERS, arrive, tcp, number);
}

static void time_out(void *arg, uint64_t generation)
{
	struct sim_tcp *tcp = arg;
	if (generation != tcp->timer || tcp->ended)
		return;
	for (uint64_t n = tcp->unacked; n < tcp->next; n++) {
		struct segment *segment = at(tcp, n);
		tcp->lost += segment->state == SENT || segment->state == RESENT;
		if (segment->state != ARRIVED)
			segment->state = LOST;
	}
	tcp->on_way = 0;
	reduce(tcp);
	tcp->window = 1;
	set_timer(tcp);
	pump(tcp);
}

static void set_timer(struct sim_tcp *tcp)
{
	uint64_t after = tcp->rtt + 4 * tcp->deviation;
	if (tcp->rtt == 0)
		after = SECOND;
	sim_call_at(sim_now() + (after < TIMEOUT_LEAST ? TIMEOUT_LEAST : after), time_out, tcp, ++tcp->timer);
}

/* Segments leave in bursts (TSO): a stream that has nothing to repair waits until a good part of the window is free. */
static bool waits_for_burst(const struct sim_tcp *tcp)
{
	return tcp->unacked >= tcp->recovery && tcp->on_way > 0 && sim_now() - tcp->last_sent < BURST_WAIT &&
	       tcp->window - tcp->on_way < fmin(tcp->window / BURST_PART, BURST_MOST);
}

static void pump(struct sim_tcp *tcp)
{
	uint64_t n = tcp->unacked;
	if (tcp->ended || waits_for_burst(tcp))
		return;
	while (tcp->on_way < tcp->window) {
		while (tcp->lost > 0 && n < tcp->next && at(tcp, n)->state != LOST)
			n++;
		if (tcp->lost > 0 && n < tcp->next) {
			tcp->lost--;
			send_segment(tcp, n, RESENT);
		} else if (tcp->next - tcp->unacked < LIMIT) {
			send_segment(tcp, tcp->next++, SENT);
		} else {
			break;
		}
	}
}

/* What was sent well before something that has arrived is lost. */
static void look_for_losses(struct sim_tcp *tcp)
{
	uint64_t patience = tcp->shortest / 4;
	for (uint64_t n = tcp->unacked; n < tcp->newest; n++) {
		struct segment *segment = at(tcp, n);
		if ((segment->state != SENT && segment->state != RESENT) || segment->sent + patience >= tcp->newest_sent)
			continue;
		if (n >= tcp->recovery)
			reduce(tcp);
		segment->state = LOST;
		tcp->on_way--;
		tcp->lost++;
	}
}

static void acknowledge(void *arg, uint64_t number)
{
	struct sim_tcp *tcp = arg;
	struct segment *segment = at(tcp, number);
	if (tcp->ended || number < tcp->unacked || segment->state == ARRIVED)
		return;
	if (segment->state == LOST)
		tcp->lost--;
	else
		tcp->on_way--;
	if (segment->state == SENT) {
		measure(tcp, sim_now() - segment->sent);
		look_for_end_of_slow_start(tcp, number, sim_now() - segment->sent);
	}
	if (segment->sent > tcp->newest_sent && segment->state != LOST)
		tcp->newest_sent = segment->sent;
	segment->state = ARRIVED;
	if (number >= tcp->newest)
		tcp->newest = number + 1;
	bool advanced = number == tcp->unacked;
	while (tcp->unacked < tcp->next && at(tcp, tcp->unacked)->state == ARRIVED)
		tcp->unacked++;
	look_for_losses(tcp);
	if (tcp->unacked >= tcp->recovery)
		grow(tcp);
	if (advanced)
		set_timer(tcp);
	pump(tcp);
}

/* ---- its life ---- */

struct sim_tcp *sim_tcp_start(struct sim_node *from, struct sim_node *to, uint32_t mtu)
{
	struct sim_tcp *tcp = calloc(1, sizeof *tcp);
	if (!tcp)
		abort();
	tcp->from = from;
	tcp->to = to;
	tcp->payload = mtu - (HEADERS - 14);
	tcp->window = FIRST_WINDOW;
	tcp->threshold = 1e9;
	set_timer(tcp);
	pump(tcp);
	return tcp;
}

uint64_t sim_tcp_arrived(const struct sim_tcp *tcp)
{
	return tcp->unacked * tcp->payload;
}

void sim_tcp_stop(struct sim_tcp *tcp)
{
	tcp->ended = true;
}

void sim_tcp_free(struct sim_tcp *tcp)
{
	free(tcp);
}
