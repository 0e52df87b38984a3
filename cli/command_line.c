/* SPDX-License-Identifier: Apache-2.0 */
#include "command_line.h"

#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print_options(const struct option *options, size_t count, unsigned command, const void *values)
{
	for (size_t i = 0; i < count; i++) {
		const struct option *option = &options[i];
		char flag[64], value[160];

		if (!option->flag || !(option->commands & command))
			continue;
		snprintf(flag, sizeof flag, "%s%s%s", option->flag, option->value_name ? " " : "",
			 option->value_name ? option->value_name : "");
		option_format(option, values, value, sizeof value);
		if (strlen(flag) > 30)
			printf("  %s\n  %-30s", flag, "");
		else
			printf("  %-30s", flag);
		printf(" %s", option->help);
		if (option->type != OPTION_SWITCH && value[0] != '\0')
			printf(" (default %s)", value);
		printf("\n");
	}
}

static void print_help(const struct command_line *line)
{
	printf("usage: securdma %s %s\n\n%s\n", line->name, line->synopsis, line->about);
	if (line->option_count > 0) {
		printf("\nOptions of securdma %s:\n", line->name);
		print_options(line->options, line->option_count, line->command, line->values);
	}
	if (line->settings) {
		printf("\nSettings (also in the configuration file, see securdma.conf(5)):\n");
		print_options(settings_options, settings_option_count, line->command, line->settings);
	}
	printf("\n%s", line->details);
}

static const struct option *find(const struct option *options, size_t count, unsigned command, const char *flag, size_t length)
{
	for (size_t i = 0; i < count; i++)
		if (options[i].flag && (options[i].commands & command) && strlen(options[i].flag) == length &&
		    memcmp(options[i].flag, flag, length) == 0)
			return &options[i];
	return NULL;
}

/* The option that an argument names, in either table, and the structure of its value. NULL: none. */
static const struct option *find_flag(const struct command_line *line, const char *argument, void **values)
{
	size_t length = strcspn(argument, "=");
	const struct option *option = line->settings ? find(settings_options, settings_option_count, line->command, argument, length) : NULL;

	*values = option ? line->settings : line->values;
	return option ? option : find(line->options, line->option_count, line->command, argument, length);
}

/* Handles the flag at argv[*at] and moves *at to its value's place. Returns an exit code. */
static int take_flag(struct command_line *line, int argc, char **argv, int *at)
{
	const char *argument = argv[*at], *equals = strchr(argument, '='), *value = NULL;
	size_t length = equals ? (size_t)(equals - argument) : strlen(argument);
	void *values;
	const struct option *option = find_flag(line, argument, &values);
	char allowed[256];

	if (!option)
		return cli_usage(line->name, "there is no option %.*s", (int)length, argument);
	if (option->type == OPTION_SWITCH && equals)
		return cli_usage(line->name, "%s takes no value", option->flag);
	if (option->type == OPTION_SWITCH)
		value = "yes";
	else if (equals)
		value = equals + 1;
	else if (*at + 1 < argc)
		value = argv[++*at];
	else
		return cli_usage(line->name, "%s needs a value: %s", option->flag, option->value_name);
	if (option_set(option, values, value, allowed, sizeof allowed) < 0)
		return cli_usage(line->name, "%s: '%s' is not valid; give %s", option->flag, value, allowed);
	return CLI_EXIT_OK;
}

static int walk(struct command_line *line, int argc, char **argv)
{
	bool flags_end = false;

	line->operand_count = 0;
	for (int i = 1; i < argc; i++) {
		if (!flags_end && strcmp(argv[i], "--") == 0) {
			flags_end = true;
		} else if (!flags_end && argv[i][0] == '-' && argv[i][1] != '\0') {
			int code = take_flag(line, argc, argv, &i);

			if (code != CLI_EXIT_OK)
				return code;
		} else if (line->operand_count == line->max_operands) {
			return cli_usage(line->name, "unexpected argument '%s'", argv[i]);
		} else {
			line->operands[line->operand_count++] = argv[i];
		}
	}
	return CLI_EXIT_OK;
}

/* Takes the flags that the command needs first: the file to read, and the form in which errors are printed. Their values are judged
 * later. */
static void look_ahead(struct command_line *line, int argc, char **argv)
{
	char allowed[256];

	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
		const char *equals = strchr(argv[i], '='), *value;
		void *values;
		const struct option *option = argv[i][0] == '-' ? find_flag(line, argv[i], &values) : NULL;

		if (!option || option->type == OPTION_SWITCH)
			continue;
		value = equals ? equals + 1 : i + 1 < argc ? argv[++i] : NULL;
		if (value && (strcmp(option->flag, "--config") == 0 || strcmp(option->flag, "--log-format") == 0))
			option_set(option, values, value, allowed, sizeof allowed);
	}
}

static bool wants_help(int argc, char **argv)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
			return true;
	return false;
}

int command_line_read_again(struct command_line *line, int argc, char **argv)
{
	const char *file;
	int code = CLI_EXIT_OK;

	/* Flags override the file, so the file has to be read before they are applied. */
	look_ahead(line, argc, argv);
	file = line->settings->config_file ? line->settings->config_file : getenv("SECURDMA_CONFIG");
	if (file && *file)
		code = settings_read_file(line->settings, file);
	/* The file may have another format of the log. */
	look_ahead(line, argc, argv);
	if (code == CLI_EXIT_OK)
		code = walk(line, argc, argv);
	return code == CLI_EXIT_OK ? settings_complete(line->settings) : code;
}

bool command_line_parse(struct command_line *line, int argc, char **argv, int *exit_code)
{
	if (wants_help(argc, argv)) {
		print_help(line);
		*exit_code = CLI_EXIT_OK;
		return false;
	}
	if (!line->settings) {
		*exit_code = walk(line, argc, argv);
		return *exit_code == CLI_EXIT_OK;
	}
	cli_log_hold();
	*exit_code = command_line_read_again(line, argc, argv);
	cli_log_start((enum srdma_log_level)line->settings->log_level, (enum cli_log_format)line->settings->log_format,
		      line->command == FOR_SERVE);
	return *exit_code == CLI_EXIT_OK;
}
