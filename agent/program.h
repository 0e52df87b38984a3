/* SPDX-License-Identifier: Apache-2.0 */
/* A program at the agent's Unix socket. */
#ifndef AGENT_PROGRAM_H
#define AGENT_PROGRAM_H

#include "event_loop.h"
#include "local.h"
#include "owner.h"
#include "policy.h"

struct agent;
struct device;
struct queue_pair;
struct packet;

/* What a user's programs have in all. */
struct user {
	struct user *next;
	uid_t uid;
	unsigned queue_pairs, programs;
	unsigned asks, registrations; /* that wait */
};

struct program {
	struct source source;
	struct source process; /* readable when the process has ended (process.h) */
	struct agent *agent;
	struct program *next, **link;
	struct user *user;
	struct policy_subject subject; /* owns the groups */
	pid_t pid;
	bool greeted;
	bool dead; /* its socket failed while an answer was sent: it goes when the agent's loop comes to it */
	bool observe, require_encryption; /* what holds for it */
	char name[LOCAL_NAME]; /* printable */
	struct device *devices;
	struct queue_pair *queue_pairs;
	struct promise *promises; /* promises.c */
	unsigned promise_count;
	unsigned asks, registrations; /* that wait */
	unsigned foreign; /* GIDs it reported that are not this host's */
	uint64_t deadline; /* for HELLO */
	uint64_t restored_at; /* it told of a queue pair that it had before this agent was started; 0: of none */
	struct packet *first, *last; /* answers that the socket had no room for */
	unsigned queued;
};

/* Whether a queue pair of the device is this program's, as far as the kernel says. */
enum owner program_owns(const struct program *program, struct device *device, uint32_t qpn);
/* The same of one that has no port yet, which takes long. */
enum owner program_owns_among_all(const struct program *program, struct device *device, uint32_t qpn);
/* Answers a request. `peer`, `encryption` and `text` may be NULL. */
void program_answer(struct program *program, const struct local_answer *answer, const char *peer, const char *encryption, const char *text);
/* Tells it that a queue pair must not go on. */
void program_revoke(struct program *program, const struct queue_pair *pair, const char *text);

/* local_server.c: takes programs that connect to the socket. */
int local_server_open(struct agent *agent, int fd);
void local_server_tick(struct agent *agent, uint64_t now);
void local_server_close(struct agent *agent);

#endif
