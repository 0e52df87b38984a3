/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"
#include "command_line.h"
#include "cp.h"
#include "interrupt.h"

#include "securdma_stream.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* In the JSON summary; the rest is only counted. */
#define ERRORS_MAX 100
#define CHANGES_MAX 100000
/* Slower, the server would think that nothing comes. */
#define RATE_MIN 65536

static const char about[] =
	"Copies files to a server or from one. One side is HOST:PATH: a path below the folder that the server's section [files]\n"
	"gives this client. Copies that were interrupted go on where they were when the command is run again; files of the same\n"
	"size and time are not copied again.";
static const char details[] =
	"Rights, times of modification, holes, and symbolic links that stay within the folder are kept; owners are not.\n"
	"FIFOs, sockets and devices are left out, and so are links that lead out of the folder; each is said.\n\n"
	"Exit codes: 0 all copied, 1 failed, 2 usage, settings or credentials, 3 no connection or a timeout, 4 TLS,\n"
	"certificates or the exchange, 5 rejected by the server, 6 RDMA device, 7 connection lost, 9 some files were not\n"
	"copied, and all others were, 130 SIGINT, 143 SIGTERM.\n\n"
	"Examples:\n"
	"  securdma cp --config client.conf --seal required -r results server.example:archive\n"
	"  securdma cp --config client.conf server.example:archive/results/a.h5 .\n";

#define AT(field) OPTION_AT(struct cp, field)
static const struct option cp_options[] = {
	{"-r", NULL, NULL, OPTION_SWITCH, FOR_CP, AT(recursive), 0, 0, NULL, "copy folders, with everything in them"},
	{"--checksum", NULL, NULL, OPTION_SWITCH, FOR_CP, AT(checksum), 0, 0, NULL,
	 "compare contents of files of the same size, and not their times"},
	{"--delete", NULL, NULL, OPTION_SWITCH, FOR_CP, AT(deletes), 0, 0, NULL,
	 "delete what the folders have at the target and not at the source; needs -r"},
	{"--exclude", NULL, NULL, OPTION_LIST, FOR_CP, AT(exclude), 0, 0, "PATTERN",
	 "leave out, and do not delete, what is in a folder and matches; may be given several times"},
	{"--limit-rate", NULL, NULL, OPTION_SIZE, FOR_CP, AT(limit_rate), RATE_MIN, (int64_t)1 << 40, "BYTES",
	 "bytes per second to send and receive"},
	{"--dry-run", NULL, NULL, OPTION_SWITCH, FOR_CP, AT(dry_run), 0, 0, NULL, "change nothing, and print what would be copied and deleted"},
	{"--no-sync", NULL, NULL, OPTION_SWITCH, FOR_CP, AT(no_sync), 0, 0, NULL, "do not wait until files are on the disk; a power cut may lose them"},
	{"--quiet", NULL, NULL, OPTION_SWITCH, FOR_CP, AT(quiet), 0, 0, NULL, "print errors only"},
	{"--progress", NULL, NULL, OPTION_TEXT, FOR_CP, AT(progress_form), 0, 0, "auto|bar|plain|none",
	 "how to show progress; auto: a bar on a terminal"},
};
#define CP_OPTION_COUNT (sizeof cp_options / sizeof cp_options[0])

/* ---- operands -------------------------------------------------------------------------------------------------- */

/* The path of HOST:PATH or [ADDRESS]:PATH; NULL: it is a path of this host, which may have colons behind a '/'. */
static const char *path_of_remote(const char *operand)
{
	const char *colon = operand[0] == '[' ? strstr(operand, "]:") : strchr(operand, ':');
	const char *slash = strchr(operand, '/');

	if (!colon || colon == operand || (slash && slash < colon))
		return NULL;
	return colon + (operand[0] == '[' ? 2 : 1);
}

static int take_host(struct cp *cp, const char *operand, const char *path)
{
	size_t length = (size_t)(path - operand) - 1;
	char *host;

	if (operand[0] == '[') {
		operand++;
		length -= 2;
	}
	if (cp->settings.host && (strlen(cp->settings.host) != length || strncmp(cp->settings.host, operand, length) != 0))
		return cli_usage("cp", "all paths of one copy must be of one server: '%s' and '%.*s'", cp->settings.host, (int)length, operand);
	host = strndup(operand, length);
	if (!host)
		return cli_fail(-ENOMEM, "cp");
	free(cp->settings.host);
	cp->settings.host = host;
	return CLI_EXIT_OK;
}

/* A path below the server's folder. What a server would refuse is said before anything is connected. */
static int check_remote(const char *path)
{
	struct files_bytes bytes = files_text(path);

	if (path[0] == '/')
		return cli_usage("cp", "'%s': give a path below the folder that the server gives you, without '/' in front", path);
	if (bytes.length > 0 && !files_name_is_safe(&bytes))
		return cli_usage("cp", "'%s': a path on the server has no '.', '..' or empty part, and no part longer than 255 bytes", path);
	return CLI_EXIT_OK;
}

/* Without '/' at the end, and without a '.' that stands for the server's folder. */
static int add_remote(struct cp *cp, const char *path)
{
	size_t length = strlen(path);
	char clean[FILES_NAME_MAX + 1];
	struct files_bytes bytes;
	int code;

	while (length > 1 && path[length - 1] == '/')
		length--;
	if (length > FILES_NAME_MAX)
		return cli_usage("cp", "the path is longer than %d bytes", FILES_NAME_MAX);
	snprintf(clean, sizeof clean, "%.*s", (int)length, strcmp(path, ".") == 0 ? "" : path);
	code = check_remote(clean);
	bytes = files_text(clean);
	if (code == CLI_EXIT_OK && files_list_add(&cp->list, &bytes) < 0)
		return cli_usage("cp", "give at most %d paths", FILES_LIST_MAX);
	return code;
}

static int add_local(struct cp *cp, const char *path)
{
	const struct files_bytes bytes = files_text(path);
	char name[256];

	if (access(path, F_OK) != 0 && errno != EACCES)
		return cli_failed(CLI_EXIT_FAILED, "%s: %s", path, strerror(errno));
	files_list_name(path, name, sizeof name);
	if (name[0] && !files_name_is_safe(&(const struct files_bytes){(const uint8_t *)name, strlen(name)}))
		return cli_usage("cp", "'%s': files of this name are partial copies", path);
	if (files_list_add(&cp->list, &bytes) < 0)
		return cli_usage("cp", "give at most %d paths", FILES_LIST_MAX);
	return CLI_EXIT_OK;
}

/* With each name the receiver must know all that the sender has below it. */
static int check_delete(const struct cp *cp)
{
	char name[256], other[256];

	if (!cp->deletes)
		return CLI_EXIT_OK;
	if (!cp->recursive)
		return cli_usage("cp", "--delete needs -r");
	for (size_t i = 0; i < cp->list.count; i++) {
		files_list_name(cp->list.paths[i], name, sizeof name);
		if (name[0] == '\0' && cp->list.count > 1)
			return cli_usage("cp", "--delete: '%s' stands for what is in it, and may have no other path beside it", cp->list.paths[i]);
		for (size_t j = 0; j < i; j++) {
			files_list_name(cp->list.paths[j], other, sizeof other);
			if (strcmp(name, other) == 0)
				return cli_usage("cp", "--delete: '%s' and '%s' go to the same name", cp->list.paths[j], cp->list.paths[i]);
		}
	}
	return CLI_EXIT_OK;
}

static int take_excludes(struct cp *cp)
{
	for (size_t i = 0; i < cp->exclude.count; i++) {
		struct files_bytes pattern = files_text(cp->exclude.items[i]);
		int ret = files_excludes_add(&cp->excludes, &pattern);

		if (ret == -EINVAL)
			return cli_usage("cp", "--exclude: '%s' is not valid; give a pattern of 1 to 1024 bytes", cp->exclude.items[i]);
		if (ret == -E2BIG)
			return cli_usage("cp", "--exclude: give at most %d patterns", FILES_EXCLUDES_MAX);
		if (ret < 0)
			return cli_fail(ret, "cp");
	}
	return CLI_EXIT_OK;
}

static int take_operands(struct cp *cp, const char **operands, int count)
{
	const char *target = count > 0 ? operands[count - 1] : "", *path = path_of_remote(target);
	int code = CLI_EXIT_OK;

	if (count < 2)
		return cli_usage("cp", "give at least one FILE and a target: FILE... HOST:DIR, or HOST:PATH... DIR");
	/* The configuration's host is for commands that take none. */
	free(cp->settings.host);
	cp->settings.host = NULL;
	cp->fetch = !path;
	if (path) {
		code = take_host(cp, target, path);
		if (code == CLI_EXIT_OK)
			code = add_remote(cp, path);
		cp->target = code == CLI_EXIT_OK ? cp->list.paths[--cp->list.count] : NULL;
	} else {
		cp->target = target;
	}
	for (int i = 0; i < count - 1 && code == CLI_EXIT_OK; i++) {
		path = path_of_remote(operands[i]);
		if (!path != !cp->fetch)
			return cli_usage("cp", "'%s': either the files or the target must be HOST:PATH, and not both", operands[i]);
		code = path ? take_host(cp, operands[i], path) : add_local(cp, operands[i]);
		if (code == CLI_EXIT_OK && path)
			code = add_remote(cp, path);
	}
	return code;
}

/* ---- output ---------------------------------------------------------------------------------------------------- */

static void add_error(struct cp *cp, const char *name, const char *text)
{
	if (json_array_size(cp->errors) < ERRORS_MAX)
		json_array_append_new(cp->errors, json_pack("{s:s, s:s}", "name", name, "text", text));
}

static void add_change(struct cp *cp, const char *action, const struct files_bytes *name)
{
	size_t length = name->length < 1000 ? name->length : 1000;
	char shown[4 * 1000 + 1];

	cli_escape(name->at, length, shown, sizeof shown);
	if (cp->changes && json_array_size(cp->changes) < CHANGES_MAX)
		json_array_append_new(cp->changes, json_pack("{s:s, s:s}", "action", action, "name", shown));
	if (cp->changes || cp->quiet)
		return;
	progress_clear(&cp->progress);
	printf("would %s %s\n", action, shown);
}

static void on_removed(void *arg, const struct files_bytes *name)
{
	struct cp *cp = arg;

	if (cp->dry_run)
		add_change(cp, "delete", name);
}

static void on_entry(void *arg, enum files_result result, const struct files_bytes *name, const struct files_bytes *text)
{
	struct cp *cp = arg;
	size_t length = name->length < 1000 ? name->length : 1000, text_length = text->length < 300 ? text->length : 300;
	char shown[4 * 1000 + 1], why[4 * 300 + 1];

	if (result == FILES_OK && cp->dry_run && text->length > 0)
		add_change(cp, "copy", name);
	/* A failure without words is one of a folder above, which was told. */
	if (result == FILES_OK || (result == FILES_LEFT_OUT && cp->quiet && !cp->errors) || (result == FILES_FAILED && text->length == 0))
		return;
	cli_escape(name->at, length, shown, sizeof shown);
	cli_escape(text->at, text_length, why, sizeof why);
	progress_clear(&cp->progress);
	if (cp->errors)
		add_error(cp, shown, why);
	if (result == FILES_FAILED)
		cli_error("%s: %s", shown, why);
	else if (!cp->quiet)
		cli_log(SRDMA_LOG_WARN, "%s: %s", shown, why);
}

static void on_moved(void *arg)
{
	progress_update(&((struct cp *)arg)->progress);
}

static void report_json(const struct cp *cp, int code)
{
	const struct files_report *report = &cp->report;
	json_t *object = json_pack("{s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:s}", "direction", cp->fetch ? "from" : "to", "ok",
				   (int)(code == CLI_EXIT_OK), "files", (json_int_t)report->files, "folders", (json_int_t)report->folders, "links",
				   (json_int_t)report->links, "unchanged", (json_int_t)report->unchanged, "left_out",
				   (json_int_t)report->left_out, "failed", (json_int_t)report->failed, "deleted", (json_int_t)report->deleted, "bytes", (json_int_t)report->bytes,
				   "bytes_kept", (json_int_t)report->bytes_kept, "seconds", (double)(cp->ended - cp->started) / 1000, "seal",
				   cp->seal);

	if (object && cp->dry_run)
		json_object_set_new(object, "dry_run", json_true());
	if (object && cp->changes)
		json_object_set(object, "changes", cp->changes);
	if (object && json_array_size(cp->errors) > 0)
		json_object_set(object, "errors", cp->errors);
	if (object && code != CLI_EXIT_OK) {
		json_object_set_new(object, "exit", json_integer(code));
		if (cp->error_text[0])
			json_object_set_new(object, "text", json_string(cp->error_text));
	}
	cli_json_print(object);
}

static void print_summary(const struct cp *cp)
{
	const struct files_report *report = &cp->report;
	double seconds = (double)(cp->ended - cp->started) / 1000;
	char bytes[16], rate[16];

	progress_bytes((double)report->bytes, bytes, sizeof bytes);
	progress_bytes(seconds > 0 ? (double)report->bytes / seconds : 0, rate, sizeof rate);
	printf("%llu file%s, %llu folder%s, %llu link%s: %s in %.2f s (%s/s)", (unsigned long long)report->files, CLI_S(report->files),
	       (unsigned long long)report->folders, CLI_S(report->folders), (unsigned long long)report->links, CLI_S(report->links), bytes, seconds,
	       rate);
	if (cp->dry_run)
		printf("; nothing was changed");
	if (report->unchanged > 0)
		printf("; %llu unchanged", (unsigned long long)report->unchanged);
	if (report->deleted > 0)
		printf("; %llu %sdeleted", (unsigned long long)report->deleted, cp->dry_run ? "to be " : "");
	if (report->left_out > 0)
		printf("; %llu left out", (unsigned long long)report->left_out);
	if (report->failed > 0)
		printf("; %llu not copied", (unsigned long long)report->failed);
	printf("\n");
	fflush(stdout);
}

/* ---- the command ----------------------------------------------------------------------------------------------- */

static int choose_progress(struct cp *cp)
{
	static const struct {
		const char *word;
		enum progress_form form;
	} forms[] = {{"bar", PROGRESS_BAR}, {"plain", PROGRESS_PLAIN}, {"none", PROGRESS_NONE}};
	enum progress_form form = isatty(STDERR_FILENO) && !cp->quiet && !cp->settings.json ? PROGRESS_BAR : PROGRESS_NONE;
	bool known = !cp->progress_form || strcmp(cp->progress_form, "auto") == 0;

	for (size_t i = 0; i < sizeof forms / sizeof *forms && cp->progress_form; i++) {
		if (strcmp(cp->progress_form, forms[i].word) == 0) {
			form = forms[i].form;
			known = true;
		}
	}
	if (!known)
		return cli_usage("cp", "--progress: '%s' is not valid; give one of auto, bar, plain, none", cp->progress_form);
	progress_start(&cp->progress, form, &cp->report);
	return CLI_EXIT_OK;
}

static int prepare(struct cp *cp, const char **operands, int count)
{
	int code = take_operands(cp, operands, count);

	if (code == CLI_EXIT_OK)
		code = check_delete(cp);
	if (code == CLI_EXIT_OK)
		code = take_excludes(cp);
	if (code == CLI_EXIT_OK)
		code = choose_progress(cp);
	if (code == CLI_EXIT_OK && !cp->settings.client_tls.ca_file && !cp->settings.client_tls.pin)
		code = cli_usage("cp", "give --ca or --pin, to verify the server with");
	return code;
}

static int copy(struct cp *cp)
{
	int code;

	cp->list.recursive = cp->recursive;
	cp->list.excludes = &cp->excludes;
	cp->pace.rate = cp->limit_rate;
	cp->report.entry = on_entry;
	cp->report.moved = on_moved;
	cp->report.removed = on_removed;
	cp->report.arg = cp;
	cp->errors = cp->settings.json ? json_array() : NULL;
	cp->changes = cp->settings.json && cp->dry_run ? json_array() : NULL;
	interrupt_catch();
	code = cp_transfer(cp);
	progress_clear(&cp->progress);
	return code == CLI_EXIT_OK && cp->report.failed > 0 ? CLI_EXIT_PARTIAL : code;
}

/* An error of the command line may come before the parser has seen the switch. */
static bool wants_json(int argc, char **argv)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
		if (strcmp(argv[i], "--json") == 0)
			return true;
	return false;
}

/* Returns an exit code. *helped: there is nothing to report. */
static int run(struct cp *cp, struct command_line *line, int argc, char **argv, bool *helped)
{
	int code;

	cli_log_collect();
	*helped = !command_line_parse(line, argc, argv, &code) && code == CLI_EXIT_OK;
	if (*helped)
		return code;
	if (code == CLI_EXIT_OK)
		code = prepare(cp, line->operands, line->operand_count);
	snprintf(cp->error_text, sizeof cp->error_text, "%s", cli_log_collected());
	return code == CLI_EXIT_OK ? copy(cp) : code;
}

int cmd_cp(int argc, char **argv)
{
	const char *operands[FILES_LIST_MAX + 1];
	struct cp *cp = calloc(1, sizeof *cp);
	struct command_line line = {
		.name = "cp",
		.command = FOR_CP,
		.synopsis = "[OPTION...] FILE... HOST:DIR\n       securdma cp [OPTION...] HOST:PATH... DIR",
		.about = about,
		.details = details,
		.options = cp_options,
		.option_count = CP_OPTION_COUNT,
		.values = cp,
		.operands = operands,
		.max_operands = FILES_LIST_MAX + 1,
	};
	bool helped;
	int code;

	if (!cp)
		return cli_fail(-ENOMEM, "cp");
	line.settings = &cp->settings;
	settings_init(&cp->settings);
	srdma_stream_conn_options_init(&cp->settings.conn);
	code = run(cp, &line, argc, argv, &helped);
	if (!helped && wants_json(argc, argv))
		report_json(cp, code);
	else if (!helped && !cp->quiet && cp->started > 0)
		print_summary(cp);
	if (cp->target && !cp->fetch)
		free((char *)(uintptr_t)cp->target);
	files_list_clear(&cp->list);
	files_excludes_clear(&cp->excludes);
	json_decref(cp->errors);
	json_decref(cp->changes);
	options_free(cp_options, CP_OPTION_COUNT, cp);
	settings_free(&cp->settings);
	free(cp);
	return code;
}
