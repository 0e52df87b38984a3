/* SPDX-License-Identifier: Apache-2.0 */
#include "agent_command.h"

#include "cli.h"

#include <stdio.h>
#include <time.h>

static long long number(const json_t *object, const char *name)
{
	return (long long)json_integer_value(json_object_get(object, name));
}

static const char *text(const json_t *object, const char *name)
{
	const char *value = json_string_value(json_object_get(object, name));

	return value ? value : "";
}

static void show_peer(const json_t *peer)
{
	time_t at = (time_t)number(peer, "since");
	char since[32] = "";
	struct tm local;

	if (localtime_r(&at, &local))
		strftime(since, sizeof since, "%Y-%m-%d %H:%M:%S", &local);
	cli_print_column(text(peer, "peer"), 28);
	printf(" %-28s %-10s %-9s %9lld %9lld  %s\n", text(peer, "address"), text(peer, "state"), text(peer, "direction"), number(peer, "queries_received"),
	       number(peer, "queries_sent"), since);
}

static void show_process(const json_t *process)
{
	cli_print_column(text(process, "program"), 28);
	printf(" %8lld %8lld %-8s %11lld %9lld\n", number(process, "pid"), number(process, "uid"), text(process, "mode"), number(process, "queue_pairs"),
	       number(process, "connected"));
}

static void show_refusals(const json_t *refusals)
{
	const char *reason;
	const json_t *count;
	json_t *all = (json_t *)(uintptr_t)refusals;

	json_object_foreach(all, reason, count)
		if (json_integer_value(count) > 0)
			printf("refused (%s): %lld\n", reason, (long long)json_integer_value(count));
}

void agent_status_show(const json_t *status)
{
	const json_t *peers = json_object_get(status, "peers"), *processes = json_object_get(status, "processes");

	printf("agent ");
	cli_print_column(text(status, "name"), 0);
	printf(", mode %s%s: programs %lld, queue pairs %lld, sessions %lld, connected %lld, refused %lld, observed %lld\n", text(status, "mode"),
	       json_is_true(json_object_get(status, "require_encryption")) ? ", encryption required" : "", number(status, "programs"),
	       number(status, "queue_pairs"), number(status, "sessions"), number(status, "connected"), number(status, "refused"), number(status, "observed"));
	show_refusals(json_object_get(status, "refusals"));
	if (json_array_size(peers) > 0)
		printf("%-28s %-28s %-10s %-9s %9s %9s  %s\n", "peer", "address", "state", "direction", "asked", "asks", "since");
	for (size_t i = 0; i < json_array_size(peers); i++)
		show_peer(json_array_get(peers, i));
	if (json_array_size(processes) > 0)
		printf("%-28s %8s %8s %-8s %11s %9s\n", "program", "pid", "user", "mode", "queue pairs", "connected");
	for (size_t i = 0; i < json_array_size(processes); i++)
		show_process(json_array_get(processes, i));
	fflush(stdout);
}
