/* SPDX-License-Identifier: Apache-2.0 */
#include "queue_pairs.h"

#include "forks.h"
#include "link.h"
#include "message.h"
#include "next.h"
#include "ports.h"
#include "report.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of a fixed size: the thread goes through it in pieces while others change it. */
enum { BUCKETS = 4096 };

struct entry {
	struct entry *next;
	uint32_t number; /* of a request to restore it */
	struct queue_pair pair;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards the next ones; the link's lock is below it */
static struct entry *buckets[BUCKETS];
static size_t count;
static uint32_t last_number;

void queue_pairs_before_fork(void)
{
	pthread_mutex_lock(&lock);
}

void queue_pairs_after_fork(bool child)
{
	/* Queue pairs belong to the process that made them. What the child inherits stays allocated. */
	if (child) {
		memset(buckets, 0, sizeof buckets);
		count = 0;
	}
	pthread_mutex_unlock(&lock);
}

static struct entry **bucket_of(const struct ibv_qp *qp)
{
	uint64_t hash = (uint64_t)(uintptr_t)qp * UINT64_C(0x9e3779b97f4a7c15);

	return &buckets[hash >> 52];
}

/* Where it is, or where it would be. The caller has `lock`, as of the next ones. */
static struct entry **find(const struct ibv_qp *qp)
{
	struct entry **at = bucket_of(qp);

	while (*at && (*at)->pair.qp != qp)
		at = &(*at)->next;
	return at;
}

static void remove_at(struct entry **at)
{
	struct entry *entry = *at;

	*at = entry->next;
	explicit_bzero(entry, sizeof *entry); /* PSNs are no one's to find */
	free(entry);
	count--;
}

bool queue_pairs_any(void)
{
	pthread_mutex_lock(&lock);
	bool any = count > 0;
	pthread_mutex_unlock(&lock);
	return any;
}

bool queue_pairs_find(const struct ibv_qp *qp, struct queue_pair *out)
{
	pthread_mutex_lock(&lock);
	struct entry *entry = *find(qp);
	if (entry)
		*out = entry->pair;
	pthread_mutex_unlock(&lock);
	return entry;
}

int queue_pairs_put(const struct queue_pair *pair)
{
	int error = 0;

	pthread_mutex_lock(&lock);
	struct entry **at = find(pair->qp);
	if (!*at) {
		*at = calloc(1, sizeof **at);
		count += *at != NULL;
	}
	if (*at) {
		bool revoked = (*at)->pair.revoked && pair->state != QUEUE_PAIR_INIT;

		(*at)->pair = *pair;
		(*at)->pair.revoked |= revoked;
		/* No answer about what it was before is taken for one about what it is now. */
		if (pair->state == QUEUE_PAIR_INIT || (*at)->number == 0)
			(*at)->number = last_number = (last_number + 1) & ~LINK_RESTORED;
	} else {
		error = ENOMEM;
	}
	pthread_mutex_unlock(&lock);
	return error;
}

bool queue_pairs_note_asked(const struct queue_pair *pair)
{
	pthread_mutex_lock(&lock);
	struct entry *entry = *find(pair->qp);
	bool there = entry && entry->pair.qpn == pair->qpn && entry->pair.psn == pair->psn;
	if (there && pair->asked) {
		entry->pair.asked = true;
		entry->pair.peer_qpn = pair->peer_qpn;
		entry->pair.peer_lid = pair->peer_lid;
		memcpy(entry->pair.peer_gid, pair->peer_gid, sizeof entry->pair.peer_gid);
	}
	pthread_mutex_unlock(&lock);
	return there;
}

static void fill(const struct queue_pair *pair, struct local_queue_pair *packet)
{
	memset(packet, 0, sizeof *packet);
	memcpy(packet->device, pair->device, sizeof packet->device);
	packet->port = pair->port;
	packet->qpn = pair->qpn;
	packet->type = queue_pair_agents_type(pair->type);
	packet->psn = pair->psn;
	packet->connected = pair->state > QUEUE_PAIR_INIT && pair->vouched;
	memcpy(packet->gid, pair->gid, sizeof packet->gid);
	if (packet->connected) {
		packet->peer_qpn = pair->peer_qpn;
		packet->peer_psn = pair->peer_psn;
		packet->peer_lid = pair->peer_lid;
		memcpy(packet->peer_gid, pair->peer_gid, sizeof packet->peer_gid);
	}
}

static void tell_forgotten(const struct queue_pair *pair)
{
	struct local_queue_pair packet;

	fill(pair, &packet);
	if (pair->registered)
		link_tell(&packet, sizeof packet, LOCAL_FORGET);
}

bool queue_pairs_forget(const struct ibv_qp *qp, struct queue_pair *out)
{
	pthread_mutex_lock(&lock);
	struct entry **at = find(qp);
	bool known = *at;
	if (known) {
		*out = (*at)->pair;
		remove_at(at);
	}
	pthread_mutex_unlock(&lock);
	if (known)
		tell_forgotten(out);
	return known;
}

/* One of a context. */
static bool take_one(const struct ibv_context *context, struct queue_pair *out)
{
	bool found = false;

	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < BUCKETS && !found; i++)
		for (struct entry **at = &buckets[i]; *at && !found; at = found ? at : &(*at)->next) {
			if ((*at)->pair.context != context)
				continue;
			*out = (*at)->pair;
			remove_at(at);
			found = true;
			break;
		}
	pthread_mutex_unlock(&lock);
	return found;
}

void queue_pairs_forget_context(const struct ibv_context *context)
{
	struct queue_pair pair;

	while (take_one(context, &pair))
		tell_forgotten(&pair);
}

void queue_pairs_restore(const struct queue_pair *pair)
{
	struct local_queue_pair packet;

	if (queue_pairs_put(pair) != 0 || !pair->registered)
		return;
	fill(pair, &packet);
	link_tell(&packet, sizeof packet, LOCAL_RESTORE);
}

/* ---- for the thread ---- */

/* The entries of a bucket, one call each: `at` counts. False: there are no more. */
static bool pack(size_t bucket, size_t at, struct local_queue_pair *packet)
{
	pthread_mutex_lock(&lock);
	struct entry *entry = buckets[bucket];
	while (entry && at-- > 0)
		entry = entry->next;
	if (entry) {
		fill(&entry->pair, packet);
		packet->header.request = entry->pair.registered ? entry->number : 0;
	}
	pthread_mutex_unlock(&lock);
	return entry;
}

void link_restore(void)
{
	struct local_queue_pair packet;
	bool sent = ports_restore();

	for (size_t bucket = 0; bucket < BUCKETS && sent; bucket++)
		for (size_t at = 0; sent && pack(bucket, at, &packet); at++)
			sent = packet.header.request == 0 || link_send_restored(&packet, sizeof packet, LOCAL_RESTORE);
}

/* Puts it into the error state. The caller has `lock`, so that the program can't destroy it meanwhile. */
static void stop(struct queue_pair *pair, const char *why)
{
	struct report_record record = {.kind = REPORT_REVOKED, .qpn = pair->qpn, .type = pair->type, .peer_qpn = pair->peer_qpn};
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
	__typeof__(&ibv_modify_qp) modify = NEXT(ibv_modify_qp);

	if (pair->revoked)
		return;
	pair->revoked = true;
	/* One that is just being connected is refused by the call that does it. */
	if (modify)
		modify(pair->qp, &attr, IBV_QP_STATE);
	message("stopped queue pair %u (0x%x) of %s, which is now in the error state: %s", pair->qpn, pair->qpn, pair->device, why);
	memcpy(record.device, pair->device, sizeof record.device);
	memcpy(record.peer_gid, pair->peer_gid, sizeof record.peer_gid);
	snprintf(record.text, sizeof record.text, "%s", why);
	report_append(&record);
}

void queue_pairs_revoke(const struct local_revoke *revoke)
{
	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < BUCKETS; i++)
		for (struct entry *entry = buckets[i]; entry; entry = entry->next)
			if (entry->pair.registered && entry->pair.qpn == revoke->qpn && entry->pair.psn == revoke->psn &&
			    strcmp(entry->pair.device, revoke->device) == 0)
				stop(&entry->pair, revoke->text);
	pthread_mutex_unlock(&lock);
}

void queue_pairs_restored(const struct local_answer *answer)
{
	bool observe = link_observes();

	if (answer->status == 0)
		return;
	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < BUCKETS; i++)
		for (struct entry *entry = buckets[i]; entry; entry = entry->next) {
			if (entry->number != (answer->header.request & ~LINK_RESTORED))
				continue;
			if (answer->status == EACCES && !observe)
				stop(&entry->pair, answer->text);
			else
				message("the agent did not take queue pair %u (0x%x) of %s back: %s", entry->pair.qpn, entry->pair.qpn, entry->pair.device, answer->text);
		}
	pthread_mutex_unlock(&lock);
}
