/* SPDX-License-Identifier: Apache-2.0 */
#include "promises.h"

#include "clock.h"
#include "log.h"
#include "session.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#define PROMISES_A_PROGRAM 1024u
/* A program that takes longer between the resets of its ends connects them in the other order. */
#define KEPT_US 60000000u

struct promise {
	struct promise *next;
	char device[LOCAL_NAME];
	uint32_t port, qpn, psn, peer_psn;
	struct peer_end own, peer;
	uint8_t type; /* enum ibv_qp_type */
	uint64_t until;
};

static void promise_free(struct program *program, struct promise **at)
{
	struct promise *promise = *at;

	*at = promise->next;
	program->promise_count--;
	OPENSSL_cleanse(promise, sizeof *promise);
	free(promise);
}

/* Where it is, or the end of the list. Those whose time is over go. */
static struct promise **find(const struct queue_pair *pair)
{
	struct promise **at = &pair->program->promises;
	uint64_t now = srdma_clock_us();

	while (*at) {
		if ((*at)->until < now)
			promise_free(pair->program, at);
		else if ((*at)->qpn == pair->qpn && (*at)->port == pair->device->port && strcmp((*at)->device, pair->device->name) == 0)
			break;
		else
			at = &(*at)->next;
	}
	return at;
}

int promise_make(const struct queue_pair *pair, const struct peer_end *own, const struct peer_end *peer, uint32_t peer_psn, uint32_t *out)
{
	struct promise **at = find(pair), *promise = *at;
	int ret;

	if (!promise) {
		if (pair->program->promise_count >= PROMISES_A_PROGRAM)
			return srdma_fail(-EDQUOT, "too many queue pairs of its program wait for a reset");
		promise = calloc(1, sizeof *promise);
		if (!promise)
			return srdma_fail(-ENOMEM, "out of memory");
		ret = srdma_psn_generate(&promise->psn);
		if (ret != 0) {
			free(promise);
			return ret;
		}
		memcpy(promise->device, pair->device->name, sizeof promise->device);
		promise->port = pair->device->port;
		promise->qpn = pair->qpn;
		promise->type = pair->type;
		pair->program->promise_count++;
		*at = promise;
	}
	promise->own = *own;
	promise->peer = *peer;
	promise->peer_psn = peer_psn;
	promise->until = srdma_clock_us() + KEPT_US;
	*out = promise->psn;
	return 0;
}

bool promise_keep(struct queue_pair *values)
{
	struct promise **at = find(values), *promise = *at;
	bool same = promise && promise->type == values->type;

	if (same) {
		values->psn = promise->psn;
		pair_set_peer(values, &promise->own, &promise->peer);
		values->peer_psn = promise->peer_psn;
		values->has_peer_psn = values->told = true;
		values->state = QUEUE_PAIR_EXPECTED;
		values->expected_at = (uint32_t)(srdma_clock_us() / 1000000);
	}
	if (promise)
		promise_free(values->program, at);
	return same;
}

static bool is_same_end(const struct peer_end *a, const struct peer_end *b)
{
	return a->qpn == b->qpn && a->lid == b->lid && memcmp(a->gid, b->gid, sizeof a->gid) == 0;
}

void promises_withdraw(struct agent *agent, const struct peer_end *own, const struct peer_end *peer, uint32_t peer_psn)
{
	for (struct program *program = agent->programs; program; program = program->next)
		for (struct promise **at = &program->promises; *at;)
			if ((*at)->peer_psn == peer_psn && is_same_end(&(*at)->own, own) && is_same_end(&(*at)->peer, peer))
				promise_free(program, at);
			else
				at = &(*at)->next;
}

void promises_clear(struct program *program)
{
	while (program->promises)
		promise_free(program, &program->promises);
}
