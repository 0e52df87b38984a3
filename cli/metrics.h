/* SPDX-License-Identifier: Apache-2.0 */
/* The counters of a server or of an agent for Prometheus, over HTTP. */
#ifndef CLI_METRICS_H
#define CLI_METRICS_H

#include "securdma_server.h"

#include <stdbool.h>
#include <stdio.h>

struct metrics;

/* What is told. Its functions run in a thread of the metrics' own. */
struct metrics_source {
	bool (*print)(void *arg, FILE *file); /* false: out of memory */
	const char *(*problem)(void *arg);    /* why it is not ready, static; NULL: it is */
	void *arg;
};

/* Listens on "ADDRESS:PORT", "[ADDRESS]:PORT", ":PORT" or "PORT"; on the loopback address when none is given, on any free
 * port when it is 0. Reports errors itself, as those of `command`, and returns an exit code. It answers nobody yet. */
int metrics_listen(const char *command, const char *where, struct metrics **out);
uint16_t metrics_port(const struct metrics *metrics);
/* Answers requests, in a thread of its own, until metrics_stop; the source must live as long. Returns an exit code. */
int metrics_serve(struct metrics *metrics, const struct metrics_source *source);
/* NULL is accepted. */
void metrics_stop(struct metrics **metrics);

/* metrics_text.c: a server's, in Prometheus' text format 0.0.4. */
void metrics_of_server(struct srdma_server *server, struct metrics_source *source);

#endif
