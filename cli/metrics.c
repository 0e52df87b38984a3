/* SPDX-License-Identifier: Apache-2.0 */
#include "metrics.h"

#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define CONNECTIONS    128 /* at once; more wait to be accepted */
#define IDLE_SECONDS   5   /* until a connection that says nothing is closed */
#define MEMORY         8192 /* for a connection: its request's line and headers */
#define LOOPBACK       "127.0.0.1"
#define FDS_BESIDES    8

struct metrics {
	int socket; /* -1: the daemon's */
	uint16_t port;
	struct MHD_Daemon *daemon;
	struct metrics_source source;
};

/* Splits in place. Returns false when it has no such form. */
static bool split(char *where, const char **address, const char **port)
{
	char *colon = strrchr(where, ':');

	*port = colon ? colon + 1 : where;
	*address = colon && colon != where ? where : LOOPBACK;
	if (colon)
		*colon = '\0';
	if (colon && where[0] == '[') {
		if (colon[-1] != ']')
			return false;
		colon[-1] = '\0';
		*address = where + 1;
	} else if (colon && strchr(where, ':')) {
		return false;
	}
	return **port != '\0' && **address != '\0' && strlen(*port) <= 5 && strspn(*port, "0123456789") == strlen(*port) &&
	       atoi(*port) <= UINT16_MAX;
}

/* The daemon closes its socket, so it gets a duplicate. */
static int listen_on(const char *address, const char *port, struct metrics *metrics)
{
	struct srdma_listener *listener = NULL;
	int ret = srdma_listener_listen(address, port, &listener);

	if (ret < 0)
		return cli_failed(CLI_EXIT_FAILED, "metrics: %s", srdma_error_text());
	metrics->port = srdma_listener_port(listener);
	metrics->socket = fcntl(srdma_listener_fd(listener), F_DUPFD_CLOEXEC, 0);
	ret = errno;
	srdma_listener_free(&listener);
	if (metrics->socket < 0)
		return cli_failed(CLI_EXIT_FAILED, "metrics: cannot duplicate the listening socket: %s", strerror(ret));
	return CLI_EXIT_OK;
}

int metrics_listen(const char *command, const char *where, struct metrics **out)
{
	struct metrics *metrics = calloc(1, sizeof *metrics);
	char *copy = strdup(where);
	const char *address, *port;
	int code = CLI_EXIT_FAILED;

	if (!metrics || !copy)
		cli_error("metrics: out of memory");
	else if (!split(copy, &address, &port))
		code = cli_usage(command, "--metrics: '%s' is not valid; give ADDRESS:PORT, [ADDRESS]:PORT or PORT (on %s)", where,
				 LOOPBACK);
	else
		code = listen_on(address, port, metrics);
	free(copy);
	if (code == CLI_EXIT_OK)
		*out = metrics;
	else
		free(metrics);
	return code;
}

uint16_t metrics_port(const struct metrics *metrics)
{
	return metrics->port;
}

static char *make_text(const struct metrics_source *source, size_t *size)
{
	char *text = NULL;
	FILE *file = open_memstream(&text, size);
	bool made = file && source->print(source->arg, file);

	/* Out of memory shows here. */
	if (file && (fclose(file) != 0 || !made)) {
		free(text);
		text = NULL;
	}
	return text;
}

static enum MHD_Result reply(struct MHD_Connection *connection, unsigned status, char *text, size_t size,
			     enum MHD_ResponseMemoryMode mode, const char *type)
{
	struct MHD_Response *response = MHD_create_response_from_buffer(size, text, mode);
	enum MHD_Result result;

	if (!response) {
		if (mode == MHD_RESPMEM_MUST_FREE)
			free(text);
		return MHD_NO;
	}
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	/* A scraper comes again in many seconds; its place is for others until then. */
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
	if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
		MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, MHD_HTTP_METHOD_GET ", " MHD_HTTP_METHOD_HEAD);
	result = MHD_queue_response(connection, status, response);
	MHD_destroy_response(response);
	return result;
}

/* A sentence and no more. */
static enum MHD_Result tell(struct MHD_Connection *connection, unsigned status, char *text)
{
	return reply(connection, status, text, strlen(text), MHD_RESPMEM_MUST_COPY, "text/plain; charset=utf-8");
}

/* Whether a balancer should send new clients here. */
static enum MHD_Result tell_readiness(struct MHD_Connection *connection, const struct metrics_source *source)
{
	static char is_ready[] = "ready\n";
	char text[64];
	const char *problem = source->problem(source->arg);

	if (!problem)
		return tell(connection, MHD_HTTP_OK, is_ready);
	snprintf(text, sizeof text, "%s\n", problem);
	return tell(connection, MHD_HTTP_SERVICE_UNAVAILABLE, text);
}

static enum MHD_Result answer(void *arg, struct MHD_Connection *connection, const char *url, const char *method,
			      const char *version, const char *upload, size_t *upload_size, void **seen)
{
	static char not_found[] = "not found; the paths are /metrics and /ready\n", not_allowed[] = "only GET and HEAD are allowed\n",
		    no_memory[] = "out of memory\n";
	struct metrics *metrics = arg;
	bool ready = strcmp(url, "/ready") == 0;
	size_t size = 0;
	char *text;

	(void)version;
	(void)upload;
	if (!ready && strcmp(url, "/metrics") != 0)
		return tell(connection, MHD_HTTP_NOT_FOUND, not_found);
	/* libmicrohttpd answers HEAD as GET, and leaves the body out. */
	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
		return tell(connection, MHD_HTTP_METHOD_NOT_ALLOWED, not_allowed);
	/* The first call is for the headers alone; a body that should not be there is passed over. */
	if (!*seen || *upload_size > 0) {
		*seen = metrics;
		*upload_size = 0;
		return MHD_YES;
	}
	if (ready)
		return tell_readiness(connection, &metrics->source);
	text = make_text(&metrics->source, &size);
	if (!text)
		return tell(connection, MHD_HTTP_INTERNAL_SERVER_ERROR, no_memory);
	return reply(connection, MHD_HTTP_OK, text, size, MHD_RESPMEM_MUST_FREE, "text/plain; version=0.0.4; charset=utf-8");
}

/* The server has reserved the descriptors of its clients: scrapers use more, as far as the limit allows. */
static void raise_descriptors(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max)
		return;
	limit.rlim_cur += CONNECTIONS + FDS_BESIDES;
	if (limit.rlim_cur > limit.rlim_max)
		limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
		cli_log(SRDMA_LOG_WARN, "metrics: cannot raise the limit of file descriptors: %s", strerror(errno));
}

int metrics_serve(struct metrics *metrics, const struct metrics_source *source)
{
	metrics->source = *source;
	raise_descriptors();
	metrics->daemon = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD, 0, NULL, NULL, answer, metrics,
					   MHD_OPTION_LISTEN_SOCKET, metrics->socket, MHD_OPTION_CONNECTION_LIMIT,
					   (unsigned)CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_SECONDS,
					   MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)MEMORY, MHD_OPTION_END);
	if (!metrics->daemon)
		return cli_failed(CLI_EXIT_FAILED, "metrics: cannot start the HTTP server: %s", strerror(errno));
	metrics->socket = -1;
	return CLI_EXIT_OK;
}

void metrics_stop(struct metrics **out)
{
	struct metrics *metrics = *out;

	*out = NULL;
	if (!metrics)
		return;
	if (metrics->daemon)
		MHD_stop_daemon(metrics->daemon);
	if (metrics->socket >= 0)
		close(metrics->socket);
	free(metrics);
}
