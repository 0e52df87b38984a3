/* SPDX-License-Identifier: Apache-2.0 */
#include "service_manager.h"

#include "cli.h"
#include "systemd.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#ifdef HAVE_SYSTEMD
#define WITHOUT_SYSTEMD ""
#else
#define WITHOUT_SYSTEMD "; this securdma was built without libsystemd"
#endif

union address {
	struct sockaddr any;
	struct sockaddr_in ipv4;
	struct sockaddr_in6 ipv6;
	struct sockaddr_storage room;
};

static in_port_t port_of(const struct sockaddr *address)
{
	return address->sa_family == AF_INET6 ? ((const struct sockaddr_in6 *)address)->sin6_port
					      : ((const struct sockaddr_in *)address)->sin_port;
}

static bool is_same_host(const struct sockaddr *a, const struct sockaddr *b)
{
	if (a->sa_family != b->sa_family)
		return false;
	if (a->sa_family == AF_INET)
		return ((const struct sockaddr_in *)a)->sin_addr.s_addr == ((const struct sockaddr_in *)b)->sin_addr.s_addr;
	return IN6_ARE_ADDR_EQUAL(&((const struct sockaddr_in6 *)a)->sin6_addr, &((const struct sockaddr_in6 *)b)->sin6_addr);
}

static void format(const union address *address, char *text, size_t size)
{
	char host[INET6_ADDRSTRLEN] = "";

	if (address->any.sa_family == AF_INET6)
		inet_ntop(AF_INET6, &address->ipv6.sin6_addr, host, sizeof host);
	else
		inet_ntop(AF_INET, &address->ipv4.sin_addr, host, sizeof host);
	snprintf(text, size, address->any.sa_family == AF_INET6 ? "[%s]:%u" : "%s:%u", host, ntohs(port_of(&address->any)));
}

/* Whether the settings say something else: they name an address, or a port, and it is not this socket's. */
static int check_settings(const struct settings *settings, const union address *address, const char *where)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
	const char *port = settings->listen_port_said ? settings->server.port : NULL;
	bool same_host = !settings->server.address, same_port = !port;
	struct addrinfo *list = NULL;
	int error;

	if (same_host && same_port)
		return CLI_EXIT_OK;
	error = getaddrinfo(settings->server.address, port ? port : SRDMA_DEFAULT_PORT, &hints, &list);
	if (error != 0)
		return cli_failed(CLI_EXIT_USAGE, "cannot find the address %s port %s to listen on: %s",
				  settings->server.address ? settings->server.address : "*", settings->server.port, gai_strerror(error));
	for (const struct addrinfo *ai = list; ai; ai = ai->ai_next) {
		if (ai->ai_family != AF_INET && ai->ai_family != AF_INET6)
			continue;
		same_host |= is_same_host(ai->ai_addr, &address->any);
		same_port |= port_of(ai->ai_addr) == 0 || port_of(ai->ai_addr) == port_of(&address->any);
	}
	freeaddrinfo(list);
	if (same_host && same_port)
		return CLI_EXIT_OK;
	return cli_failed(
		CLI_EXIT_USAGE,
		"the service manager hands over a socket that listens on %s, but the settings say %s %s; remove '%s' from the settings, or "
		"change ListenStream= in the socket unit",
		where, same_host ? "port" : "address", same_host ? port : settings->server.address, same_host ? "port" : "address");
}

static int check_socket(const struct settings *settings, int fd)
{
	union address address = {.any = {.sa_family = AF_UNSPEC}};
	socklen_t length = sizeof address, size = sizeof(int);
	int listens = 0, protocol = 0;
	char where[80];

	if (getsockname(fd, &address.any, &length) != 0 || (address.any.sa_family != AF_INET && address.any.sa_family != AF_INET6) ||
	    getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) != 0 || protocol != IPPROTO_TCP ||
	    getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) != 0 || !listens) {
		return cli_failed(
			CLI_EXIT_USAGE,
			"the service manager hands over descriptor %d, which is not a listening TCP socket; a socket unit for securdma has "
			"ListenStream= with a port or an IP address and a port, and Accept=no",
			fd);
	}
	format(&address, where, sizeof where);
	return check_settings(settings, &address, where);
}

int service_manager_sockets(const struct settings *settings, int **fds, unsigned *count)
{
	int n = sd_listen_fds(1), code = CLI_EXIT_OK;

	*fds = NULL;
	*count = 0;
	if (n < 0)
		return cli_failed(CLI_EXIT_FAILED, "cannot take the sockets of the service manager: %s" WITHOUT_SYSTEMD, strerror(-n));
	if (n == 0)
		return CLI_EXIT_OK;
	*fds = calloc((size_t)n, sizeof **fds);
	if (!*fds)
		return cli_fail(-ENOMEM, "sockets");
	for (int i = 0; i < n && code == CLI_EXIT_OK; i++) {
		(*fds)[i] = SD_LISTEN_FDS_START + i;
		code = check_socket(settings, (*fds)[i]);
	}
	if (code == CLI_EXIT_OK)
		*count = (unsigned)n;
	return code;
}

void service_manager_tell(const char *format, ...)
{
	static bool failed; /* and that was said */
	char text[1024];
	va_list args;
	int ret;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	ret = sd_notify(0, text);
	if (ret < 0 && !failed)
		cli_error("cannot report the server's state to the service manager: %s" WITHOUT_SYSTEMD, strerror(-ret));
	failed = ret < 0;
}

void service_manager_live(void)
{
	uint64_t us;

	if (sd_watchdog_enabled(0, &us) > 0)
		service_manager_tell("WATCHDOG=1");
}

int service_manager_interval(int most)
{
	uint64_t us;
	int half;

	if (sd_watchdog_enabled(0, &us) <= 0)
		return most;
	/* Twice in the time that it allows. */
	half = us >= 2000000000 ? 1000000 : (int)(us / 2000);
	return half < 1 ? 1 : half < most ? half : most;
}
