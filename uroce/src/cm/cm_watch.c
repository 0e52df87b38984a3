/* SPDX-License-Identifier: Apache-2.0 */
/* Peers that end without a word, as kill -9 ends them. The kernel ends the connections of such a process, and tells their peers. Here, a
 * process of this host is missed by its name.
 *
 * One of another host is asked, by an offer of an alternate path (LAP), which changes nothing: uroce refuses it, and says so too of a
 * connection whose process has ended, if another process of the address is left. If none is, that host's kernel says that nobody has the
 * port. The kernel's rdma_cm does not answer: it has no need to, and is asked no more. A process that is there, and silent, may be
 * stopped, and the network may be away: then the connection goes on. */
#include "cm_parts.h"

#define WATCH_NS UINT64_C(1000000000)

enum {
	ASK_LOOKS = 2,  /* between two questions to a process of another host */
	MOST_ASKED = 3, /* of one that has never answered */
};

enum answer { UNASKED, THERE, GONE };

static const struct mad *farewell(void)
{
	static struct mad mad = {.kind = MAD_REJ, .reason = MAD_REASON_CONSUMER};

	mad.private_length = (uint8_t)mad_private_room(MAD_REJ);
	return &mad;
}

static bool is_near(const struct cm_endpoint *endpoint)
{
	return gsi_is_near(endpoint->cm->gsi, &endpoint->path.peer);
}

static bool is_watched(const struct cm_endpoint *endpoint)
{
	return endpoint->remote != 0 && endpoint->state >= CM_REQ_SENT && endpoint->state <= CM_ESTABLISHED &&
	       (is_near(endpoint) || endpoint->answers || endpoint->asked < MOST_ASKED);
}

/* The endpoint in a place of the table, if it is watched; or NULL. */
static struct cm_endpoint *watched_at(const struct cm *cm, size_t place)
{
	uint32_t number = cm->ids.slot[place].number;
	struct cm_endpoint *endpoint = number != 0 ? table_find(&cm->ids, number) : NULL;

	return endpoint && is_watched(endpoint) ? endpoint : NULL;
}

/* ---- of this host ---- */

/* Each process is asked for once: it may have thousands of connections. */
static bool has_left(struct cm *cm, uint32_t id, uint8_t answers[GSI_PROCESSES])
{
	uint8_t *answer = &answers[id >> GSI_NUMBER_BITS];

	if (*answer == UNASKED)
		*answer = gsi_has_left(cm->gsi, id) ? GONE : THERE;
	return *answer == GONE;
}

/* ---- of another host ---- */

/* All connections of a process. */
static void end_process(struct cm *cm, uint32_t id, const union ibv_gid *peer)
{
	for (size_t i = 0; i < cm->ids.size; i++) {
		struct cm_endpoint *endpoint = watched_at(cm, i);
		if (endpoint && endpoint->remote >> GSI_NUMBER_BITS == id >> GSI_NUMBER_BITS &&
		    memcmp(&endpoint->path.peer, peer, sizeof *peer) == 0)
			cm_take_rej(endpoint, farewell());
	}
}

static void take_knock(struct cm *cm)
{
	if (cm->knock.fd < 0)
		return;
	bool refused = gsi_is_refused(cm->knock.fd);
	gsi_end_knock(&cm->knock.fd);
	if (refused)
		end_process(cm, cm->knock.id, &cm->knock.peer);
}

static void ask(struct cm_endpoint *endpoint)
{
	struct cm *cm = endpoint->cm;

	if (endpoint->answers && endpoint->asked > 0 && cm->knock.fd < 0) {
		cm->knock.fd = gsi_knock(cm->gsi, &endpoint->path);
		cm->knock.id = endpoint->remote;
		cm->knock.peer = endpoint->path.peer;
	}
	if (endpoint->asked < UINT8_MAX)
		endpoint->asked++;
	cm_send_once(endpoint, MAD_LAP);
}

void cm_take_apr(struct cm_endpoint *endpoint, const struct mad *mad)
{
	endpoint->answers = true;
	endpoint->asked = 0;
	if (mad->reason == MAD_APR_NO_ID)
		cm_take_rej(endpoint, farewell());
}

/* ---- all of them ---- */

static void look(struct timer *timer)
{
	struct cm *cm = (struct cm *)((char *)timer - offsetof(struct cm, watch));
	uint8_t answers[GSI_PROCESSES] = {UNASKED};
	bool asks = ++cm->looks % ASK_LOOKS == 0, goes_on = false;

	take_knock(cm);
	for (size_t i = 0; i < cm->ids.size; i++) {
		struct cm_endpoint *endpoint = watched_at(cm, i);
		if (!endpoint)
			continue;
		if (is_near(endpoint)) {
			if (has_left(cm, endpoint->remote, answers))
				cm_take_rej(endpoint, farewell());
			else
				goes_on = true;
			continue;
		}
		goes_on = true;
		uint8_t *answer = &answers[endpoint->remote >> GSI_NUMBER_BITS];
		if (asks && endpoint->state == CM_ESTABLISHED && *answer == UNASKED) {
			*answer = endpoint->answers ? THERE : UNASKED;
			ask(endpoint);
		}
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
