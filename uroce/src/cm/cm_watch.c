/* SPDX-License-Identifier: Apache-2.0 */
/* Peers that end without a word, as kill -9 ends them. The kernel ends the connections of such a process, and tells their peers; here,
 * a process of this host is missed by its name. Those of other hosts are not: their peers learn of it as queue pairs fail. */
#include "cm_parts.h"

#define WATCH_NS UINT64_C(1000000000)

enum answer { UNASKED, THERE, GONE };

static bool is_watched(const struct cm_endpoint *endpoint)
{
	return endpoint->remote != 0 && endpoint->state >= CM_REQ_SENT && endpoint->state <= CM_ESTABLISHED &&
	       gsi_is_near(endpoint->cm->gsi, &endpoint->path.peer);
}

/* Each process is asked for once: it may have thousands of connections. */
static bool has_left(struct cm *cm, uint32_t id, uint8_t answers[GSI_PROCESSES])
{
	uint8_t *answer = &answers[id >> GSI_NUMBER_BITS];

	if (*answer == UNASKED)
		*answer = gsi_has_left(cm->gsi, id) ? GONE : THERE;
	return *answer == GONE;
}

static void look(struct timer *timer)
{
	struct cm *cm = (struct cm *)((char *)timer - offsetof(struct cm, watch));
	const struct mad farewell = {
		.kind = MAD_REJ, .reason = MAD_REASON_CONSUMER, .private_length = (uint8_t)mad_private_room(MAD_REJ)};
	uint8_t answers[GSI_PROCESSES] = {UNASKED};
	bool goes_on = false;

	for (size_t i = 0; i < cm->ids.size; i++) {
		uint32_t number = cm->ids.slot[i].number;
		struct cm_endpoint *endpoint = number != 0 ? table_find(&cm->ids, number) : NULL;
		if (!endpoint || !is_watched(endpoint))
			continue;
		if (has_left(cm, endpoint->remote, answers))
			cm_take_rej(endpoint, &farewell);
		else
			goes_on = true;
	}
	/* In the heap that is running: the device's timer follows when all have run. */
	if (goes_on)
		timer_set(&cm->timers, timer, cm->device->now + WATCH_NS);
}

void cm_watch(struct cm_endpoint *endpoint)
{
	struct cm *cm = endpoint->cm;

	cm->watch.fire = look;
	if (cm->watch.place != 0 || !is_watched(endpoint))
		return;
	timer_set(&cm->timers, &cm->watch, cm->device->now + WATCH_NS);
	cm_set_device_timer(cm);
}
