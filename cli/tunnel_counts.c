/* SPDX-License-Identifier: Apache-2.0 */
#include "tunnel_counts.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct tunnel_count *tunnel_counts_get(struct tunnel_counts *counts, const char *name)
{
	struct tunnel_count **at = &counts->first;

	while (*at && strcmp((*at)->name, name) != 0)
		at = &(*at)->next;
	if (!*at) {
		*at = calloc(1, sizeof **at);
		if (*at)
			snprintf((*at)->name, sizeof (*at)->name, "%s", name);
	}
	return *at;
}

static void family(FILE *file, const char *name, const char *type, const char *help)
{
	fprintf(file, "# HELP securdma_tunnel_%s %s\n# TYPE securdma_tunnel_%s %s\n", name, help, name, type);
}

/* One value for each target. A target's name has no character that would have to be escaped. */
static void print_all(const struct tunnel_counts *counts, FILE *file, const char *name, const char *label, size_t offset)
{
	for (const struct tunnel_count *count = counts->first; count; count = count->next) {
		const atomic_uint_fast64_t *value = (const void *)((const char *)count + offset);

		fprintf(file, "securdma_tunnel_%s{target=\"%s\"%s} %" PRIuFAST64 "\n", name, count->name, label, atomic_load(value));
	}
}

void tunnel_counts_print(const struct tunnel_counts *counts, FILE *file)
{
	family(file, "connections", "gauge", "TCP connections to the target now.");
	print_all(counts, file, "connections", "", offsetof(struct tunnel_count, open));
	family(file, "connections_total", "counter", "TCP connections to the target since the start.");
	print_all(counts, file, "connections_total", "", offsetof(struct tunnel_count, total));
	family(file, "refused_total", "counter", "Clients that may not use the target.");
	print_all(counts, file, "refused_total", "", offsetof(struct tunnel_count, refused));
	family(file, "failed_total", "counter", "Tunnels whose target did not answer.");
	print_all(counts, file, "failed_total", "", offsetof(struct tunnel_count, failed));
	family(file, "bytes_total", "counter", "Bytes of tunnels, to the target and from it.");
	print_all(counts, file, "bytes_total", ",direction=\"to\"", offsetof(struct tunnel_count, to_target));
	print_all(counts, file, "bytes_total", ",direction=\"from\"", offsetof(struct tunnel_count, from_target));
	family(file, "unknown_targets_total", "counter", "Clients that asked for a target that is not configured.");
	fprintf(file, "securdma_tunnel_unknown_targets_total %" PRIu64 "\n", counts->unknown);
}

json_t *tunnel_counts_json(const struct tunnel_counts *counts)
{
	json_t *array = json_array();

	for (struct tunnel_count *count = counts->first; count; count = count->next)
		json_array_append_new(array, json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "target", count->name, "open",
						       (json_int_t)atomic_load(&count->open), "total", (json_int_t)atomic_load(&count->total),
						       "refused", (json_int_t)atomic_load(&count->refused), "failed",
						       (json_int_t)atomic_load(&count->failed), "bytes_to_target",
						       (json_int_t)atomic_load(&count->to_target), "bytes_from_target",
						       (json_int_t)atomic_load(&count->from_target)));
	return array;
}

void tunnel_counts_free(struct tunnel_counts *counts)
{
	while (counts->first) {
		struct tunnel_count *count = counts->first;

		counts->first = count->next;
		free(count);
	}
}
