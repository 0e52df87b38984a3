/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"
#include "wrap.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

static const char help_text[] =
	"usage: securdma wrap [OPTION...] [--] COMMAND [ARGUMENT...]\n"
	"\n"
	"Runs a verbs program that connects its queue pairs by itself. The agents of the two hosts (securdma agent)\n"
	"exchange random starting PSNs over TLS and verify the peer; the program's own PSNs are not used.\n"
	"\n"
	"Options of securdma wrap:\n"
	"  --agent PATH                   socket of the host's agent (default: $XDG_RUNTIME_DIR/securdma/agent.sock if it\n"
	"                                 is there, else /run/securdma/agent.sock)\n"
	"  --observe                      let the program do what the agent can't vouch for, and say so\n"
	"  --require-encryption           connect only over a path that something encrypts which the agent can check\n"
	"  --report                       print at the end what the command did; --report=json: as a JSON object\n"
	"\n"
	"A refused call fails with EACCES, and a line at standard error says why and what to do. See securdma-wrap(1).\n"
	"\n"
	"Exit codes: the command's own; 2 usage, 125 the command can't be wrapped, 126 it can't be run, 127 it was not\n"
	"found, 128 and a signal's number with --report.\n";

struct choices {
	const char *agent;
	bool help, observe, require_encryption, report, json;
};

/* The option at argv[*at], whose value may be the next word. An exit code. */
static int take_option(char **argv, int *at, struct choices *choices)
{
	const char *word = argv[*at];

	if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
		choices->help = true;
	else if (strcmp(word, "--observe") == 0)
		choices->observe = true;
	else if (strcmp(word, "--require-encryption") == 0)
		choices->require_encryption = true;
	else if (strcmp(word, "--report") == 0 || strcmp(word, "--report=text") == 0)
		choices->report = true;
	else if (strcmp(word, "--report=json") == 0)
		choices->report = choices->json = true;
	else if (strncmp(word, "--report=", 9) == 0)
		return cli_usage("wrap", "--report: '%s' is not valid; give text or json", word + 9);
	else if (strncmp(word, "--agent=", 8) == 0)
		choices->agent = word + 8;
	else if (strcmp(word, "--agent") == 0 && argv[*at + 1])
		choices->agent = argv[++*at];
	else if (strcmp(word, "--agent") == 0)
		return cli_usage("wrap", "--agent needs a value: PATH");
	else
		return cli_usage("wrap", "there is no option %s", word);
	return CLI_EXIT_OK;
}

/* The program may change its directory before it needs the agent. */
static int set_agent(const char *path)
{
	char folder[PATH_MAX] = "", whole[2 * PATH_MAX];

	if (!*path)
		return cli_usage("wrap", "--agent: give the path of the agent's socket");
	if (path[0] != '/' && !getcwd(folder, sizeof folder))
		return cli_failed(WRAP_EXIT_OWN, "cannot find out the working directory: %s", strerror(errno));
	snprintf(whole, sizeof whole, "%s%s%s", folder, folder[0] ? "/" : "", path);
	if (strlen(whole) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
		return cli_usage("wrap", "--agent: %s is longer than the path of a socket can be (%zu bytes)", whole,
				 sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1);
	return setenv("SECURDMA_AGENT", whole, 1) == 0 ? 0 : cli_failed(WRAP_EXIT_OWN, "SECURDMA_AGENT: %s", strerror(errno));
}

/* A wrapped program inherits what its own wrapper was asked for, and can't be made laxer by one within. */
static int set_variables(const struct choices *choices)
{
	const char *outer = getenv("SECURDMA_WRAP_MODE");
	bool observe = choices->observe && !(outer && strcmp(outer, "enforce") == 0);
	int code = choices->agent ? set_agent(choices->agent) : 0;

	if (code == 0 && (setenv("SECURDMA_WRAP_MODE", observe ? "observe" : "enforce", 1) < 0 ||
			  (choices->require_encryption && setenv("SECURDMA_WRAP_REQUIRE_ENCRYPTION", "1", 1) < 0)))
		code = cli_failed(WRAP_EXIT_OWN, "cannot set variables for the command: %s", strerror(errno));
	return code;
}

int cmd_wrap(int argc, char **argv)
{
	struct choices choices = {0};
	int at = 1, code = CLI_EXIT_OK, report;

	/* What follows the first word that is no option is the command's. */
	for (; at < argc && argv[at][0] == '-' && strcmp(argv[at], "--") != 0 && code == CLI_EXIT_OK; at++)
		code = take_option(argv, &at, &choices);
	if (code == CLI_EXIT_OK && choices.help)
		fputs(help_text, stdout);
	if (code != CLI_EXIT_OK || choices.help)
		return code;
	if (at < argc && strcmp(argv[at], "--") == 0)
		at++;
	if (at == argc)
		return cli_usage("wrap", "name the command to run");
	code = wrap_check_command(argv[at]);
	if (code == 0)
		code = set_variables(&choices);
	if (code == 0)
		code = wrap_library();
	if (code != 0)
		return code;
	if (!choices.report)
		return wrap_exec(argv + at);
	report = wrap_report_open();
	if (report < 0)
		return WRAP_EXIT_OWN;
	code = wrap_run(argv + at);
	wrap_report_print(report, argv[at], choices.json);
	close(report);
	return code;
}
