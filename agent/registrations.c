/* SPDX-License-Identifier: Apache-2.0 */
/* Registration of programs' queue pairs. A process that gives a number up and the next one that has it speak over different sockets, so that
 * the agent may hear of the second one first: it then waits a moment for the other word. */
#include "clock.h"
#include "log.h"
#include "owner.h"
#include "promises.h"
#include "session.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#define GRACE_US 200000u
/* Registrations that wait, of one program, of all, and of one user's. */
#define WAITING_A_PROGRAM 256u
#define WAITING_MAX 4096u
#define WAITING_A_USER (WAITING_MAX / 4)
/* Queue pairs of one user with the same number, which only different devices have: each search goes through them. */
#define SAME_NUMBER 64u
#define SEARCHES_A_SECOND 20u

/* A queue pair with this number that another program has registered, on this device or on one with an address of it: other hosts name a queue
 * pair by address and number alone, whatever the program calls the device. `same`: how many of this number the user has. */
static struct queue_pair *find_rival(const struct program *program, const struct device *device, uint32_t qpn, unsigned *same)
{
	struct queue_pair *rival = NULL;

	*same = 0;
	for (struct queue_pair *pair = queue_pairs_first(&program->agent->queue_pairs, qpn); pair; pair = queue_pairs_next(pair)) {
		*same += pair->program->user == program->user;
		if (!rival && pair->program != program && devices_meet(pair->device, device))
			rival = pair;
	}
	return rival;
}

static const uint8_t no_gid[16];

static int take_psn(struct queue_pair *pair, const struct local_queue_pair *request)
{
	if (request->header.type != LOCAL_RESTORE)
		return promise_keep(pair) ? 0 : srdma_psn_generate(&pair->psn);
	pair->psn = request->psn;
	if (!request->connected)
		return 0;
	/* It was connected before this agent was started. */
	memcpy(pair->peer_gid, request->peer_gid, sizeof pair->peer_gid);
	if (memcmp(pair->peer_gid, no_gid, sizeof no_gid) == 0)
		pair->peer_lid = (uint16_t)request->peer_lid;
	else
		memcpy(pair->gid, request->gid, sizeof pair->gid);
	pair->peer_qpn = request->peer_qpn;
	pair->peer_psn = request->peer_psn;
	pair->has_peer_psn = true;
	pair->told = true;
	pair->state = QUEUE_PAIR_CONNECTED;
	return 0;
}

/* Whether a rival goes: it is not its program's, as the kernel says, or one that the kernel does not know stands in the way of one that it
 * knows. */
static bool gives_way(struct agent *agent, struct queue_pair *rival, const struct device *device, bool owned)
{
	if (!expectation_is_owned(agent, rival))
		return true;
	if (rival->device->kernel ? !owned || rival->device->port != device->port || strcmp(rival->device->name, device->name) != 0 : !device->kernel)
		return false;
	pairing_forget(agent, rival);
	return true;
}

/* As the kernel says. Before INIT it tells only in the list of all queue pairs of a device, which takes long: it is read when two programs claim
 * one. */
static enum owner find_owner(struct program *program, struct device *device, uint32_t qpn, const struct queue_pair *rival)
{
	enum owner owner = program_owns(program, device, qpn);

	if (owner == OWNER_UNKNOWN && rival && device->kernel && strcmp(rival->device->name, device->name) == 0 &&
	    allowance_take(&program->agent->searches, SEARCHES_A_SECOND))
		owner = program_owns_among_all(program, device, qpn);
	return owner;
}

enum verdict {
	MAY_REGISTER,
	REFUSED,  /* and answered */
	NOT_YET,  /* another process has the number */
};

/* Whether the program may register it. `last`: it has waited for another process to give the number up. */
static enum verdict judge(struct program *program, struct device *device, const struct local_queue_pair *request, bool last, bool *owned)
{
	struct agent *agent = program->agent;
	unsigned same;
	struct queue_pair *rival = find_rival(program, device, request->qpn, &same);
	enum owner owner = find_owner(program, device, request->qpn, rival);

	*owned = owner == OWNER_IS;
	if (owner == OWNER_IS_NOT) {
		program_refuse(program, request->header.request, NULL, 0, REFUSED_OWNER, EACCES, NULL,
			       "queue pair %u of %s: it is not this process's, as the kernel says", request->qpn, device->name);
		return REFUSED;
	}
	/* The kernel may have given the number to another process after the first one lost it. */
	while (rival && gives_way(agent, rival, device, *owned))
		rival = find_rival(program, device, request->qpn, &same);
	if (rival && !last)
		return NOT_YET;
	if (rival) {
		program_refuse(program, request->header.request, NULL, 0, REFUSED_OWNER, EBUSY, NULL,
			       "queue pair %u of %s: process %d has registered it, and still runs; end that process, or use another device", request->qpn, device->name,
			       (int)rival->program->pid);
		return REFUSED;
	}
	if (same >= SAME_NUMBER) {
		program_refuse(program, request->header.request, NULL, 0, REFUSED_LIMIT, EDQUOT, NULL,
			       "queue pair %u of %s: the programs of user %u have %u queue pairs with this number, on as many devices, which is the maximum",
			       request->qpn, device->name, (unsigned)program->subject.uid, same);
		return REFUSED;
	}
	if (program->user->queue_pairs >= agent->rules.policy.queue_pairs_per_user) {
		program_refuse(program, request->header.request, NULL, 0, REFUSED_LIMIT, EDQUOT, NULL,
			       "queue pair %u of %s: the programs of user %u have %u queue pairs, which is the maximum (queue-pairs-per-user)", request->qpn,
			       device->name, (unsigned)program->subject.uid, program->user->queue_pairs);
		return REFUSED;
	}
	return MAY_REGISTER;
}

/* Registers it, or answers why not. Returns false if the answer has to wait. */
static bool try_register(struct program *program, const struct local_queue_pair *request, bool last)
{
	struct agent *agent = program->agent;
	struct device *device = devices_find(program->devices, request->device, request->port);
	struct queue_pair *pair = device ? pairing_find_own(program, request->device, request->port, request->qpn) : NULL;
	struct queue_pair values = {.program = program, .device = device, .qpn = request->qpn, .type = (uint8_t)request->type};
	struct local_answer answer = {.header.request = request->header.request, .vouched = 1};
	enum verdict verdict;

	if (!device) {
		program_refuse(program, request->header.request, NULL, 0, REFUSED_INVALID, EINVAL, NULL, "queue pair %u: the program has not reported the device %s",
			       request->qpn, request->device);
		return true;
	}
	/* INIT once more, with or without a word of the reset before it: all is drawn anew. */
	if (pair)
		pairing_give_up(program, pair);
	verdict = judge(program, device, request, last, &values.owned);
	if (verdict != MAY_REGISTER)
		return verdict == REFUSED;
	if (take_psn(&values, request) != 0 || queue_pairs_add(&agent->queue_pairs, &values, &pair) != 0) {
		program_refuse(program, request->header.request, NULL, 0, REFUSED_LIMIT, ENOMEM, NULL, "queue pair %u: %s", request->qpn, srdma_error_text());
		return true;
	}
	agent_count(agent, COUNT_REGISTERED);
	atomic_store_explicit(&agent->gauge_queue_pairs, (unsigned)agent->queue_pairs.count, memory_order_relaxed);
	if (request->header.type == LOCAL_RESTORE)
		program->restored_at = srdma_clock_us();
	answer.psn = pair->psn;
	program_answer(program, &answer, NULL, NULL, NULL);
	if (agent->waiting_count > 0)
		expectations_registered(agent, request->qpn);
	if (agent->ask_count > 0)
		pairing_registered(agent, request->qpn);
	return true;
}

/* ---- numbers that another process has ----------------------------------------------------------------------------- */

static void end(struct registration **at)
{
	struct registration *registration = *at;

	*at = registration->next;
	registration->program->registrations--;
	registration->program->user->registrations--;
	registration->program->agent->registration_count--;
	OPENSSL_cleanse(registration, sizeof *registration);
	free(registration);
}

void pairing_register(struct program *program, const struct local_queue_pair *request)
{
	struct agent *agent = program->agent;
	struct registration *registration, **at = &agent->registrations;

	if (try_register(program, request, false))
		return;
	registration = program->registrations < WAITING_A_PROGRAM && program->user->registrations < WAITING_A_USER && agent->registration_count < WAITING_MAX
			       ? malloc(sizeof *registration)
			       : NULL;
	if (!registration) {
		try_register(program, request, true);
		return;
	}
	*registration = (struct registration){.program = program, .request = *request, .until = srdma_clock_us() + GRACE_US};
	while (*at)
		at = &(*at)->next;
	*at = registration;
	program->registrations++;
	program->user->registrations++;
	agent->registration_count++;
}

/* Those of a number; 0: all. */
static void try_all(struct agent *agent, uint32_t qpn, uint64_t now)
{
	for (struct registration **at = &agent->registrations; *at;)
		if ((qpn == 0 || (*at)->request.qpn == qpn) && try_register((*at)->program, &(*at)->request, now >= (*at)->until))
			end(at);
		else
			at = &(*at)->next;
}

void registrations_try(struct agent *agent, uint32_t qpn)
{
	if (!agent->stopping)
		try_all(agent, qpn, 0);
}

void registrations_tick(struct agent *agent, uint64_t now)
{
	try_all(agent, 0, now);
}

void registrations_forget(struct program *program, const struct local_queue_pair *request)
{
	for (struct registration **at = &program->agent->registrations; program->registrations > 0 && *at;)
		if ((*at)->program == program && (*at)->request.qpn == request->qpn && (*at)->request.port == request->port &&
		    strcmp((*at)->request.device, request->device) == 0)
			end(at);
		else
			at = &(*at)->next;
}

void registrations_leave(struct program *program)
{
	for (struct registration **at = &program->agent->registrations; program->registrations > 0 && *at;)
		if ((*at)->program == program)
			end(at);
		else
			at = &(*at)->next;
}
