/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include "clock.h"
#include "dial_to.h"
#include "net.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define SECOND_US 1000000u

/* ---- networks -------------------------------------------------------------------------------------------------- */

static union ibv_gid gid(const char *text)
{
	union ibv_gid gid = {0};

	if (inet_pton(AF_INET, text, gid.raw + 12) == 1)
		gid.raw[10] = gid.raw[11] = 0xff;
	else
		assert_int_equal(inet_pton(AF_INET6, text, gid.raw), 1);
	return gid;
}

TEST(empty_list_has_no_network)
{
	static const char *const empty[] = {NULL, "", " ", ",", " ,\t, "};

	for (size_t i = 0; i < COUNT(empty); i++) {
		struct srdma_networks networks = {.count = 99};

		assert_int_equal(srdma_networks_parse(empty[i], &networks), 0);
		assert_int_equal(networks.count, 0);
		assert_null(networks.list);
	}
}

TEST(list_takes_commas_and_blanks)
{
	struct srdma_networks networks;

	assert_int_equal(srdma_networks_parse(" 10.0.0.0/8,fd00::/64\t192.0.2.1 , 2001:db8::1,", &networks), 0);
	assert_int_equal(networks.count, 4);
	assert_int_equal(networks.list[0].length, 96 + 8);
	assert_int_equal(networks.list[1].length, 64);
	/* Without a length it is one address. */
	assert_int_equal(networks.list[2].length, 128);
	assert_int_equal(networks.list[3].length, 128);
	srdma_networks_clear(&networks);
	assert_int_equal(networks.count, 0);
	assert_null(networks.list);
	srdma_networks_clear(&networks);
}

TEST(bad_network_is_named)
{
	static const char *const bad[] = {
		"10.0.0.0/33",
		"10.0.0.0/",
		"10.0.0.0/-1",
		"10.0.0.0/+8",
		"10.0.0.0/8x",
		"10.0.0.0/8/8",
		"10.0.0/8",
		"10.0.0.256",
		"010.0.0.300",
		"fd00::/129",
		"fd00::/",
		"fd00:::/8",
		"host.example",
		"/8",
		"/",
		"10.0.0.0/0x8",
		"10.0.0.0/4294967304",
		"10.0.0.0/99999999999999999999",
		"fe80::1%eth0/64",
		"[fd00::1]/64",
		"any",
		"*",
		"2001:0db8:0000:0000:0000:0000:0000:0001/1280000000000000000000000",
	};

	for (size_t i = 0; i < COUNT(bad); i++) {
		struct srdma_networks networks = {.count = 99};
		char list[256];

		snprintf(list, sizeof list, "192.0.2.0/24, %s, fd00::/8", bad[i]);
		if (srdma_networks_parse(list, &networks) != -EINVAL)
			fail_msg("'%s' was taken as a network", bad[i]);
		assert_error_says(bad[i]);
		/* The good ones around it are left out of the message, and nothing was handed out. */
		assert_null(strstr(srdma_error_text(), "192.0.2.0"));
		assert_int_equal(networks.count, 99);
	}
}

TEST(networks_contain_their_addresses_and_no_others)
{
	static const char list[] = "10.0.0.0/8, 192.0.2.0/24, fd00::/8";
	static const struct {
		const char *networks, *address;
		bool contained;
	} cases[] = {
		{"", "10.0.0.1", false},
		{"", "::", false},
		/* The length counts to the bit. */
		{"10.0.0.0/8", "10.0.0.0", true},
		{"10.0.0.0/8", "10.255.255.255", true},
		{"10.0.0.0/8", "9.255.255.255", false},
		{"10.0.0.0/8", "11.0.0.0", false},
		{"192.0.2.64/27", "192.0.2.95", true},
		{"192.0.2.64/27", "192.0.2.96", false},
		{"192.0.2.64/27", "192.0.2.63", false},
		{"192.0.2.7", "192.0.2.7", true},
		{"192.0.2.7", "192.0.2.6", false},
		{"192.0.2.6/31", "192.0.2.7", true},
		{"fd00::/7", "fc00::1", true},
		{"fd00::/8", "fc00::1", false},
		{"2001:db8::/127", "2001:db8::1", true},
		{"2001:db8::/127", "2001:db8::2", false},
		{"2001:db8::/128", "2001:db8::1", false},
		/* The bits behind it don't. */
		{"10.1.2.3/8", "10.200.0.1", true},
		{"fd00::1/8", "fdff::", true},
		/* Length 0 is the whole family. An IPv4 GID is an IPv6 address, so IPv6 covers IPv4 too. */
		{"0.0.0.0/0", "0.0.0.0", true},
		{"0.0.0.0/0", "255.255.255.255", true},
		{"0.0.0.0/0", "fd00::1", false},
		{"0.0.0.0/0", "::1", false},
		{"::/0", "fd00::1", true},
		{"::/0", "192.0.2.1", true},
		{"::ffff:10.0.0.0/104", "10.9.9.9", true},
		/* Any network of a list counts. */
		{list, "10.1.1.1", true},
		{list, "192.0.2.200", true},
		{list, "fd12::1", true},
		{list, "172.16.0.1", false},
		{list, "2001:db8::1", false},
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct srdma_networks networks;
		union ibv_gid wanted = gid(cases[i].address);

		assert_int_equal(srdma_networks_parse(cases[i].networks, &networks), 0);
		if (srdma_networks_contain(&networks, &wanted) != cases[i].contained)
			fail_msg("%s in '%s'", cases[i].address, cases[i].networks);
		srdma_networks_clear(&networks);
	}
}

/* ---- addresses ------------------------------------------------------------------------------------------------- */

static struct sockaddr_storage address_of(const char *text, uint16_t port)
{
	struct sockaddr_storage storage = {0};
	struct sockaddr_in *v4 = (struct sockaddr_in *)&storage;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&storage;

	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
	} else {
		assert_int_equal(inet_pton(AF_INET6, text, &v6->sin6_addr), 1);
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(port);
	}
	return storage;
}

TEST(gid_of_an_address_is_its_ipv6_form)
{
	static const struct {
		const char *address, *gid;
	} cases[] = {
		{"192.0.2.1", "::ffff:192.0.2.1"},    {"::ffff:192.0.2.1", "::ffff:192.0.2.1"},
		{"0.0.0.0", "::ffff:0.0.0.0"},        {"fe80::1", "fe80::1"},
		{"2001:db8::ffff", "2001:db8::ffff"},
	};
	struct sockaddr other = {.sa_family = AF_UNIX};
	union ibv_gid untouched;

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct sockaddr_storage address = address_of(cases[i].address, 1);
		union ibv_gid got, want;

		memset(&got, 0xa5, sizeof got);
		assert_int_equal(inet_pton(AF_INET6, cases[i].gid, want.raw), 1);
		assert_true(srdma_net_gid_of((struct sockaddr *)&address, &got));
		assert_memory_equal(&got, &want, sizeof got);
	}
	assert_false(srdma_net_gid_of(&other, &untouched));
}

TEST(loopback_is_told_from_other_addresses)
{
	static const struct {
		const char *address;
		bool loopback;
	} cases[] = {
		{"127.0.0.1", true},  {"127.255.255.254", true},  {"::1", true},      {"::ffff:127.0.0.1", true},
		{"128.0.0.1", false}, {"126.255.255.255", false}, {"0.0.0.0", false}, {"::127.0.0.1", false},
		{"::", false},        {"::2", false},             {"fe80::1", false},
	};
	struct sockaddr local = {.sa_family = AF_UNIX};

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct sockaddr_storage address = address_of(cases[i].address, 0);

		if (srdma_net_is_loopback((struct sockaddr *)&address) != cases[i].loopback)
			fail_msg("%s", cases[i].address);
	}
	assert_false(srdma_net_is_loopback(&local));
}

TEST(address_text_has_the_port_and_brackets)
{
	static const struct {
		const char *address, *text;
		uint16_t port;
	} cases[] = {
		{"10.0.0.1", "10.0.0.1:4433", 4433},
		{"fd00::1", "[fd00::1]:4433", 4433},
		{"::ffff:10.0.0.1", "10.0.0.1:65535", 65535},
		{"::", "[::]:0", 0},
	};
	struct sockaddr other = {.sa_family = AF_UNIX};
	char text[64];

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct sockaddr_storage address = address_of(cases[i].address, cases[i].port);

		srdma_net_format((struct sockaddr *)&address, text, sizeof text);
		assert_string_equal(text, cases[i].text);
	}
	srdma_net_format(&other, text, sizeof text);
	assert_string_equal(text, "unknown");
	/* Short of room it is cut, not overrun. */
	struct sockaddr_storage address = address_of("10.0.0.1", 4433);
	srdma_net_format((struct sockaddr *)&address, text, 5);
	assert_string_equal(text, "10.0");
}

/* ---- sockets --------------------------------------------------------------------------------------------------- */

static uint16_t port_of(int fd)
{
	struct sockaddr_storage address;
	socklen_t length = sizeof address;

	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
	return ntohs(address.ss_family == AF_INET ? ((struct sockaddr_in *)&address)->sin_port
						  : ((struct sockaddr_in6 *)&address)->sin6_port);
}

static int listen_on_loopback(char port[8])
{
	int fd = -1;

	assert_int_equal(srdma_net_listen("127.0.0.1", "0", &fd), 0);
	snprintf(port, 8, "%u", port_of(fd));
	return fd;
}

static int option(int fd, int level, int name)
{
	int value = -1;
	socklen_t length = sizeof value;

	assert_int_equal(getsockopt(fd, level, name, &value, &length), 0);
	return value;
}

TEST(connected_socket_is_ready_for_use)
{
	char port[8];
	int listener = listen_on_loopback(port), fd = -1, accepted;

	assert_int_equal(dial_to("127.0.0.1", port, srdma_deadline(5000), &fd), 0);
	assert_int_equal(srdma_net_wait(listener, POLLIN, srdma_deadline(5000)), 0);
	accepted = accept4(listener, NULL, NULL, 0);
	assert_true(accepted >= 0);
	assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_true(fcntl(listener, F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(listener, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(option(fd, IPPROTO_TCP, TCP_NODELAY), 1);
	assert_int_equal(option(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
	/* A vanished peer is found within a quarter of a minute, whether or not data is on its way. */
	assert_true(option(fd, IPPROTO_TCP, TCP_KEEPIDLE) +
			    option(fd, IPPROTO_TCP, TCP_KEEPINTVL) * option(fd, IPPROTO_TCP, TCP_KEEPCNT) <=
		    15);
	assert_uint_in_range(option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT), 1, 15000);
	close(accepted);
	close(fd);
	close(listener);
}

TEST(port_in_use_is_refused_with_advice)
{
	char port[8];
	int first = listen_on_loopback(port), second = -1;

	assert_int_equal(srdma_net_listen("127.0.0.1", port, &second), -EADDRINUSE);
	assert_int_equal(second, -1);
	assert_error_says(port);
	assert_error_says("127.0.0.1");
	assert_error_says("choose another port");
	/* Also for "all addresses", IPv6 first. */
	assert_int_equal(srdma_net_listen(NULL, port, &second), -EADDRINUSE);
	assert_error_says("choose another port");
	close(first);
	assert_int_equal(srdma_net_listen("127.0.0.1", port, &second), 0);
	close(second);
}

TEST(address_of_another_host_cannot_be_listened_on)
{
	int fd = -1;

	assert_int_equal(srdma_net_listen("192.0.2.1", "0", &fd), -EADDRNOTAVAIL);
	assert_error_says("192.0.2.1");
	assert_error_says("no network interface of this machine has that address");
	assert_null(strstr(srdma_error_text(), "another program"));
	assert_int_equal(fd, -1);
}

TEST(listening_on_all_addresses_serves_ipv4)
{
	char port[8];
	int listener = -1, fd = -1;

	assert_int_equal(srdma_net_listen(NULL, "0", &listener), 0);
	snprintf(port, sizeof port, "%u", port_of(listener));
	assert_int_equal(dial_to("127.0.0.1", port, srdma_deadline(5000), &fd), 0);
	close(fd);
	close(listener);
}

TEST(refused_connection_is_told_at_once)
{
	char port[8];
	int fd = -1, closed = listen_on_loopback(port);
	uint64_t start = srdma_clock_us();

	close(closed);
	assert_int_equal(dial_to("127.0.0.1", port, srdma_deadline(30000), &fd), -ECONNREFUSED);
	assert_true(srdma_clock_us() - start < 5 * SECOND_US);
	assert_error_says(port);
	assert_error_says("check that the server runs there");
	assert_int_equal(fd, -1);
}

/* The resolver would take the first one for 4464, the second for 65535. */
TEST(bad_port_is_refused)
{
	static const char *const bad[] = {"70000", "-1", "65536", "99999999999999999999", "banana", "no-such-service", "", " 80", "+80",
					  "80 ", "0x50", "4433/tcp", "*"};
	char text[128];
	int fd = -1;

	for (size_t i = 0; i < COUNT(bad); i++) {
		if (dial_to("127.0.0.1", bad[i], srdma_deadline(20000), &fd) != -EINVAL)
			fail_msg("'%s' was taken as a port to connect to: %s", bad[i], srdma_error_text());
		snprintf(text, sizeof text, "'%s' is not a port; give a number from 1 to 65535", bad[i]);
		assert_error_says(text);
		if (srdma_net_listen("127.0.0.1", bad[i], &fd) != -EINVAL)
			fail_msg("'%s' was taken as a port to listen on: %s", bad[i], srdma_error_text());
		snprintf(text, sizeof text, "'%s' is not a port; give a number from 0 to 65535", bad[i]);
		assert_error_says(text);
		/* All addresses: there is no name to look up. */
		assert_int_equal(srdma_net_listen(NULL, bad[i], &fd), -EINVAL);
	}
	/* Any free one can be listened on, but not connected to. */
	assert_int_equal(dial_to("127.0.0.1", "0", srdma_deadline(20000), &fd), -EINVAL);
	assert_int_equal(dial_to("", "4433", srdma_deadline(20000), &fd), -EINVAL);
	assert_int_equal(fd, -1);
}

/* ---- hosts with several addresses ------------------------------------------------------------------------------ */

#define WAITING 8

/* A listener whose queue is full drops the SYN: the closest that loopback comes to a host that does not answer. */
struct dead {
	int listener, waiting[WAITING];
};

static struct dead make_dead(const char *text, uint16_t *port)
{
	struct sockaddr_storage address = address_of(text, *port);
	struct dead dead = {.listener = socket(address.ss_family, SOCK_STREAM, 0)};
	socklen_t size = address.ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);

	assert_int_equal(bind(dead.listener, (struct sockaddr *)&address, size), 0);
	assert_int_equal(listen(dead.listener, 0), 0);
	*port = port_of(dead.listener);
	address = address_of(text, *port);
	for (size_t i = 0; i < WAITING; i++) {
		dead.waiting[i] = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
		(void)!connect(dead.waiting[i], (struct sockaddr *)&address, size);
	}
	return dead;
}

static void clear_dead(struct dead *dead)
{
	for (size_t i = 0; i < WAITING; i++)
		close(dead->waiting[i]);
	close(dead->listener);
}

/* The addresses of the names in these tests. A lookup of slow.test lasts until the test writes to `slow_fd`. */
static const char *const *names_addresses;
static int slow_fd = -1;
static atomic_int slow_ended;
static atomic_int lists; /* that are not freed */

int __real_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **list);
void __real_freeaddrinfo(struct addrinfo *list);

/* The real lists of the addresses, one behind the other. */
static int list_of_all(const char *port, struct addrinfo **list)
{
	const struct addrinfo numeric = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM};

	for (size_t i = 0; names_addresses[i]; i++, list = &(*list)->ai_next)
		if (__real_getaddrinfo(names_addresses[i], port, &numeric, list) != 0)
			abort();
	return 0;
}

int __wrap_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **list)
{
	bool slow = host && strcmp(host, "slow.test") == 0;
	eventfd_t count;
	int ret;

	if (host && strcmp(host, "unknown.test") == 0)
		return EAI_NONAME;
	if (host && strcmp(host, "silent.test") == 0)
		return EAI_AGAIN;
	if (slow && !(hints->ai_flags & AI_NUMERICHOST) && eventfd_read(slow_fd, &count) != 0)
		abort();
	if (!host || (hints->ai_flags & AI_NUMERICHOST) || !strstr(host, ".test"))
		ret = __real_getaddrinfo(host, port, hints, list);
	else
		ret = list_of_all(port, list);
	lists += ret == 0;
	slow_ended += slow && ret == 0;
	return ret;
}

void __wrap_freeaddrinfo(struct addrinfo *list)
{
	lists--;
	__real_freeaddrinfo(list);
}

TEST(connect_gives_up_at_its_deadline)
{
	uint16_t number = 0;
	struct dead dead = make_dead("127.0.0.1", &number);
	uint64_t start, took;
	const char *words;
	char port[8];
	int fd = -1, ms = 0;

	snprintf(port, sizeof port, "%u", number);
	start = srdma_clock_us();
	assert_int_equal(dial_to("127.0.0.1", port, srdma_deadline(200), &fd), -ETIMEDOUT);
	took = srdma_clock_us() - start;
	assert_uint_in_range(took, SECOND_US / 5, 15 * SECOND_US);
	/* The rest of the 200 ms when the attempt began. */
	words = strstr(srdma_error_text(), "no answer within ");
	assert_non_null(words);
	assert_int_equal(sscanf(words, "no answer within %d ms", &ms), 1);
	assert_uint_in_range(ms, 1, 200);
	assert_int_equal(fd, -1);
	clear_dead(&dead);
}

/* Three dead addresses, and one where a listener is. */
struct crowd {
	struct dead dead[3];
	int listener;
	char port[8];
};

static struct crowd make_crowd(const char *alive)
{
	static const char *const addresses[] = {"127.0.0.1", "127.0.0.3", "127.0.0.4"};
	struct crowd crowd;
	uint16_t number = 0;

	for (size_t i = 0; i < 3; i++)
		crowd.dead[i] = make_dead(addresses[i], &number);
	snprintf(crowd.port, sizeof crowd.port, "%u", number);
	assert_int_equal(srdma_net_listen(alive, crowd.port, &crowd.listener), 0);
	return crowd;
}

static void clear_crowd(struct crowd *crowd)
{
	close(crowd->listener);
	for (size_t i = 0; i < 3; i++)
		clear_dead(&crowd->dead[i]);
}

/* The peer's address with this descriptor, which is closed. */
static struct sockaddr_storage leave_peer(int fd)
{
	struct sockaddr_storage peer;
	socklen_t size = sizeof peer;

	assert_int_equal(getpeername(fd, (struct sockaddr *)&peer, &size), 0);
	close(fd);
	return peer;
}

/* Whatever the number of dead ones before it, and in less than the deadline. */
TEST(dead_address_does_not_use_up_the_deadline)
{
	static const char *const addresses[] = {"127.0.0.1", "127.0.0.3", "127.0.0.4", "127.0.0.2", NULL};
	struct crowd crowd = make_crowd("127.0.0.2");
	struct sockaddr_storage peer;
	uint64_t start = srdma_clock_us();
	int fd = -1;

	names_addresses = addresses;
	assert_int_equal(dial_to("several.test", crowd.port, srdma_deadline(60000), &fd), 0);
	assert_true(srdma_clock_us() - start < 30 * SECOND_US);
	peer = leave_peer(fd);
	assert_int_equal(ntohl(((struct sockaddr_in *)&peer)->sin_addr.s_addr), 0x7f000002);
	/* All have their turn within a deadline that is shorter than the pauses are. A busy machine may miss it now and then. */
	for (int tries = 0; tries < 20 && dial_to("several.test", crowd.port, srdma_deadline(600), &fd) != 0; tries++)
		fd = -1;
	assert_true(fd >= 0);
	close(fd);
	clear_crowd(&crowd);
	assert_int_equal(lists, 0);
}

/* An end does not try all addresses of a family that has no route before it tries the other family. */
TEST(families_take_turns)
{
	static const char *const addresses[] = {"127.0.0.1", "127.0.0.3", "127.0.0.4", "::1", NULL};
	static const char *const order[] = {"127.0.0.1:", "[::1]:", "127.0.0.3:", "127.0.0.4:"};
	struct crowd crowd = make_crowd("::1");
	const char *at;
	int fd = -1;

	names_addresses = addresses;
	assert_int_equal(dial_to("several.test", crowd.port, srdma_deadline(60000), &fd), 0);
	assert_int_equal(leave_peer(fd).ss_family, AF_INET6);
	clear_crowd(&crowd);
	/* The error tells in which order they were tried. */
	assert_int_equal(dial_to("several.test", crowd.port, srdma_deadline(60000), &fd), -ECONNREFUSED);
	assert_error_says("several.test");
	at = srdma_error_text();
	for (size_t i = 0; i < COUNT(order); i++) {
		at = strstr(at, order[i]);
		if (!at)
			fail_msg("'%s' does not have %s in its place", srdma_error_text(), order[i]);
	}
	assert_text_says(strstr(srdma_error_text(), "[::1]:"), "Connection refused");
}

TEST(refusals_of_all_addresses_are_told_at_once)
{
	static const char *const addresses[] = {"127.0.0.1", "127.0.0.2", "::1", NULL};
	char port[8];
	int fd = -1, closed = listen_on_loopback(port);
	uint64_t start = srdma_clock_us();

	close(closed);
	names_addresses = addresses;
	assert_int_equal(dial_to("several.test", port, srdma_deadline(60000), &fd), -ECONNREFUSED);
	assert_true(srdma_clock_us() - start < 30 * SECOND_US);
	for (size_t i = 0; addresses[i]; i++)
		assert_error_says(addresses[i]);
	assert_int_equal(lists, 0);
}

/* ---- lookups --------------------------------------------------------------------------------------------------- */

TEST(failed_lookup_is_explained)
{
	static const struct {
		bool listen; /* else connect */
		const char *host;
		int error;
		const char *words;
	} cases[] = {
		{false, "unknown.test", -EHOSTUNREACH, "cannot find a host named 'unknown.test'"},
		{false, "silent.test", -EHOSTUNREACH, "silent.test: the name servers gave no answer"},
		/* No name has a blank in it, so no name server is asked. */
		{false, "no such host", -EHOSTUNREACH, "no such host"},
		{true, "unknown.test", -EINVAL, "'unknown.test' is not an address to listen on"},
		{true, "not an address", -EINVAL, "'not an address' is not an address to listen on"},
	};
	int fd = -1;

	for (size_t i = 0; i < COUNT(cases); i++) {
		const char *host = cases[i].host;
		int error = cases[i].listen ? srdma_net_listen(host, "0", &fd) : dial_to(host, "4433", srdma_deadline(20000), &fd);

		assert_int_equal(error, cases[i].error);
		assert_error_says(cases[i].words);
		assert_int_equal(fd, -1);
	}
}

/* Name servers that don't answer hold a lookup for many times as long as a caller may wait. The library frees an
 * abandoned lookup when the resolver returns, and starts no more while too many are abandoned. */
TEST(lookup_ends_at_the_deadline)
{
	static const char *const addresses[] = {"127.0.0.1", NULL};
	enum { MANY = 16 };
	uint64_t start = srdma_clock_us();
	int fd = -1;

	slow_fd = eventfd(0, EFD_SEMAPHORE);
	names_addresses = addresses;
	for (int i = 0; i < MANY; i++) {
		assert_int_equal(dial_to("slow.test", "4433", srdma_deadline(20), &fd), -ETIMEDOUT);
		assert_error_says("timed out after 20 ms waiting for the name servers to look up slow.test");
	}
	assert_int_equal(dial_to("slow.test", "4433", srdma_deadline(60000), &fd), -ETIMEDOUT);
	assert_error_says("have not answered 16 earlier lookups");
	assert_true(srdma_clock_us() - start < 30 * SECOND_US);
	assert_int_equal(eventfd_write(slow_fd, MANY), 0);
	while (slow_ended < MANY || lists > 0) {
		assert_true(srdma_clock_us() - start < 60 * SECOND_US);
		poll(NULL, 0, 5);
	}
	/* Now there is room again. */
	assert_int_equal(eventfd_write(slow_fd, 1), 0);
	do {
		fd = -1;
		(void)dial_to("slow.test", "1", srdma_deadline(20000), &fd);
		assert_int_equal(fd, -1);
	} while (strstr(srdma_error_text(), "earlier lookups"));
	assert_error_says("127.0.0.1:1");
	close(slow_fd);
}

/* ---- waiting --------------------------------------------------------------------------------------------------- */

TEST(wait_ends_when_ready_or_late)
{
	int fd = eventfd(0, EFD_NONBLOCK);
	uint64_t start = srdma_clock_us();

	assert_int_equal(srdma_net_wait(fd, POLLOUT, srdma_deadline(1000)), 0);
	assert_int_equal(srdma_net_wait(fd, POLLIN, srdma_deadline(50)), -ETIMEDOUT);
	assert_true(srdma_clock_us() - start >= SECOND_US / 20);
	/* With a deadline in the past it still sees an event that is there. */
	assert_int_equal(eventfd_write(fd, 1), 0);
	assert_int_equal(srdma_net_wait(fd, POLLIN, 0), 0);
	close(fd);
}

RUN_TESTS(NULL, NULL)
