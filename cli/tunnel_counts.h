/* SPDX-License-Identifier: Apache-2.0 */
/* What a server's tunnels have done, for each target, since the start: also for targets that a reload has taken away. */
#ifndef CLI_TUNNEL_COUNTS_H
#define CLI_TUNNEL_COUNTS_H

#include "tunnel_targets.h"

#include <jansson.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>

struct tunnel_count {
	struct tunnel_count *next;
	char name[TUNNEL_NAME_MAX + 1];
	atomic_uint_fast64_t open;     /* TCP connections to the target now */
	atomic_uint_fast64_t total;    /* that there were */
	atomic_uint_fast64_t refused;  /* clients that may not use it */
	atomic_uint_fast64_t failed;   /* to which the target did not answer */
	atomic_uint_fast64_t to_target, from_target; /* bytes */
};

/* The owner's lock guards the list; nothing is taken out of it before the end. */
struct tunnel_counts {
	struct tunnel_count *first;
	uint64_t unknown; /* clients that asked for a target that there is not */
};

/* That of a target, made if it is missing. NULL: out of memory. */
struct tunnel_count *tunnel_counts_get(struct tunnel_counts *counts, const char *name);
/* In Prometheus' text format. */
void tunnel_counts_print(const struct tunnel_counts *counts, FILE *file);
/* An array with an object for each target. NULL: out of memory. */
json_t *tunnel_counts_json(const struct tunnel_counts *counts);
void tunnel_counts_free(struct tunnel_counts *counts);

#endif
