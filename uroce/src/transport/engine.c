/* SPDX-License-Identifier: Apache-2.0 */
/* Received packets to their queue pairs, and queue pairs that have something to send to the link. */
#include "engine.h"

#include <sched.h>

#include "active.h"
#include "datagram.h"
#include "flight.h"
#include "guard.h"
#include "marking.h"
#include "multicast.h"
#include "outgoing.h"
#include "qp_state.h"
#include "repair.h"
#include "requester.h"
#include "responder.h"
#include "tag.h"
#include "udp.h"
#include "wake.h"

enum {
	ROUND_PACKETS = 512, /* received in one go: bounds how long the lock is held */
	QP_PACKETS = 32,     /* sent for one queue pair before it is the next one's turn */
	PUMP_PACKETS = 256,  /* sent in one go */
	PACKET_WORK_NS = 500, /* that the application may spend on each packet of a poll before it polls again */
	FEW_PACKETS = 2,
	MANY_PACKETS = 8,  /* received in one poll: their sender is not one that awaits an answer to each */
	TURNS_KEPT = 4,    /* polls in vain, of which one gives its processor away */
	LAST_LOOKS = 64,   /* at the sockets, for what a process has sent before it was killed */
	/* Between two looks at sockets in which nothing was found, while packets come through shared memory: so many polls, and so long. */
	UDP_PATIENCE = 16,
	UDP_PATIENCE_NS = 10000,
	UDP_IDLE_NS = 2000, /* so long, when nothing has come through shared memory in as many polls */
	GLANCES = 8,       /* polls of which, while nothing comes and one closely follows the other, one does more than look */
	GLANCE_NS = 1000,  /* so closely */
};

/* Programs that register no memory, and give none to rdma_cm's commands, keep their handlers to themselves. */
static void guard_memory(const struct device *device)
{
	if (device->keys.count > 0 || device->cm)
		guard_install(device->now);
}

void engine_enter(struct device *device)
{
	device_lock_briefly(device);
	engine_stay(device);
}

void engine_stay(struct device *device)
{
	device_stay(device);
	device->now = device->clock();
	guard_memory(device);
}

void engine_leave(struct device *device)
{
	bool sends = device->eager;
	if (sends)
		engine_pump(device);
	send_queued(device);
	/* The time that this call took is no pause of the application's. */
	wake_note_active(device, sends ? device->clock() : device->now);
	wake_for_timer(device);
	device_unlock(device);
}

/* Whether to look at the sockets, which takes system calls. */
static bool udp_is_due(struct device *device, unsigned by_shm)
{
	device->udp_turns++;
	device->shm_idle = by_shm > 0 ? 0 : device->shm_idle + 1;
	if (device->udp_found || !device->shm || !shm_is_busy(device->shm))
		return true;
	if (device->shm_idle >= UDP_PATIENCE)
		return device->now - device->udp_at >= UDP_IDLE_NS;
	return device->udp_turns >= UDP_PATIENCE && device->now - device->udp_at >= UDP_PATIENCE_NS;
}

static unsigned receive(struct device *device, unsigned budget, bool thorough)
{
	unsigned received = device->shm ? shm_receive(device->shm, budget, thorough) : 0;
	if (device->udp && (udp_is_due(device, received) || thorough)) {
		device->udp_turns = 0;
		device->udp_at = device->now;
		unsigned by_udp = udp_receive(device->udp, budget);
		device->udp_found = by_udp > 0;
		received += by_udp;
	}
	if (device->parked)
		active_unpark(device);
	return received;
}

/* Another thread has the lock, or waits for it. With more threads than processors it may have none: now and then it is given this
 * one. To give it at each poll takes longer than the other thread needs the lock, and leaves the device's thread to do the work. */
static void give_way(struct device *device)
{
	static _Thread_local unsigned turns;
	if (++turns % TURNS_KEPT != 0)
		return;
	wake_note_active(device, device->clock());
	sched_yield();
}

/* Takes what has come through shared memory, without the clock. */
static unsigned take_briefly(struct device *device)
{
	device->undated = true;
	unsigned received = shm_receive_briefly(device->shm, ROUND_PACKETS);
	device->undated = false;
	return received;
}

/* A poll closely behind another one: it looks at the rings, and takes what is there. The clock, timers and sockets can wait for one of
 * the next, and acknowledgements for more to come with them. False: there is more to do. The lock is held; `received` packets were
 * taken. `stays`: the thread does since, be it that a ring had no packet yet, but told of its beginning. */
static bool glance(struct device *device, unsigned *received, bool *stays)
{
	if (!device->shm || device->udp_found || ++device->glances % GLANCES == 0 || !wake_polls_within(device, GLANCE_NS))
		return false;
	if (shm_is_silent(device->shm))
		return !device->active_head;
	if (device->eager || device->parked || !shm_has_few(device->shm) || !guard_is_ready())
		return false;
	device_stay(device);
	*stays = true;
	*received = take_briefly(device);
	return !device->eager && *received < MANY_PACKETS && wake_thread_naps(device);
}

void engine_poll(struct device *device)
{
	wake_note_poll(device);
	if (atomic_load_explicit(&device->waiting, memory_order_relaxed) != 0 || !lock_try(&device->lock)) {
		give_way(device);
		return;
	}
	unsigned received = 0;
	bool stays = false;
	if (glance(device, &received, &stays)) {
		if (stays)
			device_unlock(device);
		else
			lock_give(&device->lock);
		return;
	}
	if (!stays)
		device_stay(device);
	device->now = device->clock();
	wake_note_locked_poll(device, device->now);
	guard_memory(device);
	received += receive(device, ROUND_PACKETS, false);
	timers_run(&device->timers, device->now);
	/* A received packet may have made a completion: the application learns of it first, and the acknowledgement goes out
	 * with its answer, or with the next poll. */
	bool busy = received > 0 || device->active_head;
	if (device->eager || received == 0 || received >= MANY_PACKETS || !wake_thread_naps(device))
		engine_pump(device);
	send_queued(device);
	/* The clock costs as much as a packet: a few of them have not taken long. */
	bool brief = received > 0 && received <= FEW_PACKETS;
	if (busy)
		wake_note_active(device, (brief ? device->now : device->clock()) + received * (uint64_t)PACKET_WORK_NS);
	device_unlock(device);
}

unsigned engine_round(struct device *device, unsigned budget, bool patient)
{
	unsigned received = receive(device, budget, true);
	timers_run(&device->timers, device->now);
	if (device->eager || received == 0 || !patient)
		engine_pump(device);
	send_queued(device);
	if (device->now >= device->hw_counters.next)
		hw_counters_publish(&device->hw_counters, device->counters, device->now);
	return received;
}

/* ---- sending ---- */

/* True when there is more. Requests go first: a shorter acknowledgement can end their batch. */
static bool pump_qp(struct qp *qp)
{
	if (qp->type == IBV_QPT_UD)
		return datagram_pump(qp, QP_PACKETS);
	bool more = requester_pump(qp, QP_PACKETS);
	return responder_pump(qp, QP_PACKETS) || more;
}

void engine_pump(struct device *device)
{
	for (unsigned budget = PUMP_PACKETS; budget > 0 && device->active_head; budget -= QP_PACKETS) {
		if (!link_ready(device->link))
			break;
		struct qp *qp = active_take(device);
		if (pump_qp(qp))
			active_add_lazily(qp);
	}
	device->eager = device->active_head;
}

/* ---- receiving ---- */

static bool receives(const struct qp *qp)
{
	return qp->state == IBV_QPS_RTR || qp->state == IBV_QPS_RTS || qp->state == IBV_QPS_SQD || qp->state == IBV_QPS_SQE;
}

static bool of_transport(const struct qp *qp, uint8_t opcode)
{
	if (opcode == OP_GAPS || opcode == OP_ASK_TAG || opcode == OP_WAITED || opcode == OP_CNP)
		return qp->type == IBV_QPT_RC;
	uint8_t transport = qp->type == IBV_QPT_RC ? WIRE_RC : qp->type == IBV_QPT_UC ? WIRE_UC : WIRE_UD;
	return (opcode & 0xe0) == transport;
}

/* Where a packet that this queue pair does not take is counted; NULL: it takes it. */
static _Atomic uint64_t *drop_counter(const struct qp *qp, const struct packet *packet, const struct packet_path *path)
{
	struct counters *counters = qp->device->counters;
	if (!of_transport(qp, packet->opcode))
		return &counters->drop_transport;
	/* The top bit tells full from limited membership. */
	if ((packet->pkey & 0x7fff) != (WIRE_PKEY & 0x7fff))
		return &counters->drop_pkey;
	if (!receives(qp))
		return &counters->drop_state;
	if (qp->type != IBV_QPT_UD && !qp->device->same_peer(qp->device, &qp->av.dgid, &path->sgid))
		return &counters->drop_source;
	if (!tag_fits(qp, packet))
		return &counters->drop_tag;
	return NULL;
}

/* Each queue pair decides for itself. None of them, and no receive of theirs, can take the datagram from another. */
static void deliver_to_group(struct device *device, const struct packet *packet, const struct packet_path *path)
{
	const struct multicast_group *group = multicast_find(device, &path->dgid);

	for (unsigned i = 0; group && i < group->count; i++) {
		struct qp *qp = group->qps[i];
		_Atomic uint64_t *drop = drop_counter(qp, packet, path);
		if (drop)
			counter_add(drop, 1);
		else if (!multicast_is_blocked(qp, packet, path))
			datagram_receive(qp, packet, path);
	}
	if (!group)
		counter_add(&device->counters->drop_qpn, 1);
}

/* Whether it may be taken when the time is not known: it sets no timer, and measures nothing. */
static bool is_timeless(const struct qp *qp, const struct packet *packet)
{
	if (qp->type != IBV_QPT_RC || !path_of(qp))
		return false;
	switch (packet->opcode) {
	case OP_SEND_ONLY:
	case OP_SEND_ONLY_IMM:
	case OP_WRITE_ONLY:
	case OP_WRITE_ONLY_IMM: return true;
	case OP_ACK: return (packet->syndrome & AETH_TYPE_MASK) == AETH_TYPE_ACK && qp->req.silent_since == 0;
	default: return false;
	}
}

void engine_deliver_local(void *arg, const struct packet *packet, const struct packet_path *path)
{
	struct device *device = arg;
	struct qp *qp = table_find(&device->qps, packet->qpn);
	if (device->undated && !(qp && is_timeless(qp, packet))) {
		device->now = device->clock();
		device->undated = false;
	}
	if (!qp && packet->qpn == WIRE_GSI_QPN && device->gsi_receive) {
		device->gsi_receive(device, packet, path);
		return;
	}
	if (!qp && packet->qpn == WIRE_MULTICAST_QPN && gid_is_multicast(&path->dgid)) {
		deliver_to_group(device, packet, path);
		return;
	}
	if (!qp) {
		counter_add(&device->counters->drop_qpn, 1);
		return;
	}
	_Atomic uint64_t *drop = drop_counter(qp, packet, path);
	if (drop) {
		counter_add(drop, 1);
		/* Whoever watches this counter for forgers sees those that have not the tag, too. */
		if (drop == &device->counters->drop_tag && (wire_traits(packet->opcode) & T_REQUEST))
			counter_add(&device->counters->out_of_sequence, 1);
		return;
	}
	tag_note(qp, packet);
	if ((path->tclass & WIRE_ECN_MASK) == WIRE_CE && qp->type == IBV_QPT_RC && packet->opcode != OP_CNP)
		marking_seen(qp, packet);
	if (qp->type == IBV_QPT_UD)
		datagram_receive(qp, packet, path);
	else if (packet->opcode == OP_GAPS && qp->tag.peer == 0)
		tag_ask(qp);
	else if (packet->opcode == OP_GAPS)
		repair_take_report(qp, packet);
	else if (packet->opcode == OP_ASK_TAG)
		tag_asked(qp);
	else if (packet->opcode == OP_WAITED)
		flight_take_waited(qp, packet);
	else if (packet->opcode == OP_CNP)
		marking_notified(qp);
	else if (wire_traits(packet->opcode) & T_REQUEST)
		responder_receive(qp, packet);
	else
		requester_receive(qp, packet);
}

void engine_deliver(void *arg, const uint8_t *bytes, size_t length, const struct packet_path *path)
{
	struct device *device = arg;
	struct packet packet;
	device->arrived = path->arrived != 0 ? path->arrived : device->now;
	if (wire_decode(bytes, length, &packet) == 0)
		engine_deliver_local(device, &packet, path);
	else
		counter_add(&device->counters->drop_malformed, 1);
}

/* ---- paths through shared memory ---- */

/* From now on by the link. What was sent, and not answered, is sent again. */
static void leave_path(struct qp *qp)
{
	struct requester *req = &qp->req;
	bool waited = qp->parked;
	active_remove(qp);
	shm_release(qp->path);
	qp->path = NULL;
	if (qp->type == IBV_QPT_RC && requester_may_send(qp) && !flight_empty(req))
		flight_go_back(qp);
	else if (waited)
		active_add(qp);
}

void engine_path_event(void *arg, struct shm_path *path, enum shm_event event)
{
	struct device *device = arg;
	/* It may have answered by another way. */
	for (unsigned i = 0; i < LAST_LOOKS && event == SHM_KILLED && udp_receive(device->udp, ROUND_PACKETS) > 0; i++)
		;
	for (size_t i = 0; i < device->qps.size; i++) {
		/* Not the slot's `thing`: it may stand for one that was removed. */
		struct qp *qp = table_find(&device->qps, device->qps.slot[i].number);
		if (!qp || qp->path != path)
			continue;
		if (event == SHM_REFUSED)
			leave_path(qp);
		else if (event == SHM_KILLED)
			active_add(qp); /* its requests fail */
	}
	active_unpark(device);
}
