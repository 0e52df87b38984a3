/* SPDX-License-Identifier: Apache-2.0 */
/* uroce: runs a command with the RoCEv2 device uroce0. */
#include "cli.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage_text[] =
	"usage: uroce [OPTION...] COMMAND [ARGUMENT...]\n"
	"       uroce stats PID [--json]\n"
	"       uroce resources [--json]\n"
	"\n"
	"Runs COMMAND with an additional RDMA device: uroce0, RoCEv2 in user space.\n"
	"\n"
	"  --addr LIST      addresses of the device: IP addresses or interface names, separated by\n"
	"                   commas; without it, the device connects processes of this host by loopback\n"
	"  --capture FILE   record all packets for Wireshark; %p in the name: the process id\n"
	"  --fault SPEC     lose, duplicate, reorder, delay and corrupt packets:\n"
	"                   loss=1%,duplicate=0.5%,reorder=2%,delay=200us,jitter=100us,\n"
	"                   corrupt=0.1%,seed=42\n"
	"  --go-back        keep nothing that comes ahead of a lost packet, so that all behind it is sent\n"
	"                   again, as towards other RoCEv2 devices\n"
	"  --wire           send packets between processes of this host by UDP, too, instead of through\n"
	"                   shared memory; --capture and --fault imply it\n"
	"  --log LEVEL      error, warn, info or debug\n"
	"  --mount          mount the device's files in a namespace of the command, for programs that\n"
	"                   make system calls themselves (Go, static programs)\n"
	"  --stats          print counters to standard error when COMMAND ends\n"
	"  --stats-json     the same as a JSON object\n"
	"  --help, --version\n"
	"\n"
	"\"uroce stats PID\" shows the counters of a running process, \"uroce resources\" the verbs\n"
	"objects of all processes. Put \"--\" before a COMMAND that has one of these names. See\n"
	"uroce(1).\n";

int fail(int status, const char *format, ...)
{
	va_list list;

	fputs("uroce: ", stderr);
	va_start(list, format);
	vfprintf(stderr, format, list);
	va_end(list);
	fputc('\n', stderr);
	return status;
}

static int set(const char *variable, const char *value)
{
	return setenv(variable, value, 1) == 0 ? 0 : fail(EXIT_OWN, "%s: %s", variable, strerror(errno));
}

/* The command may change its directory before it opens the device. */
static int set_capture(const char *file)
{
	char directory[PATH_MAX] = "";
	char path[3 * PATH_MAX];
	size_t used = 0;

	if (!*file)
		return fail(EXIT_USAGE, "--capture: give the name of a file");
	if (strlen(file) >= PATH_MAX)
		return fail(EXIT_USAGE, "--capture: %s", strerror(ENAMETOOLONG));
	if (file[0] != '/' && !getcwd(directory, sizeof directory))
		return fail(EXIT_OWN, "cannot find out the working directory: %s", strerror(errno));
	for (const char *p = directory; *p; p++) {
		path[used++] = *p;
		if (*p == '%')
			path[used++] = '%'; /* none of the file's */
	}
	snprintf(path + used, sizeof path - used, "%s%s", *directory ? "/" : "", file);
	return set("UROCE_CAPTURE", path);
}

enum option_code { OPT_ADDR = 256, OPT_CAPTURE, OPT_FAULT, OPT_GO_BACK, OPT_LOG, OPT_MOUNT, OPT_COPY_FILES, OPT_STATS, OPT_STATS_JSON, OPT_WIRE };

struct choices {
	bool help;
	bool version;
	bool mount;
	const char *copy_to; /* a folder: this process is mount.c's */
	enum report report;
};

/* 0, or an exit status after a message. */
static int take_option(int code, const char *value, struct choices *choices)
{
	switch (code) {
	case OPT_ADDR:
		return check_addresses(value) ? set("UROCE_ADDR", value) : EXIT_USAGE;
	case OPT_CAPTURE:
		return set_capture(value);
	case OPT_FAULT:
		return check_fault(value) ? set("UROCE_FAULT", value) : EXIT_USAGE;
	case OPT_LOG:
		return check_log_level(value) ? set("UROCE_LOG", value) : EXIT_USAGE;
	case OPT_GO_BACK:
		return set("UROCE_GO_BACK", "1");
	case OPT_WIRE:
		return set("UROCE_WIRE", "1");
	case OPT_MOUNT:
		choices->mount = true;
		return 0;
	case OPT_COPY_FILES:
		choices->copy_to = value;
		return 0;
	case OPT_STATS_JSON:
		choices->report = REPORT_JSON;
		return 0;
	case OPT_STATS:
		if (choices->report == REPORT_NONE)
			choices->report = REPORT_TEXT;
		return 0;
	case 'h':
		choices->help = true;
		return 0;
	case 'V':
		choices->version = true;
		return 0;
	default:
		fputs("Try \"uroce --help\".\n", stderr); /* getopt has said what is wrong */
		return EXIT_USAGE;
	}
}

static int take_options(int argc, char **argv, struct choices *choices)
{
	static const struct option options[] = {
		{"addr", required_argument, NULL, OPT_ADDR},
		{"capture", required_argument, NULL, OPT_CAPTURE},
		{"fault", required_argument, NULL, OPT_FAULT},
		{"log", required_argument, NULL, OPT_LOG},
		{"mount", no_argument, NULL, OPT_MOUNT},
		{"copy-files", required_argument, NULL, OPT_COPY_FILES},
		{"stats", no_argument, NULL, OPT_STATS},
		{"stats-json", no_argument, NULL, OPT_STATS_JSON},
		{"go-back", no_argument, NULL, OPT_GO_BACK},
		{"wire", no_argument, NULL, OPT_WIRE},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{NULL, 0, NULL, 0},
	};
	int code;

	/* "+": the first word that is no option ends them; what follows is the command's. */
	while ((code = getopt_long(argc, argv, "+hV", options, NULL)) != -1) {
		int status = take_option(code, optarg, choices);

		if (status)
			return status;
		if (choices->help || choices->version)
			return 0;
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct choices choices = {0};
	static char name[] = "uroce";
	int status;

	if (argc > 0)
		argv[0] = name; /* in getopt's messages */
	status = take_options(argc, argv, &choices);
	if (status)
		return status;
	if (choices.help || choices.version) {
		fputs(choices.help ? usage_text : "uroce " UROCE_VERSION "\n", stdout);
		return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_OWN;
	}
	if (choices.copy_to)
		return mount_copy(choices.copy_to);
	if (optind >= argc) {
		fputs(usage_text, stderr);
		return EXIT_USAGE;
	}
	if (strcmp(argv[optind], "stats") == 0 && strcmp(argv[optind - 1], "--") != 0)
		return cmd_stats(argc - optind, argv + optind);
	if (strcmp(argv[optind], "resources") == 0 && strcmp(argv[optind - 1], "--") != 0)
		return cmd_resources(argc - optind, argv + optind);
	status = library_preload(argv[optind]);
	if (status)
		return status;
	bool mounted = choices.mount && mount_files();
	if (choices.report == REPORT_NONE && !mounted)
		return run_command(argv + optind);
	return run_counted(argv + optind, choices.report, mounted);
}
