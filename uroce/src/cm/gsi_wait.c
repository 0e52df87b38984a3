/* SPDX-License-Identifier: Apache-2.0 */
/* Messages that wait: their receiver has no room for them, or nobody listens for them yet. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gsi_parts.h"
#include "wipe.h"

enum {
	MOST_NOTES = 4096,
	MOST_REQUESTS = 256,
	AGAIN_NS = 200000,
	LONGEST_AGAIN_NS = 5000000,
	REQUEST_NS = 200000000,
	ROOMLESS_NS = 1000000000, /* its sender has sent it again by then */
};

/* Notes that their receiver has no room for yet, for the kernel keeps ten messages or so for each: they go together. Or a request that
 * nobody listens for yet: programs that stop listening and begin anew, or tell others of a port just before they listen, are given a
 * moment. */
struct waiting {
	struct waiting *next;
	uint64_t until;
	uint64_t again; /* of a request: not tried before */
	uint64_t pause; /* the same: after that */
	bool request;
	struct sockaddr_un name;
	socklen_t length;
	unsigned room;
	unsigned count;
	struct gsi_note note[];
};

static bool is_same_name(const struct waiting *waiting, const struct sockaddr_un *name, socklen_t length)
{
	return waiting->length == length && memcmp(&waiting->name, name, length) == 0;
}

/* The last of what waits for it, or NULL. */
static struct waiting *waits_for(const struct gsi_wait *wait, const struct sockaddr_un *name, socklen_t length)
{
	struct waiting *last = NULL;

	for (struct waiting *waiting = wait->first; waiting; waiting = waiting->next)
		if (is_same_name(waiting, name, length))
			last = waiting;
	return last;
}

static void set_timer(struct gsi *gsi)
{
	struct gsi_wait *wait = &gsi->wait;
	/* One that is set stays, or it would never fire while messages come. */
	bool soon = wait->timer.place != 0 && wait->timer.deadline <= gsi->device->now + wait->pause;

	if (wait->first && !soon)
		timer_set(&gsi->device->timers, &wait->timer, gsi->device->now + wait->pause);
}

static void append(struct gsi_wait *wait, struct waiting *waiting)
{
	waiting->next = NULL;
	*wait->last = waiting;
	wait->last = &waiting->next;
	wait->notes += waiting->count;
	wait->requests += waiting->request;
}

static size_t size_of(unsigned room)
{
	return sizeof(struct waiting) + room * sizeof(struct gsi_note);
}

static void discard(struct waiting *waiting)
{
	wipe_free(waiting, size_of(waiting->room)); /* PSNs, and private data */
}

/* NULL: there are too many. */
static struct waiting *keep(struct gsi *gsi, const struct gsi_note *note, unsigned room)
{
	struct waiting *waiting = gsi->wait.notes < MOST_NOTES ? calloc(1, size_of(room)) : NULL;

	if (!waiting)
		return NULL;
	waiting->room = room;
	waiting->count = 1;
	waiting->note[0] = *note;
	return waiting;
}

bool gsi_keep_request(struct gsi *gsi, const struct gsi_note *note)
{
	struct gsi_wait *wait = &gsi->wait;
	struct waiting *waiting = wait->requests < MOST_REQUESTS ? keep(gsi, note, 1) : NULL;

	if (!waiting)
		return false;
	waiting->request = true;
	waiting->pause = LONGEST_AGAIN_NS;
	waiting->again = gsi->device->now + waiting->pause;
	waiting->until = gsi->device->now + REQUEST_NS;
	append(wait, waiting);
	if (wait->notes == 1)
		wait->pause = LONGEST_AGAIN_NS;
	set_timer(gsi);
	return true;
}

/* `before`: the last of those that wait for the same process, or NULL. */
static bool keep_behind(struct gsi *gsi, struct waiting *before, const struct gsi_note *note, const struct sockaddr_un *name,
			socklen_t length)
{
	struct gsi_wait *wait = &gsi->wait;

	if (before && before->count < before->room && wait->notes < MOST_NOTES) {
		before->note[before->count++] = *note;
		wait->notes++;
		return true;
	}
	struct waiting *waiting = keep(gsi, note, GSI_TOGETHER);
	if (!waiting)
		return false;
	waiting->name = *name;
	waiting->length = length;
	waiting->until = gsi->device->now + ROOMLESS_NS;
	append(wait, waiting);
	wait->pause = AGAIN_NS;
	set_timer(gsi);
	return true;
}

bool gsi_send_note(struct gsi *gsi, const struct gsi_note *note, const struct sockaddr_un *name, socklen_t length)
{
	struct waiting *before = waits_for(&gsi->wait, name, length);
	int error = before ? -EAGAIN : gsi_try_notes(gsi, note, 1, name, length);

	if (error == -EAGAIN && !keep_behind(gsi, before, note, name, length))
		counter_add(&gsi->device->counters->drop_inbox, 1);
	return error == 0 || error == -EAGAIN;
}

/* Both return true when it is settled. */

/* Anyone may send requests that nobody listens for, and each try takes several system calls: they become rarer. */
static bool try_request(struct gsi *gsi, struct waiting *waiting)
{
	uint64_t now = gsi->device->now;
	struct mad mad;

	if (now < waiting->again && now < waiting->until)
		return false;
	waiting->pause *= 2;
	waiting->again = now + waiting->pause;
	if (mad_decode(waiting->note->bytes, sizeof waiting->note->bytes, &mad) != 0 || gsi_try_owner(gsi, &mad, waiting->note))
		return true;
	if (now < waiting->until)
		return false;
	gsi_refuse(gsi, &mad, waiting->note);
	return true;
}

static bool try_notes(struct gsi *gsi, const struct waiting *waiting)
{
	if (gsi->device->now >= waiting->until) {
		counter_add(&gsi->device->counters->drop_inbox, waiting->count);
		return true;
	}
	return !waits_for(&gsi->wait, &waiting->name, waiting->length) &&
	       gsi_try_notes(gsi, waiting->note, waiting->count, &waiting->name, waiting->length) != -EAGAIN;
}

static void timer_fired(struct timer *timer)
{
	struct gsi *gsi = (struct gsi *)((char *)timer - offsetof(struct gsi, wait.timer));
	struct gsi_wait *wait = &gsi->wait;
	struct waiting *list = wait->first;
	bool some = false;

	wait->first = NULL;
	wait->last = &wait->first;
	wait->notes = wait->requests = 0;
	while (list) {
		struct waiting *waiting = list;
		list = waiting->next;
		bool settled = waiting->request ? try_request(gsi, waiting) : try_notes(gsi, waiting);
		some = some || (settled && !waiting->request);
		if (settled)
			discard(waiting);
		else
			append(wait, waiting);
	}
	/* A receiver that takes some soon takes more. */
	if (some)
		wait->pause = AGAIN_NS;
	else
		wait->pause = 2 * wait->pause < LONGEST_AGAIN_NS ? 2 * wait->pause : LONGEST_AGAIN_NS;
	set_timer(gsi);
}

void gsi_wait_open(struct gsi *gsi)
{
	gsi->wait.last = &gsi->wait.first;
	gsi->wait.timer.fire = timer_fired;
}
