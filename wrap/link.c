/* SPDX-License-Identifier: Apache-2.0 */
#include "link.h"

#include "forks.h"
#include "message.h"
#include "setting.h"
#include "socket.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum {
	LOOK_MS = 1000,       /* how soon the thread notices that the program has closed its descriptor */
	RETRY_MS = 20,        /* between two tries while a call of the program's waits */
	RETRY_IDLE_MS = 100,  /* while none does: an agent that is back waits twice that for queue pairs that others ask for */
	IDLE_MS = 5000,       /* without queue pairs nothing is to be done */
	FULL_MS = 1,          /* to wait while the agent takes no packet */
};

enum link_state { LINK_NONE, LINK_RESTORING, LINK_UP };

/* A call that waits for its answer. It lies on the caller's stack, and the caller takes it out of the list. */
struct waiter {
	struct waiter *next;
	uint32_t request;
	struct local_answer *answer;
	int result; /* 1: not yet */
	pthread_cond_t done;
};

/* All of it is guarded by `lock`, but for what a comment gives to the thread. */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t wake;    /* the thread: somebody wants an agent */
	pthread_cond_t changed; /* callers: the state, or `attempts` */
	enum link_state state;
	struct socket socket; /* the thread opens and closes it */
	struct waiter *waiters;
	uint32_t last_request;
	unsigned wanted;   /* callers that wait for an agent */
	unsigned attempts; /* that failed */
	int failure;       /* of the last one: a negative errno */
	bool running, observe;
	char refusal[LOCAL_TEXT]; /* of failure -EACCES */
	bool said_lost;
} agent = {.lock = PTHREAD_MUTEX_INITIALIZER, .socket = {.fd = -1}};

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void wait_cond(pthread_cond_t *cond, int64_t until_ms)
{
	struct timespec until = {.tv_sec = (time_t)(until_ms / 1000), .tv_nsec = (long)(until_ms % 1000) * 1000000};

	pthread_cond_timedwait(cond, &agent.lock, &until);
}

static void init_cond(pthread_cond_t *cond)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &attr);
	pthread_condattr_destroy(&attr);
}

/* ---- forks: a child has no thread, and a socket of its own ---- */

void link_before_fork(void)
{
	pthread_mutex_lock(&agent.lock);
}

void link_after_fork(bool child)
{
	if (child) {
		socket_close(&agent.socket);
		agent.state = LINK_NONE;
		agent.waiters = NULL;
		agent.wanted = 0;
		agent.running = false;
		init_cond(&agent.wake);
		init_cond(&agent.changed);
	}
	pthread_mutex_unlock(&agent.lock);
}

static void prepare(void)
{
	init_cond(&agent.wake);
	init_cond(&agent.changed);
	agent.observe = setting()->observe;
}

/* ---- the thread ---- */

static void finish(struct waiter *waiter, int result)
{
	waiter->result = result;
	pthread_cond_signal(&waiter->done);
}

static void take_answer(const struct local_answer *answer)
{
	pthread_mutex_lock(&agent.lock);
	for (struct waiter *waiter = agent.waiters; waiter; waiter = waiter->next)
		if (waiter->request == answer->header.request && waiter->result > 0) {
			*waiter->answer = *answer;
			finish(waiter, 0);
		}
	pthread_mutex_unlock(&agent.lock);
}

static void take(const union local_received *packet)
{
	if (packet->header.type == LOCAL_REVOKE)
		queue_pairs_revoke(&packet->revoke);
	else if (packet->header.type == LOCAL_ANSWER && packet->header.request & LINK_RESTORED)
		queue_pairs_restored(&packet->answer);
	else if (packet->header.type == LOCAL_ANSWER)
		take_answer(&packet->answer);
}

/* Everything that has come. False: the connection is lost. */
static bool receive_all(void)
{
	union local_received packet;
	int error;

	while ((error = socket_receive(&agent.socket, &packet)) == 0)
		take(&packet);
	return error == -EAGAIN;
}

/* Sends HELLO and waits for WELCOME. 0 or a negative errno. */
static int greet(struct socket *socket, struct local_welcome *welcome)
{
	struct local_hello hello = {.mode = setting()->observe ? LOCAL_OBSERVE : LOCAL_ENFORCE,
				    .require_encryption = setting()->require_encryption};
	int64_t until = socket_now_ms() + setting()->timeout_ms;
	union local_received packet;
	int error;

	snprintf(hello.program, sizeof hello.program, "%s", program_invocation_short_name);
	error = socket_send(socket, &hello, sizeof hello, LOCAL_HELLO, 0);
	if (error != 0)
		return error;
	while ((error = socket_receive(socket, &packet)) == -EAGAIN) {
		int64_t left = until - socket_now_ms();

		if (left <= 0)
			return -ETIMEDOUT;
		socket_wait(socket, false, (int)left);
	}
	if (error == 0 && packet.header.type != LOCAL_WELCOME)
		error = -EPROTO;
	if (error == 0)
		*welcome = packet.welcome;
	return error;
}

/* One try. The caller has `lock`, and gets it back. */
static void try_connect(void)
{
	struct socket socket = {.fd = -1};
	struct local_welcome welcome = {.status = 0};
	int error;

	pthread_mutex_unlock(&agent.lock);
	error = socket_open(&socket, setting()->agent);
	if (error == 0)
		error = greet(&socket, &welcome);
	if (error == 0 && welcome.status != 0)
		error = -EACCES;
	if (error != 0)
		socket_close(&socket);
	pthread_mutex_lock(&agent.lock);
	agent.failure = error;
	if (error != 0) {
		memcpy(agent.refusal, welcome.text, sizeof agent.refusal);
		agent.attempts++;
		pthread_cond_broadcast(&agent.changed);
		return;
	}
	agent.socket = socket;
	agent.observe = welcome.mode == LOCAL_OBSERVE;
	agent.state = LINK_RESTORING;
	pthread_mutex_unlock(&agent.lock);
	link_restore();
	pthread_mutex_lock(&agent.lock);
	agent.state = LINK_UP;
	agent.said_lost = false;
	pthread_cond_broadcast(&agent.changed);
}

static void drop(void)
{
	bool say;

	pthread_mutex_lock(&agent.lock);
	socket_close(&agent.socket);
	agent.state = LINK_NONE;
	for (struct waiter *waiter = agent.waiters; waiter; waiter = waiter->next)
		if (waiter->result > 0)
			finish(waiter, -ECONNRESET);
	say = !agent.said_lost;
	agent.said_lost = true;
	pthread_mutex_unlock(&agent.lock);
	if (say && queue_pairs_any())
		message("the connection to the agent at %s is lost; connected queue pairs go on, and new ones wait until it is back", setting()->agent);
}

static void serve(void)
{
	for (;;) {
		if (!receive_all()) {
			drop();
			return;
		}
		socket_wait(&agent.socket, false, LOOK_MS);
	}
}

static void *run(void *arg)
{
	(void)arg;
	for (;;) {
		/* Calls of the program's may hold locks above `lock`, so this asks before it takes that. */
		bool any = queue_pairs_any(), up;

		pthread_mutex_lock(&agent.lock);
		if (!any && agent.wanted == 0)
			wait_cond(&agent.wake, socket_now_ms() + IDLE_MS);
		if (any || agent.wanted > 0)
			try_connect();
		if (agent.state == LINK_NONE && (any || agent.wanted > 0))
			wait_cond(&agent.wake, socket_now_ms() + (agent.wanted > 0 ? RETRY_MS : RETRY_IDLE_MS));
		up = agent.state == LINK_UP;
		pthread_mutex_unlock(&agent.lock);
		if (up)
			serve();
	}
	return NULL;
}

/* The caller has `lock`. */
static int start_thread(void)
{
	sigset_t all, before;
	pthread_t thread;
	int error;

	if (agent.running)
		return 0;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(&thread, NULL, run, NULL);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (error != 0)
		return -error;
	pthread_detach(thread);
	agent.running = true;
	return 0;
}

bool link_send_restored(void *packet, size_t length, uint16_t type)
{
	uint32_t request = type == LOCAL_RESTORE ? ((struct local_header *)packet)->request | LINK_RESTORED : 0;
	int64_t until = socket_now_ms() + setting()->timeout_ms;
	int error;

	/* The agent may wait for this process to take answers. */
	while ((error = socket_send(&agent.socket, packet, length, type, request)) == -EAGAIN && socket_now_ms() < until && receive_all())
		socket_wait(&agent.socket, true, RETRY_MS);
	return error == 0;
}

/* ---- calls of the program ---- */

bool link_observes(void)
{
	pthread_once(&once, prepare);
	pthread_mutex_lock(&agent.lock);
	bool observe = agent.observe;
	pthread_mutex_unlock(&agent.lock);
	return observe;
}

/* Waits for an agent until then; `single`: for one try. The caller has `lock`. 0 or a negative errno. */
static int await_agent(int64_t until, bool single)
{
	unsigned attempts = agent.attempts;
	int error = start_thread();

	agent.wanted++;
	pthread_cond_signal(&agent.wake);
	while (error == 0 && agent.state != LINK_UP) {
		if (socket_now_ms() >= until)
			error = -ETIMEDOUT;
		else if (agent.attempts != attempts && agent.failure == -EACCES)
			error = -EACCES;
		else if (agent.attempts != attempts && (agent.observe || single))
			error = -ENOTCONN;
		else
			wait_cond(&agent.changed, until);
	}
	agent.wanted--;
	return error;
}

/* The caller has `lock`, which is given away meanwhile. 0 or a negative errno: -ECONNRESET, ask again. */
static int ask_once(void *request, size_t length, uint16_t type, struct local_answer *answer, int64_t until)
{
	struct waiter waiter = {.answer = answer, .result = 1}, **at;
	int error;

	agent.last_request = (agent.last_request + 1) & ~LINK_RESTORED;
	waiter.request = agent.last_request;
	error = socket_send(&agent.socket, request, length, type, waiter.request);
	if (error == -EAGAIN) {
		wait_cond(&agent.changed, socket_now_ms() + FULL_MS);
		return socket_now_ms() < until ? -ECONNRESET : -ETIMEDOUT;
	}
	if (error != 0) {
		/* The thread finds out as well; until then nobody is to run into it again and again. */
		wait_cond(&agent.changed, socket_now_ms() + RETRY_MS);
		return -ECONNRESET;
	}
	init_cond(&waiter.done);
	waiter.next = agent.waiters;
	agent.waiters = &waiter;
	while (waiter.result > 0 && socket_now_ms() < until)
		wait_cond(&waiter.done, until);
	at = &agent.waiters;
	while (*at != &waiter)
		at = &(*at)->next;
	*at = waiter.next;
	pthread_cond_destroy(&waiter.done);
	return waiter.result > 0 ? -ETIMEDOUT : waiter.result;
}

/* Why there is no answer, and what to do. */
static void explain(int error, bool up, struct local_answer *answer)
{
	if (error == -EACCES && !agent.refusal[0])
		snprintf(answer->text, sizeof answer->text, "this user may not connect to the agent at %s; use the host's agent, or start one of your own (securdma agent)",
			 setting()->agent);
	else if (error == -EACCES)
		snprintf(answer->text, sizeof answer->text, "%s", agent.refusal);
	else if (agent.failure == -EPERM)
		snprintf(answer->text, sizeof answer->text,
			 "at %s another user listens, who is neither root nor the owner of a folder that nobody else can write; start the agent with its socket in such a folder",
			 setting()->agent);
	else if (error == -EAGAIN)
		snprintf(answer->text, sizeof answer->text, "no thread could be started; raise the limit of threads (ulimit -u)");
	else if (up || agent.failure == 0 || agent.failure == -ETIMEDOUT)
		snprintf(answer->text, sizeof answer->text, "the agent at %s did not answer within %d ms", setting()->agent, setting()->timeout_ms);
	else if (agent.failure == -EPROTO)
		snprintf(answer->text, sizeof answer->text, "at %s answers something else than an agent of this version; install one version of securdma", setting()->agent);
	else
		snprintf(answer->text, sizeof answer->text, "no agent at %s (%s); start securdma agent, or name its socket with --agent", setting()->agent,
			 strerror(-agent.failure));
}

int link_ask(void *request, size_t length, uint16_t type, struct local_answer *answer)
{
	int64_t until = socket_now_ms() + setting()->timeout_ms;
	int error, cancel;
	bool up;

	pthread_once(&once, prepare);
	memset(answer, 0, sizeof *answer);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	pthread_mutex_lock(&agent.lock);
	do {
		error = await_agent(until, false);
		up = error == 0;
		if (up)
			error = ask_once(request, length, type, answer, until);
	} while (error == -ECONNRESET);
	if (error != 0)
		explain(error, up, answer);
	pthread_mutex_unlock(&agent.lock);
	pthread_setcancelstate(cancel, NULL);
	return error;
}

void link_tell(void *packet, size_t length, uint16_t type)
{
	int64_t until = socket_now_ms() + setting()->timeout_ms;
	int cancel, error = 0;

	pthread_once(&once, prepare);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	pthread_mutex_lock(&agent.lock);
	/* An agent that comes later is not told of it at all. */
	while (agent.state != LINK_NONE && (error = socket_send(&agent.socket, packet, length, type, 0)) == -EAGAIN && socket_now_ms() < until)
		wait_cond(&agent.changed, socket_now_ms() + FULL_MS);
	/* An agent that is stopped would hold up each call for as long. When it goes on, it finds the end of this connection and is told of
	 * everything anew. */
	if (agent.state != LINK_NONE && error == -EAGAIN)
		socket_shutdown(&agent.socket);
	pthread_mutex_unlock(&agent.lock);
	pthread_setcancelstate(cancel, NULL);
}

void link_reach(void)
{
	int cancel;

	pthread_once(&once, prepare);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	pthread_mutex_lock(&agent.lock);
	await_agent(socket_now_ms() + setting()->timeout_ms, true);
	pthread_mutex_unlock(&agent.lock);
	pthread_setcancelstate(cancel, NULL);
}
