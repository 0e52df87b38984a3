/* SPDX-License-Identifier: Apache-2.0 */
#include "clock.h"
#include "local_check.h"
#include "log.h"
#include "agent_parts.h"
#include "process.h"
#include "utf8.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/* Packets of one program in a turn, so that no program holds up the others. */
#define PACKETS_A_TURN 32
/* Answers that wait for a program that does not read. While one waits the agent reads no more of its requests, so that more than these can come
 * only from many threads, or from peers. */
#define QUEUED_MAX 8192u
#define HELLO_MS 2000
#define PROGRAMS_MAX 65536u
/* Beyond a user's limit: so many may connect to be told of it. */
#define PROGRAMS_TOLD 64u

struct packet {
	struct packet *next;
	size_t size;
	char data[];
};

/* It has a PSN. */
static void packet_free(struct packet *packet)
{
	OPENSSL_cleanse(packet->data, packet->size);
	free(packet);
}

static void set_events(struct program *program)
{
	uint32_t events = program->first ? EPOLLOUT : EPOLLIN;

	if (event_loop_watch(&program->agent->loop, &program->source, events) != 0)
		program->dead = true;
}

/* ---- sending --------------------------------------------------------------------------------------------------- */

static void queue(struct program *program, const void *data, size_t size)
{
	struct packet *packet = program->queued < QUEUED_MAX ? malloc(sizeof *packet + size) : NULL;

	if (!packet) {
		srdma_log(SRDMA_LOG_WARN, "%s (pid %d) does not read what the agent answers: it is disconnected", program->name, (int)program->pid);
		program->dead = true;
		shutdown(program->source.fd, SHUT_RDWR);
		return;
	}
	packet->next = NULL;
	packet->size = size;
	memcpy(packet->data, data, size);
	if (program->last)
		program->last->next = packet;
	else
		program->first = packet;
	program->last = packet;
	program->queued++;
	set_events(program);
}

static void send_packet(struct program *program, const void *data, size_t size)
{
	if (program->dead)
		return;
	if (program->first || (send(program->source.fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && (errno == EAGAIN || errno == ENOBUFS)))
		queue(program, data, size);
	/* Another error shows when the socket is read. */
}

static void send_queued(struct program *program)
{
	while (program->first) {
		struct packet *packet = program->first;

		if (send(program->source.fd, packet->data, packet->size, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && (errno == EAGAIN || errno == ENOBUFS))
			return;
		program->first = packet->next;
		if (!program->first)
			program->last = NULL;
		program->queued--;
		packet_free(packet);
	}
	set_events(program);
}

static struct local_header header_of(uint16_t type, uint32_t length, uint32_t request)
{
	return (struct local_header){.magic = LOCAL_MAGIC, .version = LOCAL_VERSION, .type = type, .length = length, .request = request};
}

void program_answer(struct program *program, const struct local_answer *given, const char *peer, const char *encryption, const char *text)
{
	struct local_answer answer = *given;

	answer.header = header_of(LOCAL_ANSWER, sizeof answer, given->header.request);
	snprintf(answer.peer, sizeof answer.peer, "%s", peer ? peer : "");
	snprintf(answer.encryption, sizeof answer.encryption, "%s", encryption ? encryption : "");
	snprintf(answer.text, sizeof answer.text, "%s", text ? text : "");
	send_packet(program, &answer, sizeof answer);
	OPENSSL_cleanse(&answer, sizeof answer);
}

void program_revoke(struct program *program, const struct queue_pair *pair, const char *text)
{
	struct local_revoke revoke = {.header = header_of(LOCAL_REVOKE, sizeof revoke, 0), .qpn = pair->qpn, .psn = pair->psn};

	snprintf(revoke.device, sizeof revoke.device, "%s", pair->device->name);
	snprintf(revoke.text, sizeof revoke.text, "%s", text);
	send_packet(program, &revoke, sizeof revoke);
}

static void welcome(struct program *program, uint32_t request, int status, const char *text)
{
	struct local_welcome packet = {.header = header_of(LOCAL_WELCOME, sizeof packet, request),
				       .mode = program->observe ? LOCAL_OBSERVE : LOCAL_ENFORCE,
				       .require_encryption = program->require_encryption,
				       .status = (uint32_t)status};

	snprintf(packet.name, sizeof packet.name, "%s", agent_name(program->agent));
	snprintf(packet.text, sizeof packet.text, "%s", text);
	send_packet(program, &packet, sizeof packet);
}

/* ---- programs -------------------------------------------------------------------------------------------------- */

static struct user *find_user(struct agent *agent, uid_t uid)
{
	struct user *user = agent->users;

	while (user && user->uid != uid)
		user = user->next;
	if (user)
		return user;
	user = calloc(1, sizeof *user);
	if (!user)
		return NULL;
	user->uid = uid;
	user->next = agent->users;
	agent->users = user;
	return user;
}

static void leave_user(struct agent *agent, struct user *user)
{
	struct user **at = &agent->users;

	if (--user->programs > 0)
		return;
	while (*at != user)
		at = &(*at)->next;
	*at = user->next;
	free(user);
}

static void program_free(struct program *program)
{
	struct agent *agent = program->agent;
	struct packet *next;

	pairing_leave(program);
	event_loop_watch(&agent->loop, &program->source, 0);
	event_loop_watch(&agent->loop, &program->process, 0);
	close(program->source.fd);
	if (program->process.fd >= 0)
		close(program->process.fd);
	*program->link = program->next;
	if (program->next)
		program->next->link = program->link;
	agent->program_count--;
	atomic_store_explicit(&agent->gauge_programs, agent->program_count, memory_order_relaxed);
	leave_user(agent, program->user);
	devices_free(&program->devices, &agent->places);
	for (struct packet *packet = program->first; packet; packet = next) {
		next = packet->next;
		packet_free(packet);
	}
	free((gid_t *)(uintptr_t)program->subject.groups);
	free(program);
}

static void take_hello(struct program *program, const struct local_hello *hello)
{
	const struct policy *policy = &program->agent->rules.policy;
	char text[LOCAL_TEXT];

	if (program->greeted) {
		program->dead = true;
		return;
	}
	program->greeted = true;
	snprintf(program->name, sizeof program->name, "%s", hello->program[0] ? hello->program : "a program");
	srdma_utf8_make_shown(program->name, strlen(program->name));
	program->observe = policy->observe && hello->mode == LOCAL_OBSERVE;
	program->require_encryption = policy->require_encryption || hello->require_encryption;
	if (program->user->programs > policy->programs_per_user) {
		snprintf(text, sizeof text, "user %u has %u programs at this agent, which is the maximum (programs-per-user)", (unsigned)program->subject.uid,
			 policy->programs_per_user);
		agent_refused(program->agent, REFUSED_LIMIT, false, program, NULL, NULL, text);
		welcome(program, hello->header.request, EDQUOT, text);
		program->dead = true;
		return;
	}
	agent_count(program->agent, COUNT_PROGRAMS);
	welcome(program, hello->header.request, 0, "");
}

static void take_device(struct program *program, const struct local_device *report)
{
	struct agent *agent = program->agent;
	struct local_answer answer = {.header.request = report->header.request};
	int ret = devices_take(&program->devices, report, &agent->addresses, agent->rules.map, &agent->places);

	if (ret < 0) {
		program_refuse(program, report->header.request, NULL, 0, REFUSED_LIMIT, -ret, NULL, "device %s: %s", report->device, srdma_error_text());
		return;
	}
	if (ret > 0)
		srdma_log(SRDMA_LOG_INFO, "%s (pid %d) reports %d GID%s of %s that %s not this host's: no connection can have %s", program->name, (int)program->pid,
			  ret, SRDMA_S(ret), report->device, ret == 1 ? "is" : "are", ret == 1 ? "it" : "them");
	if (report->header.request != 0)
		program_answer(program, &answer, NULL, NULL, NULL);
}

static void take_event(struct program *program, const struct local_event *event)
{
	char text[LOCAL_TEXT + LOCAL_NAME + 4];

	snprintf(text, sizeof text, "%s: %s", event->what, event->text);
	srdma_utf8_make_shown(text, strlen(text));
	agent_refused(program->agent, REFUSED_PROGRAM, !event->refused, program, NULL, NULL, text);
}

static void take_request(struct program *program, const union local_request *request)
{
	struct queue_pair *pair;

	switch (request->header.type) {
	case LOCAL_HELLO: take_hello(program, &request->hello); break;
	case LOCAL_DEVICE: take_device(program, &request->device); break;
	case LOCAL_REGISTER:
	case LOCAL_RESTORE: pairing_register(program, &request->queue_pair); break;
	case LOCAL_CONNECT: pairing_connect(program, &request->connect); break;
	case LOCAL_FORGET:
		pair = pairing_find_own(program, request->queue_pair.device, request->queue_pair.port, request->queue_pair.qpn);
		if (pair)
			pairing_give_up(program, pair);
		registrations_forget(program, &request->queue_pair);
		registrations_try(program->agent, request->queue_pair.qpn);
		break;
	case LOCAL_ADDRESS: pairing_address(program, &request->address); break;
	case LOCAL_EVENT: take_event(program, &request->event); break;
	default: break;
	}
}

/* False: the program has to go. */
static bool take_packet(struct program *program, const union local_request *request, size_t length)
{
	const char *problem = local_request_problem(request, length);
	char text[LOCAL_TEXT];

	if (!problem && request->header.version != LOCAL_VERSION) {
		snprintf(text, sizeof text, "the program's library speaks version %u and this agent version %u: install the same version of securdma for both",
			 request->header.version, (unsigned)LOCAL_VERSION);
		welcome(program, request->header.request, EPROTONOSUPPORT, text);
		agent_refused(program->agent, REFUSED_INVALID, false, program, NULL, NULL, text);
		return false;
	}
	if (!problem && !program->greeted && request->header.type != LOCAL_HELLO)
		problem = "HELLO must come first";
	if (problem) {
		snprintf(text, sizeof text, "a packet of the program is not valid: %s; the program is disconnected", problem);
		agent_refused(program->agent, REFUSED_INVALID, false, program, NULL, NULL, text);
		return false;
	}
	take_request(program, request);
	return !program->dead;
}

static void ready(struct source *source, uint32_t events)
{
	static union local_request request; /* the agent has one thread */
	struct program *program = (struct program *)source;

	if (events & EPOLLOUT)
		send_queued(program);
	for (int i = 0; i < PACKETS_A_TURN && !program->first && !program->dead; i++) {
		ssize_t n = recv(source->fd, &request, sizeof request, MSG_DONTWAIT | MSG_TRUNC);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0 || !take_packet(program, &request, (size_t)n)) {
			program_free(program);
			return;
		}
	}
	/* A program that does not read, and has closed. */
	if (program->dead || (program->first && (events & (EPOLLHUP | EPOLLERR))))
		program_free(program);
}

/* Asked after the kernel's word: if the process is still there, the number was its own all the time. */
static enum owner while_it_lives(const struct program *program, enum owner owner)
{
	return owner == OWNER_IS && process_has_ended(program->process.fd) ? OWNER_IS_NOT : owner;
}

enum owner program_owns(const struct program *program, struct device *device, uint32_t qpn)
{
	if (!device->kernel)
		return OWNER_UNKNOWN;
	return while_it_lives(program, owner_check(&program->agent->owner_fd, device->name, &device->index, device->port, qpn, program->pid));
}

enum owner program_owns_among_all(const struct program *program, struct device *device, uint32_t qpn)
{
	if (!device->kernel)
		return OWNER_UNKNOWN;
	return while_it_lives(program, owner_search(&program->agent->owner_fd, device->name, &device->index, qpn, program->pid));
}

/* The process has ended, and another one may have its socket, and another one its number. What it has sent is read before that end. */
static void ended(struct source *source, uint32_t events)
{
	struct program *program = (struct program *)(void *)((char *)source - offsetof(struct program, process));

	(void)events;
	event_loop_watch(&program->agent->loop, source, 0);
	shutdown(program->source.fd, SHUT_RDWR);
}

/* ---- the socket ------------------------------------------------------------------------------------------------ */

static int take_subject(struct program *program)
{
	struct ucred peer;
	socklen_t size = sizeof peer, length = 0;
	gid_t *groups = NULL, none;

	if (getsockopt(program->source.fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
		return -errno;
	/* The first call says how long the list is. */
	if (getsockopt(program->source.fd, SOL_SOCKET, SO_PEERGROUPS, &none, &length) != 0 && errno == ERANGE) {
		groups = malloc(length);
		if (!groups || getsockopt(program->source.fd, SOL_SOCKET, SO_PEERGROUPS, groups, &length) != 0) {
			free(groups);
			return -ENOMEM;
		}
	}
	program->pid = peer.pid;
	program->process.fd = process_open(program->source.fd, peer.pid);
	program->subject = (struct policy_subject){.uid = peer.uid, .gid = peer.gid, .groups = groups, .group_count = groups ? length / sizeof *groups : 0};
	switch (program->process.fd) {
	case -ESRCH:
	case -EMFILE:
	case -ENFILE:
	case -ENOMEM: return program->process.fd;
	default: return 0;
	}
}

/* One that is not served. */
static void turn_away(struct program *program, int fd, int error)
{
	if (error != -ESRCH)
		srdma_log(SRDMA_LOG_ERROR, "cannot serve a program: %s", strerror(-error));
	close(fd);
	if (program) {
		if (program->process.fd >= 0)
			close(program->process.fd);
		free((gid_t *)(uintptr_t)program->subject.groups);
	}
	free(program);
}

static void take_program(struct agent *agent, int fd)
{
	struct program *program = agent->program_count < PROGRAMS_MAX ? calloc(1, sizeof *program) : NULL;
	int error;

	if (program) {
		program->source = (struct source){.ready = ready, .fd = fd};
		program->process = (struct source){.ready = ended, .fd = -1};
		program->agent = agent;
		snprintf(program->name, sizeof program->name, "a program");
		program->deadline = srdma_deadline(HELLO_MS);
	}
	error = !program ? (agent->program_count < PROGRAMS_MAX ? -ENOMEM : -EUSERS) : take_subject(program);
	if (error == 0 && !(program->user = find_user(agent, program->subject.uid)))
		error = -ENOMEM;
	if (error != 0) {
		turn_away(program, fd, error);
		return;
	}
	program->user->programs++;
	if (program->user->programs > agent->rules.policy.programs_per_user + PROGRAMS_TOLD)
		program->dead = true;
	program->link = &agent->programs;
	program->next = agent->programs;
	if (program->next)
		program->next->link = &program->next;
	agent->programs = program;
	agent->program_count++;
	atomic_store_explicit(&agent->gauge_programs, agent->program_count, memory_order_relaxed);
	set_events(program);
	if (program->process.fd >= 0 && event_loop_watch(&agent->loop, &program->process, EPOLLIN) != 0)
		program->dead = true;
	if (program->dead)
		program_free(program);
}

static void knock(struct source *source, uint32_t events)
{
	struct agent *agent = (struct agent *)(void *)((char *)source - offsetof(struct agent, local));
	int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)events;
	if (fd >= 0)
		take_program(agent, fd);
	else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
		srdma_log(SRDMA_LOG_ERROR, "cannot take a program's connection: %s", strerror(errno));
		/* The tick opens it again. */
		event_loop_watch(&agent->loop, source, 0);
	}
}

int local_server_open(struct agent *agent, int fd)
{
	agent->local = (struct source){.ready = knock, .fd = fd};
	return event_loop_watch(&agent->loop, &agent->local, EPOLLIN);
}

void local_server_tick(struct agent *agent, uint64_t now)
{
	struct program *next;

	event_loop_watch(&agent->loop, &agent->local, EPOLLIN);
	for (struct program *program = agent->programs; program; program = next) {
		next = program->next;
		if (program->dead || (!program->greeted && now >= program->deadline))
			program_free(program);
	}
}

void local_server_close(struct agent *agent)
{
	struct program *next;

	for (struct program *program = agent->programs; program; program = next) {
		next = program->next;
		program_free(program);
	}
	if (agent->local.fd >= 0) {
		event_loop_watch(&agent->loop, &agent->local, 0);
		close(agent->local.fd);
	}
	agent->local.fd = -1;
}
