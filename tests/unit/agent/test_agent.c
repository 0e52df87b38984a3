/* SPDX-License-Identifier: Apache-2.0 */
/* Two agents and their programs in one process, where the test sets the clock and says what encrypts a path. */
#include "test.h"

#include "agent_parts.h"
#include "encryption.h"
#include "folder.h"
#include "listener.h"
#include "local.h"
#include "log.h"
#include "pki.h"
#include "securdma.h"
#include "securdma_server.h"
#include "session.h"
#include "watch.h"

#include <arpa/inet.h>
#include <infiniband/verbs.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#define SECOND UINT64_C(1000000)
#define HOUR (3600 * SECOND)
/* Of real time, for what needs none on an idle machine. */
#define DEADLINE_US (60 * SECOND)

/* The agents' clock goes slowly, so that no deadline of theirs is near on a busy machine; the test sets it ahead. */
#define SLOWER 5
uint64_t __real_srdma_clock_us(void);
static uint64_t began, ahead;
uint64_t __wrap_srdma_clock_us(void)
{
	uint64_t real = __real_srdma_clock_us();

	if (began == 0)
		began = real;
	return began + (real - began) / SLOWER + ahead;
}

uint64_t __wrap_srdma_deadline(int ms)
{
	return __wrap_srdma_clock_us() + (uint64_t)ms * 1000;
}

int __wrap_srdma_deadline_left_ms(uint64_t deadline)
{
	uint64_t now = __wrap_srdma_clock_us();

	return deadline <= now ? 0 : deadline - now > 1000 * (uint64_t)INT_MAX ? INT_MAX : (int)((deadline - now + 999) / 1000);
}

/* The kernel's timer has the real clock. */
int __real_srdma_watch_until(struct srdma_watch *watch, uint64_t due);
int __wrap_srdma_watch_until(struct srdma_watch *watch, uint64_t due)
{
	uint64_t now = began + ahead;

	if (due == SRDMA_NEVER)
		return __real_srdma_watch_until(watch, due);
	return __real_srdma_watch_until(watch, due > now ? began + (due - now) * SLOWER : 0);
}

/* How often the check does not know; then it says `verdict`. */
static int unknown, asked, verdict;
int __wrap_encryption_check(const uint8_t own[16], const uint8_t peer[16], const char *netdev, enum encryption_device device, char what[ENCRYPTION_WHAT],
			    char why[ENCRYPTION_WHY])
{
	asked++;
	snprintf(what, ENCRYPTION_WHAT, "%s", "a seal of the test");
	snprintf(why, ENCRYPTION_WHY, "%s", "the test says so");
	if (unknown > 0) {
		unknown--;
		return -EAGAIN;
	}
	return verdict;
}

/* ---- agents ----------------------------------------------------------------------------------------------------- */

struct host {
	const char *name, *address;
	struct agent *agent;
	int program; /* a program's socket */
	uint32_t request;
};

static struct host a = {.name = "a", .address = "127.0.0.2"}, b = {.name = "b", .address = "127.0.0.3"};
static char port[8];

static int make_files(void **state)
{
	struct pki ca, cert;

	if (enter_folder(state) != 0)
		return -1;
	ca = pki_make((struct pki_request){.name = "CA", .ca = true});
	pki_save("ca", &ca);
	for (int i = 0; i < 2; i++) {
		const struct host *host = i ? &b : &a;
		char names[64];

		snprintf(names, sizeof names, "IP:%s,DNS:%s.example", host->address, host->name);
		cert = pki_make((struct pki_request){.name = host->name, .issuer = &ca, .names = names});
		pki_save(host->name, &cert);
	}
	return 0;
}

static int remove_files(void **state)
{
	pki_free_all();
	return leave_folder(state);
}

static struct agent_rules rules_of(const struct host *host)
{
	char cert[16], key[16];
	struct srdma_tls_client_options client;
	struct srdma_tls_server_options server;
	struct agent_rules rules = {.policy = {.users = {.all = true}, .queue_pairs_per_user = 100, .programs_per_user = 10, .queries_per_second = 1000,
					       .sessions = 10, .handshakes = 10, .handshakes_per_second = 100, .connect_timeout_ms = 60000,
					       .keepalive_ms = 100000000}};

	snprintf(cert, sizeof cert, "%s.crt", host->name);
	snprintf(key, sizeof key, "%s.key", host->name);
	srdma_tls_client_options_init(&client);
	srdma_tls_server_options_init(&server);
	client.ca_file = server.client_ca_file = "ca.crt";
	client.cert_file = server.cert_file = cert;
	client.key_file = server.key_file = key;
	assert_int_equal(srdma_tls_server_new(&server, &rules.server), 0);
	assert_int_equal(srdma_tls_client_new(&client, &rules.client), 0);
	assert_int_equal(agent_rules_prepare(&rules, NULL), 0);
	return rules;
}

static int local_socket(const struct host *host, bool listens)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(address.sun_path, sizeof address.sun_path, "%s.sock", host->name);
	if (listens)
		unlink(address.sun_path);
	assert_int_equal((listens ? bind : connect)(fd, (struct sockaddr *)&address, sizeof address), 0);
	if (listens)
		assert_int_equal(listen(fd, 8), 0);
	return fd;
}

static void start(struct host *host)
{
	struct agent_rules rules = rules_of(host);
	struct agent_options options = {.local_fd = local_socket(host, true), .peer_port = port, .owner_fd = -1};

	assert_int_equal(srdma_listener_listen(host->address, port[0] ? port : "0", &options.listener), 0);
	snprintf(port, sizeof port, "%u", srdma_listener_port(options.listener));
	assert_int_equal(agent_new(&options, &rules, &host->agent), 0);
}

static void step(void)
{
	struct pollfd fds[2] = {{.fd = a.agent ? agent_fd(a.agent) : -1, .events = POLLIN}, {.fd = b.agent ? agent_fd(b.agent) : -1, .events = POLLIN}};

	poll(fds, 2, 5);
	for (int i = 0; i < 2; i++)
		if ((i ? b : a).agent)
			agent_step((i ? b : a).agent);
}

/* Until it is done. */
#define STEP_UNTIL(done)                                                          \
	for (uint64_t until_ = __real_srdma_clock_us() + DEADLINE_US; !(done);) { \
		assert_true(__real_srdma_clock_us() < until_);                    \
		step();                                                           \
	}

static unsigned sessions(const struct host *host)
{
	struct agent_totals totals;

	agent_get_totals(host->agent, &totals);
	return (unsigned)totals.sessions;
}

/* ---- programs --------------------------------------------------------------------------------------------------- */

static void send_to(struct host *host, void *packet, size_t size, uint16_t type)
{
	struct local_header header = {.magic = LOCAL_MAGIC, .version = LOCAL_VERSION, .type = type, .length = (uint32_t)size, .request = ++host->request};

	memcpy(packet, &header, sizeof header);
	assert_int_equal(send(host->program, packet, size, 0), size);
}

static bool receive(struct host *host, void *packet, size_t size)
{
	return recv(host->program, packet, size, 0) == (ssize_t)size;
}

static struct local_answer answer_of(struct host *host)
{
	struct local_answer answer;

	STEP_UNTIL(receive(host, &answer, sizeof answer));
	assert_int_equal(answer.header.request, host->request);
	return answer;
}

static void map_gid(const struct host *host, uint8_t gid[16])
{
	memset(gid, 0, 16);
	gid[10] = gid[11] = 0xff;
	assert_int_equal(inet_pton(AF_INET, host->address, gid + 12), 1);
}

/* A program with one device. */
static void join(struct host *host, bool observe, bool encrypted)
{
	struct local_hello hello = {.mode = observe ? LOCAL_OBSERVE : LOCAL_ENFORCE, .require_encryption = encrypted, .program = "test"};
	struct local_device device = {.device = "uroce0", .port = 1, .link_layer = IBV_LINK_LAYER_ETHERNET, .count = 1};
	struct local_welcome welcome;

	host->program = local_socket(host, false);
	send_to(host, &hello, sizeof hello, LOCAL_HELLO);
	STEP_UNTIL(receive(host, &welcome, sizeof welcome));
	assert_int_equal(welcome.status, 0);
	map_gid(host, device.gids[0]);
	send_to(host, &device, sizeof device, LOCAL_DEVICE);
	assert_int_equal(answer_of(host).status, 0);
}

static uint32_t register_pair(struct host *host, uint32_t qpn)
{
	struct local_queue_pair request = {.device = "uroce0", .port = 1, .qpn = qpn, .type = IBV_QPT_RC};
	struct local_answer answer;

	send_to(host, &request, sizeof request, LOCAL_REGISTER);
	answer = answer_of(host);
	assert_int_equal(answer.status, 0);
	return answer.psn;
}

/* Asks for queue pair 0x22 of the other host. */
static void ask(struct host *host, const struct host *other, uint32_t qpn)
{
	struct local_connect request = {.device = "uroce0", .port = 1, .qpn = qpn, .peer_qpn = 0x22, .psn_would_be = 0x123456};

	map_gid(host, request.gid);
	map_gid(other, request.peer_gid);
	send_to(host, &request, sizeof request, LOCAL_CONNECT);
}

static int begin(void **state)
{
	unknown = asked = verdict = 0;
	ahead = 0;
	port[0] = '\0';
	start(&a);
	start(&b);
	return 0;
}

static void end_host(struct host *host)
{
	if (host->program > 0)
		close(host->program);
	host->program = 0;
	agent_free(&host->agent);
}

static int finish(void **state)
{
	end_host(&a);
	end_host(&b);
	return 0;
}

#define AGENTS .setup_func = begin, .teardown_func = finish

/* ---- tests ------------------------------------------------------------------------------------------------------ */

TEST(question_waits_until_it_is_known_whether_the_path_is_encrypted, AGENTS)
{
	struct local_answer answer;
	uint32_t psn;

	join(&a, false, true);
	join(&b, false, false);
	register_pair(&a, 0x11);
	psn = register_pair(&b, 0x22);
	unknown = 3;
	ask(&a, &b, 0x11);
	answer = answer_of(&a);
	assert_int_equal(answer.status, 0);
	assert_int_equal(answer.psn, psn);
	assert_int_equal(unknown, 0);
	assert_string_equal(answer.encryption, "a seal of the test");
}

TEST(path_of_which_nothing_is_known_is_refused_at_the_deadline, AGENTS)
{
	struct local_answer answer;

	join(&a, false, true);
	register_pair(&a, 0x11);
	unknown = INT_MAX;
	ask(&a, &b, 0x11);
	STEP_UNTIL(asked > 2);
	assert_false(receive(&a, &answer, sizeof answer));
	ahead += 61 * SECOND;
	answer = answer_of(&a);
	assert_int_equal(answer.status, EACCES);
	assert_text_says(answer.text, "it cannot be seen whether the path is encrypted");
	assert_int_equal(sessions(&a), 0);
}

TEST(path_of_which_nothing_is_known_does_not_stop_one_that_observes, AGENTS)
{
	struct local_answer answer;
	uint32_t psn;

	a.agent->rules.policy.observe = true;
	join(&a, true, true);
	join(&b, false, false);
	register_pair(&a, 0x11);
	psn = register_pair(&b, 0x22);
	unknown = INT_MAX;
	ask(&a, &b, 0x11);
	STEP_UNTIL(asked > 2);
	/* Half of the time is left for the peer's agent. */
	ahead += 31 * SECOND;
	answer = answer_of(&a);
	assert_int_equal(answer.status, 0);
	assert_int_equal(answer.observed, 1);
	assert_int_equal(answer.vouched, 1);
	assert_int_equal(answer.psn, psn);
	assert_text_says(answer.text, "it cannot be seen whether the path is encrypted");
}

TEST(path_that_is_not_encrypted_is_refused_before_anybody_is_asked, AGENTS)
{
	struct local_answer answer;

	join(&a, false, true);
	register_pair(&a, 0x11);
	verdict = -EACCES;
	ask(&a, &b, 0x11);
	answer = answer_of(&a);
	assert_int_equal(answer.status, EACCES);
	assert_text_says(answer.text, "nothing is seen that encrypts the path: the test says so");
	assert_int_equal(sessions(&a), 0);
}

TEST(user_has_a_quarter_of_the_questions_that_may_wait, AGENTS)
{
	struct local_answer answer;
	const unsigned quarter = 16384;

	join(&a, false, false);
	join(&b, false, false);
	register_pair(&a, 0x11);
	register_pair(&b, 0x22);
	a.agent->users->asks = quarter;
	ask(&a, &b, 0x11);
	answer = answer_of(&a);
	assert_int_equal(answer.status, EBUSY);
	assert_text_says(answer.text, "too many questions of programs wait");
	a.agent->users->asks = quarter - 1;
	ask(&a, &b, 0x11);
	assert_int_equal(answer_of(&a).status, 0);
	assert_int_equal(a.agent->users->asks, quarter - 1);
	a.agent->users->asks = 0;
}

TEST(session_is_made_anew_after_an_hour, AGENTS)
{
	uint32_t psn;

	join(&a, false, false);
	join(&b, false, false);
	register_pair(&a, 0x11);
	register_pair(&b, 0x22);
	ask(&a, &b, 0x11);
	assert_int_equal(answer_of(&a).status, 0);
	ahead += HOUR - 60 * SECOND;
	for (int i = 0; i < 20; i++)
		step();
	assert_int_equal(sessions(&a), 1);
	ahead += 61 * SECOND;
	STEP_UNTIL(sessions(&a) == 0 && sessions(&b) == 0);
	/* What was connected is so still, and what asks now has a new session. */
	ask(&a, &b, 0x11);
	assert_int_equal(answer_of(&a).status, 0);
	register_pair(&a, 0x12);
	psn = register_pair(&b, 0x22);
	ask(&a, &b, 0x12);
	assert_int_equal(answer_of(&a).psn, psn);
	assert_int_equal(sessions(&a), 1);
}

/* A question that waits over the session's hour. */
static void ask_for_an_hour(void)
{
	struct local_answer answer;

	b.agent->rules.policy.connect_timeout_ms = a.agent->rules.policy.connect_timeout_ms = 2 * 3600 * 1000;
	join(&a, false, false);
	join(&b, false, false);
	register_pair(&a, 0x11);
	b.agent->started_at = __wrap_srdma_clock_us() + HOUR; /* so that the question waits for the queue pair */
	ask(&a, &b, 0x11);
	STEP_UNTIL(b.agent->waiting_count == 1);
	ahead += HOUR + SECOND / 2;
	for (int i = 0; i < 20; i++)
		step();
	assert_false(receive(&a, &answer, sizeof answer));
	assert_int_equal(sessions(&a), 1);
}

static void answer_at_last(void)
{
	uint32_t psn = register_pair(&b, 0x22);
	struct local_answer answer = answer_of(&a);

	assert_int_equal(answer.status, 0);
	assert_int_equal(answer.psn, psn);
}

TEST(session_that_is_asked_on_outlives_its_hour, AGENTS)
{
	ask_for_an_hour();
	answer_at_last();
	STEP_UNTIL(sessions(&a) == 0);
}

TEST(session_that_is_always_asked_on_is_made_anew_a_minute_later, AGENTS)
{
	uint64_t began_at;

	ask_for_an_hour();
	began_at = a.agent->sessions->began;
	ahead += 60 * SECOND;
	STEP_UNTIL(a.agent->sessions && a.agent->sessions->began != began_at && sessions(&a) == 1 && b.agent->waiting_count == 1);
	answer_at_last();
	for (int i = 0; i < 20; i++)
		step();
	assert_int_equal(sessions(&a), 1);
}

RUN_TESTS(make_files, remove_files)
