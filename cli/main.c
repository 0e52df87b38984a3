/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"

#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static const struct command {
	const char *name;
	int (*function)(int argc, char **argv);
	const char *help;
} commands[] = {
	{"serve", cmd_serve, "run a server with the built-in echo service"},
	{"connect", cmd_connect, "connect to a server: interactive, scripted, or a verified pattern"},
	{"cp", cmd_cp, "copy files to a server or from one"},
	{"tunnel", cmd_tunnel, "carry TCP connections through a server to its targets"},
	{"agent", cmd_agent, "vouch for the queue pairs of programs that run under 'securdma wrap'"},
	{"status", cmd_status, "show a running server's counts and clients, or an agent's"},
	{"top", cmd_top, "watch a running server's clients and their rates"},
	{"kick", cmd_kick, "disconnect one client of a running server"},
	{"drain", cmd_drain, "make a running server reject new clients, and stop when all have left"},
	{"reload", cmd_reload, "make a running server or agent read its configuration and certificates again"},
	{"wrap", cmd_wrap, "run a verbs program with PSNs and peers from the agents of its hosts"},
	{"cert", cmd_cert, "make and show certificates"},
	{"doctor", cmd_doctor, "check devices, limits, certificates and ports, and suggest fixes"},
	{"bench", cmd_bench, "measure connection set-up, latency and bandwidth"},
	{"version", cmd_version, "print the versions of securdma and its libraries"},
};
bool cli_sigpipe_ignored;

#define COMMAND_COUNT (sizeof commands / sizeof commands[0])

static void print_help(FILE *file)
{
	fprintf(file,
		"usage: securdma COMMAND [ARGUMENT...]\n\n"
		"Reliable-connected RDMA queue pairs, brought up over an authenticated TLS channel.\n\nCommands:\n");
	for (size_t i = 0; i < COMMAND_COUNT; i++)
		fprintf(file, "  %-9s %s\n", commands[i].name, commands[i].help);
	fprintf(file, "\n'securdma COMMAND --help' or 'securdma help COMMAND' describes a command.\n\n"
		      "Exit codes: 0 success, 1 failed, 2 usage or settings, 3 no connection, 4 TLS or certificates,\n"
		      "5 rejected by the server, 6 RDMA device, 7 connection lost, 8 stopped, but some clients did not disconnect in order,\n"
		      "9 some files were not copied.\n");
}

static const struct command *find(const char *name)
{
	for (size_t i = 0; i < COMMAND_COUNT; i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	return NULL;
}

static int unknown(const char *name)
{
	fprintf(stderr, "securdma: there is no command '%s'; the commands are:", name);
	for (size_t i = 0; i < COMMAND_COUNT; i++)
		fprintf(stderr, " %s", commands[i].name);
	fprintf(stderr, " help\n");
	return CLI_EXIT_USAGE;
}

static int help(int argc, char **argv)
{
	const struct command *command;
	char flag[] = "--help";
	char *arguments[] = {NULL, flag, NULL};

	if (argc < 2) {
		print_help(stdout);
		return CLI_EXIT_OK;
	}
	command = find(argv[1]);
	if (!command)
		return unknown(argv[1]);
	arguments[0] = argv[1];
	return command->function(2, arguments);
}

int main(int argc, char **argv)
{
	const struct command *command;
	const char *name = argc > 1 ? argv[1] : NULL;

	/* A peer or a pipe that went away is an error of the call that wrote to it, not the end of the process. */
	cli_sigpipe_ignored = signal(SIGPIPE, SIG_IGN) == SIG_IGN;
	/* What names may look like on the terminal; nothing else goes by it. Before a sandbox, since it reads files. */
	setlocale(LC_CTYPE, "");
	if (!name) {
		print_help(stderr);
		return CLI_EXIT_USAGE;
	}
	if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
		return help(1, argv);
	if (strcmp(name, "help") == 0)
		return help(argc - 1, argv + 1);
	if (strcmp(name, "--version") == 0)
		name = "version";
	command = find(name);
	return command ? command->function(argc - 1, argv + 1) : unknown(name);
}
