/* SPDX-License-Identifier: Apache-2.0 */
/* Counters as text and as JSON. */
#include "cli.h"

#include <inttypes.h>

static uint64_t load(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

void print_counters(FILE *out, const struct counters *counters)
{
	bool any = false;

#define X(name, text) \
	if (load(&counters->name)) { \
		fprintf(out, "%-20s %16" PRIu64 "  %s\n", #name, load(&counters->name), text); \
		any = true; \
	}
	COUNTERS(X)
#undef X
	if (!any)
		fputs("all counters are zero\n", out);
}

void print_counters_json(FILE *out, const struct counters *counters)
{
	const char *comma = "";

	fputc('{', out);
#define X(name, text) \
	fprintf(out, "%s\"%s\": %" PRIu64, comma, #name, load(&counters->name)); \
	comma = ", ";
	COUNTERS(X)
#undef X
	fputs("}\n", out);
}
