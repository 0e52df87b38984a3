/* SPDX-License-Identifier: Apache-2.0 */
/* A server's counters for Prometheus, over HTTP. */
#ifndef CLI_METRICS_H
#define CLI_METRICS_H

#include "securdma_server.h"

#include <stdio.h>

struct metrics;

/* Listens on "ADDRESS:PORT", "[ADDRESS]:PORT", ":PORT" or "PORT"; on the loopback address when none is given, on any free
 * port when it is 0. Reports errors itself and returns an exit code. It answers nobody yet. */
int metrics_listen(const char *where, struct metrics **out);
uint16_t metrics_port(const struct metrics *metrics);
/* What is printed behind the server's own; `arg` must live as long. */
void metrics_add(struct metrics *metrics, void (*print)(void *arg, FILE *file), void *arg);
/* Answers requests, in a thread of its own, until metrics_stop; the server must live as long. Returns an exit code. */
int metrics_serve(struct metrics *metrics, struct srdma_server *server);
/* NULL is accepted. */
void metrics_stop(struct metrics **metrics);

/* metrics_text.c: writes Prometheus' text format 0.0.4. */
void metrics_print(const struct srdma_server_metrics *m, FILE *file);

#endif
