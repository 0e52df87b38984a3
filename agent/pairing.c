/* SPDX-License-Identifier: Apache-2.0 */
/* What programs ask for: connection of their queue pairs with others, of this host or another one. */
#include "clock.h"
#include "local_check.h"
#include "log.h"
#include "owner.h"
#include "promises.h"
#include "session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of one program: each of its threads waits for one. */
#define ASKS_A_PROGRAM 4096u

struct queue_pair *pairing_find_own(const struct program *program, const char *device, uint32_t port, uint32_t qpn)
{
	struct queue_pair *pair = queue_pairs_first(&program->agent->queue_pairs, qpn);

	while (pair && (pair->program != program || pair->device->port != port || strcmp(pair->device->name, device) != 0))
		pair = queue_pairs_next(pair);
	return pair;
}

/* A device of the kernel's comes before one in user space, which anybody can make up. */
struct queue_pair *pairing_find(const struct agent *agent, const struct peer_end *end)
{
	struct queue_pair *found = NULL;

	for (struct queue_pair *pair = queue_pairs_first(&agent->queue_pairs, end->qpn); pair; pair = queue_pairs_next(pair))
		if (device_is_at(pair->device, end) && (!found || (pair->device->kernel && !found->device->kernel)))
			found = pair;
	return found;
}

bool pairing_is_contested(const struct agent *agent, const struct queue_pair *found, const struct peer_end *end)
{
	for (const struct queue_pair *pair = queue_pairs_first(&agent->queue_pairs, end->qpn); pair; pair = queue_pairs_next(pair))
		if (pair->program != found->program && pair->device->kernel == found->device->kernel && device_is_at(pair->device, end))
			return true;
	return false;
}

void pairing_forget(struct agent *agent, struct queue_pair *pair)
{
	expectation_released(agent, pair);
	if (pair->ask)
		ask_free(pair->ask);
	queue_pairs_remove(&agent->queue_pairs, pair);
	atomic_store_explicit(&agent->gauge_queue_pairs, (unsigned)agent->queue_pairs.count, memory_order_relaxed);
}

void pairing_give_up(struct program *program, struct queue_pair *pair)
{
	if (pair->ask)
		ask_cancel(pair->ask);
	pairing_forget(program->agent, pair);
}

void pairing_leave(struct program *program)
{
	struct agent *agent = program->agent;
	struct ask *next;

	while (program->queue_pairs)
		pairing_forget(agent, program->queue_pairs);
	for (struct ask *ask = program->asks > 0 ? agent->asks : NULL; ask; ask = next) {
		next = ask->next;
		if (ask->program == program)
			ask_free(ask);
	}
	promises_clear(program);
	registrations_leave(program);
	registrations_try(agent, 0);
}

/* ---- connection -------------------------------------------------------------------------------------------------- */

/* It was reset, and the other end, which is to follow, is still connected with what it was. */
static void promise_here(struct ask *ask, const struct queue_pair *other, const struct peer_end *own)
{
	uint32_t psn;

	if (promise_make(other, &ask->peer, own, ask->pair->psn, &psn) == 0) {
		agent_count(ask->program->agent, COUNT_CONNECTED_HERE);
		ask_grant_here(ask, psn);
		return;
	}
	ask_refuse(ask, REFUSED_LIMIT, EACCES, agent_name(ask->program->agent), "it is connected with an earlier queue pair of this number, and %s; reset both ends first",
		   srdma_error_text());
}

/* Both ends are on this host: no other agent is asked. */
static void connect_here(struct ask *ask, struct queue_pair *other)
{
	struct queue_pair *pair = ask->pair;
	struct agent *agent = ask->program->agent;
	const char *name = agent_name(agent), *problem = policy_problem(&agent->rules.policy, name, &ask->program->subject);
	struct peer_end own = pair_end(pair);
	bool same = pair_has_peer(other, &own);

	if (!problem)
		problem = policy_problem(&agent->rules.policy, name, &other->program->subject);
	if (problem && !ask_object(ask, REFUSED_POLICY, name, "the policy of this host for %s: %s", name, problem))
		return;
	if (pairing_is_contested(agent, other, &ask->peer)) {
		ask_refuse(ask, REFUSED_OWNER, EACCES, name, "two programs of this host claim this number, each on a device of its own");
		return;
	}
	if (other->type != pair->type) {
		ask_refuse(ask, REFUSED_MISMATCH, EACCES, name, "one queue pair is RC and the other one UC");
		return;
	}
	if (other != pair && (other->state == QUEUE_PAIR_REFUSED || (other->state != QUEUE_PAIR_IDLE && !same) ||
			      (other->state == QUEUE_PAIR_IDLE && other->told && memcmp(other->peer_gid, own.gid, 16) != 0))) {
		ask_refuse(ask, REFUSED_TAKEN, EACCES, name, "it belongs to another connection; its program must reset it first");
		return;
	}
	if (other != pair && other->state == QUEUE_PAIR_CONNECTED && other->peer_psn != pair->psn) {
		promise_here(ask, other, &own);
		return;
	}
	if (other != pair && other->state == QUEUE_PAIR_IDLE) {
		pair_set_peer(other, &ask->peer, &own);
		other->state = QUEUE_PAIR_EXPECTED;
		other->expected_at = (uint32_t)(srdma_clock_us() / 1000000);
	}
	other->told = true;
	other->peer_psn = pair->psn;
	other->has_peer_psn = true;
	agent_count(agent, COUNT_CONNECTED_HERE);
	ask_grant_here(ask, other->psn);
}

/* Whether this agent would be asked. A program of this host has reported a device there, or none has yet. */
static bool is_here(struct agent *agent, const struct peer_end *end)
{
	return host_names_cover(&agent->own, agent->rules.map, end) && (places_have(&agent->places, end) || peers_lead_here(agent, end));
}

static void connect_somewhere(struct ask *ask)
{
	struct agent *agent = ask->program->agent;
	struct queue_pair *other = pairing_find(agent, &ask->peer);

	while (other && !expectation_is_owned(agent, other))
		other = pairing_find(agent, &ask->peer);
	if (other) {
		connect_here(ask, other);
	} else if (is_here(agent, &ask->peer)) {
		ask_wait_here(ask);
	} else {
		ask_begin(ask);
	}
}

void pairing_registered(struct agent *agent, uint32_t qpn)
{
	struct ask *next;

	for (struct ask *ask = agent->here[qpn % WAITING_BUCKETS]; ask; ask = next) {
		struct queue_pair *other = ask->peer.qpn == qpn ? pairing_find(agent, &ask->peer) : NULL;

		next = ask->next_here;
		if (other)
			connect_here(ask, other);
	}
}

/* The destination must be what another host said before. Returns whether the question is answered. */
static bool meets_expectation(struct queue_pair *pair, const struct local_connect *request, const struct peer_end *peer)
{
	struct agent *agent = pair->program->agent;
	char expected_at[64], named_at[64], text[LOCAL_TEXT];
	struct peer_end expected = {.lid = pair->peer_lid, .qpn = pair->peer_qpn};

	if (pair_has_peer(pair, peer))
		return false;
	memcpy(expected.gid, pair->peer_gid, sizeof expected.gid);
	snprintf(text, sizeof text,
		 "queue pair %u at %s asked for queue pair %u, whose program names queue pair %u at %s instead: somebody may have changed what the programs "
		 "told each other. Both are refused",
		 expected.qpn, peer_end_format(&expected, expected_at), pair->qpn, peer->qpn, peer_end_format(peer, named_at));
	if (!pair->program->observe)
		expectation_broken(agent, pair, text);
	program_refuse(pair->program, request->header.request, pair, request->psn_would_be, REFUSED_MISMATCH, EACCES, NULL, "%s", text);
	return true;
}

/* The GID that the queue pair is to have. Answers when it cannot have it. */
static bool is_own_gid(struct program *program, const struct queue_pair *pair, const struct local_connect *request, const struct peer_end *own)
{
	const struct agent *agent = program->agent;
	const char *name = agent_name(agent);
	char text[64];

	peer_end_format(own, text);
	if (own->lid == 0 && !device_has_gid(pair->device, own->gid)) {
		program_refuse(program, request->header.request, pair, request->psn_would_be, REFUSED_GID, EACCES, NULL,
			       "queue pair %u: its GID %s is not an address of this host, nor in the map file; for programs in another network namespace start an agent there",
			       pair->qpn, text);
		return false;
	}
	if (host_names_cover(&agent->own, agent->rules.map, own))
		return true;
	program_refuse(program, request->header.request, pair, request->psn_would_be, REFUSED_CERTIFICATE, EACCES, NULL,
		       "queue pair %u: the certificate of this host's agent (%s) has no address %s; make one with it (securdma cert peer --name %s)", pair->qpn, name,
		       text, text);
	return false;
}

/* The other host knows this end by address and number alone, which no other program may claim. Answers if one does. */
static bool is_own_end(struct program *program, const struct queue_pair *pair, const struct local_connect *request, const struct peer_end *own)
{
	const struct queue_pair *found = pairing_find(program->agent, own);
	char text[64];

	if (found && found->program == program && !pairing_is_contested(program->agent, found, own))
		return true;
	program_refuse(program, request->header.request, pair, request->psn_would_be, REFUSED_OWNER, EBUSY, NULL,
		       "queue pair %u: another program claims this number at %s, too, on a device of its own; end that program, or make another queue pair",
		       pair->qpn, peer_end_format(own, text));
	return false;
}

/* What has to be answered before anybody else is asked. */
static bool is_settled(struct queue_pair *pair, const struct local_connect *request, const struct peer_end *peer)
{
	struct program *program = pair->program;

	if (pair->ask) {
		program_refuse(program, request->header.request, pair, request->psn_would_be, REFUSED_INVALID, EBUSY, NULL,
			       "queue pair %u: an earlier question for it is not answered yet", pair->qpn);
		return true;
	}
	switch ((enum queue_pair_state)pair->state) {
	case QUEUE_PAIR_REFUSED:
		program_refuse(program, request->header.request, pair, request->psn_would_be, REFUSED_MISMATCH, EACCES, NULL,
			       "queue pair %u: its connection was refused before; reset it first", pair->qpn);
		return true;
	case QUEUE_PAIR_CONNECTED:
		if (pair_has_peer(pair, peer))
			return false;
		program_refuse(program, request->header.request, pair, request->psn_would_be, REFUSED_TAKEN, EACCES, NULL,
			       "queue pair %u: it is connected with queue pair %u; reset it first", pair->qpn, pair->peer_qpn);
		return true;
	case QUEUE_PAIR_EXPECTED: return meets_expectation(pair, request, peer);
	default: return false;
	}
}

/* What is wrong with a destination. */
static const char *wrong_address(const uint8_t gid[16], uint32_t lid)
{
	if (local_destination_is_valid(gid, lid))
		return "an address, but no queue pair has that number";
	if (lid == 0 && memcmp(gid, (const uint8_t[16]){0}, 16) == 0)
		return "no address: on RoCE it needs a GID; tell the program the index of one (many have an option -g, -x or --gid-index)";
	return "an address that no host has, such as a multicast group";
}

void pairing_connect(struct program *program, const struct local_connect *request)
{
	struct queue_pair *pair = pairing_find_own(program, request->device, request->port, request->qpn);
	struct peer_end own = {.qpn = request->qpn}, peer = {.qpn = request->peer_qpn};
	bool has_gid = memcmp(request->peer_gid, (const uint8_t[16]){0}, 16) != 0, known;
	struct ask *ask;

	if (!pair || !expectation_is_owned(program->agent, pair)) {
		program_refuse(program, request->header.request, NULL, request->psn_would_be, REFUSED_INVALID, EINVAL, NULL,
			       "queue pair %u of %s is not registered; it must go through INIT first", request->qpn, request->device);
		return;
	}
	if (!local_destination_is_valid(request->peer_gid, request->peer_lid) || !local_qpn_is_valid(request->peer_qpn)) {
		program_refuse(program, request->header.request, pair, request->psn_would_be, REFUSED_INVALID, EINVAL, NULL,
			       "queue pair %u: the program names queue pair %u at %s", pair->qpn, request->peer_qpn,
			       wrong_address(request->peer_gid, request->peer_lid));
		return;
	}
	memcpy(peer.gid, request->peer_gid, sizeof peer.gid);
	peer.lid = has_gid ? 0 : (uint16_t)request->peer_lid;
	if (has_gid)
		memcpy(own.gid, request->gid, sizeof own.gid);
	else
		own.lid = pair->device->lid;
	if (!is_own_gid(program, pair, request, &own) || !is_own_end(program, pair, request, &own) || is_settled(pair, request, &peer))
		return;
	known = pair->has_peer_psn;
	ask = program->asks < ASKS_A_PROGRAM ? ask_new(program, pair, pair->device, request->header.request, &own, &peer) : NULL;
	if (!ask) {
		program_refuse(program, request->header.request, pair, request->psn_would_be, REFUSED_LIMIT, EBUSY, NULL,
			       "queue pair %u: too many questions of programs wait for answers; try again", pair->qpn);
		return;
	}
	ask->psn_would_be = request->psn_would_be;
	pair_set_peer(pair, &own, &peer);
	if (pair->state == QUEUE_PAIR_IDLE)
		pair->state = QUEUE_PAIR_ASKING;
	if (known)
		ask_confirm(ask);
	else
		connect_somewhere(ask);
}

void pairing_address(struct program *program, const struct local_address *request)
{
	struct device *device = devices_find(program->devices, request->device, request->port);
	struct peer_end own = {0}, peer = {0};
	struct ask *ask;

	if (!local_destination_is_valid(request->peer_gid, request->peer_lid)) {
		program_refuse(program, request->header.request, NULL, 0, REFUSED_INVALID, EACCES, NULL,
			       "an address handle of %s leads to %s; no agent can vouch for who receives there", request->device,
			       wrong_address(request->peer_gid, request->peer_lid));
		return;
	}
	memcpy(own.gid, request->gid, sizeof own.gid);
	memcpy(peer.gid, request->peer_gid, sizeof peer.gid);
	if (memcmp(peer.gid, (const uint8_t[16]){0}, 16) == 0)
		peer.lid = (uint16_t)request->peer_lid;
	ask = device && program->asks < ASKS_A_PROGRAM ? ask_new(program, NULL, device, request->header.request, &own, &peer) : NULL;
	if (!ask)
		program_refuse(program, request->header.request, NULL, 0, device ? REFUSED_LIMIT : REFUSED_INVALID, device ? EBUSY : EINVAL, NULL, "%s %s",
			       device ? "too many questions of programs wait for answers:" : "the program has not reported the device", request->device);
	else if (is_here(program->agent, &peer))
		ask_grant_here(ask, 0);
	else
		ask_begin(ask);
}
