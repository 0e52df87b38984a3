/* SPDX-License-Identifier: Apache-2.0 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "status.h"

static const char usage[] =
	"usage: status [--device NAME] [--gid INDEX] [--patience MS] [--timeout N] [--only TEXT]\n"
	"              [--brief]\n"
	"A line a case: way to be wrong | queue pair and operation | the requester's completions | the target's |\n"
	"asynchronous events of both | states of both. --only: cases with this in the first two fields.\n"
	"--timeout: the local ACK timeout (18: a second, four times).\n"
	"--brief: one operation of each way and type of queue pair. --patience: how long to wait for what may never come (10000).\n";

struct choice {
	const char *only;
	bool brief;
};

static void run_way(const struct way *way, const struct choice *choice)
{
	char name[160];

	for (int op = 0; op < OPERATIONS; op++) {
		if (!(way->operations & lab.operations & 1u << op))
			continue;
		for (unsigned type = RC; type <= UD; type <<= 1) {
			if (!(way->types & type))
				continue;
			trial_name(way, op, type, name, sizeof name);
			if (strstr(name, choice->only))
				trial_run(way, op, type);
		}
		if (choice->brief)
			return;
	}
}

static void run_all(const struct way *way, const struct choice *choice)
{
	for (; way->name; way++)
		run_way(way, choice);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"device", required_argument, NULL, 'd'},   {"gid", required_argument, NULL, 'g'},
		{"patience", required_argument, NULL, 'p'}, {"only", required_argument, NULL, 'o'},
		{"timeout", required_argument, NULL, 't'},
		{"brief", no_argument, NULL, 'b'},
		{NULL, 0, NULL, 0},
	};
	struct choice choice = {.only = ""};
	const char *device = NULL;
	unsigned gid_index = 0;
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'd': device = optarg; break;
		case 'g': gid_index = (unsigned)atoi(optarg); break;
		case 'p': lab.patience = atoi(optarg); break;
		case 't': lab.timeout = (uint8_t)atoi(optarg); break;
		case 'b': choice.brief = true; break;
		case 'o': choice.only = optarg; break;
		default: fputs(usage, stderr); return 2;
		}
	}
	lab_open(device, gid_index);
	run_all(key_ways, &choice);
	run_all(message_ways, &choice);
	run_all(window_ways, &choice);
	run_all(state_ways, &choice);
	run_all(placement_ways, &choice);
	lab_close();
	return 0;
}
