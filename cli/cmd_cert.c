/* SPDX-License-Identifier: Apache-2.0 */
/* securdma cert: makes and shows certificates. */
#include "cli.h"
#include "command_line.h"
#include "securdma_cert.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CN_SIZE   65
#define WARN_DAYS_DEFAULT 30
#define DAYS_MAX  36500

struct arguments {
	struct option_list names;
	char *common_name, *not_after, *ca, *ca_key, *out, *cert, *key;
	int64_t days, warn_days;
	bool force, json;
	const char *file;
};

struct subcommand {
	const char *name;
	const char *synopsis, *about;
	enum srdma_cert_kind kind;
	unsigned flag;
	int64_t days;
	const char *common_name; /* default; NULL: the first name, or this machine's */
	int (*run)(const struct subcommand *subcommand, struct arguments *arguments);
};

static int run_make(const struct subcommand *subcommand, struct arguments *arguments);
static int run_show(const struct subcommand *subcommand, struct arguments *arguments);
static int run_pin(const struct subcommand *subcommand, struct arguments *arguments);

enum { CA = 1, SERVER = 2, CLIENT = 4, SELF_SIGNED = 8, SHOW = 16, PIN = 32, PEER = 64, ISSUED = SERVER | CLIENT | PEER, MADE = CA | ISSUED | SELF_SIGNED };

static const struct subcommand subcommands[] = {
	{"cert ca", "[OPTION]...", "Makes a private certification authority.", SRDMA_CERT_CA, CA, 3650, "securdma CA", run_make},
	{"cert server", "--name NAME [OPTION]...", "Makes a server's certificate, issued by the CA.", SRDMA_CERT_SERVER, SERVER, 365, NULL,
	 run_make},
	{"cert client", "[OPTION]...", "Makes a client's certificate, issued by the CA.", SRDMA_CERT_CLIENT, CLIENT, 365, NULL, run_make},
	{"cert peer", "--name NAME [OPTION]...", "Makes a certificate for both ends, issued by the CA.", SRDMA_CERT_PEER, PEER, 365, NULL,
	 run_make},
	{"cert self-signed", "[OPTION]...", "Makes a server's certificate that needs no CA; clients pin its key.", SRDMA_CERT_SELF_SIGNED,
	 SELF_SIGNED, 365, NULL, run_make},
	{"cert show", "[OPTION]... FILE", "Prints a certificate, and warns if it expires soon.", 0, SHOW, 0, NULL, run_show},
	{"cert pin", "FILE", "Prints the pin of a certificate's key, for 'securdma connect --pin'.", 0, PIN, 0, NULL, run_pin},
};

#define AT(field) OPTION_AT(struct arguments, field)
static const struct option options[] = {
	{"--cn", NULL, NULL, OPTION_TEXT, MADE, AT(common_name), 0, 0, "NAME",
	 "common name; default: 'securdma CA', or the first --name, or this host's name"},
	{"--name", NULL, NULL, OPTION_LIST, SERVER | PEER | SELF_SIGNED, AT(names), 0, 0, "NAME",
	 "DNS name or IP address that clients connect to (server, peer, self-signed); may be repeated"},
	{"--days", NULL, NULL, OPTION_NUMBER, MADE, AT(days), 1, DAYS_MAX, "N", "days of validity; default: 365, for a CA 3650"},
	{"--not-after", NULL, NULL, OPTION_TEXT, MADE, AT(not_after), 0, 0, "TIME",
	 "end of validity instead of --days, YYYY-MM-DDTHH:MM:SSZ"},
	{"--ca", NULL, NULL, OPTION_TEXT, ISSUED, AT(ca), 0, 0, "FILE",
	 "certificate of the issuing CA (server, client, peer), and of the CAs above it; default: ca.crt"},
	{"--ca-key", NULL, NULL, OPTION_TEXT, ISSUED, AT(ca_key), 0, 0, "FILE", "private key of that CA; default: ca.key"},
	{"--out", NULL, NULL, OPTION_TEXT, MADE, AT(out), 0, 0, "PREFIX",
	 "write PREFIX.crt and PREFIX.key; default: the subcommand's name"},
	{"--cert", NULL, NULL, OPTION_TEXT, MADE, AT(cert), 0, 0, "FILE", "write the certificate to FILE instead of PREFIX.crt"},
	{"--key", NULL, NULL, OPTION_TEXT, MADE, AT(key), 0, 0, "FILE",
	 "write the private key (mode 0600) to FILE instead of PREFIX.key"},
	{"--force", NULL, NULL, OPTION_SWITCH, MADE, AT(force), 0, 0, NULL, "replace existing files"},
	{"--warn-days", NULL, NULL, OPTION_NUMBER, SHOW, AT(warn_days), 0, DAYS_MAX, "N", "warn if the certificate expires within N days (show)"},
	{"--json", NULL, NULL, OPTION_SWITCH, MADE | SHOW, AT(json), 0, 0, NULL, "describe the certificate as one JSON object"},
};
#define OPTION_COUNT (sizeof options / sizeof options[0])

static const char about[] =
	"Makes keys and certificates (ECDSA P-256), or shows a certificate. The subcommands are:\n\n"
	"  ca           make a private certification authority\n"
	"  server       make a server's certificate, issued by the CA\n"
	"  client       make a client's certificate, issued by the CA\n"
	"  peer         make a certificate for both ends, issued by the CA: for a program that accepts and connects\n"
	"  self-signed  make a server's certificate that needs no CA; clients pin its key\n"
	"  show         print a certificate and warn if it expires soon\n"
	"  pin          print the pin of a certificate's key, for 'securdma connect --pin'";
static const char details[] =
	"Exit codes: 0 success (also if the certificate expires soon); 1 failed, files already exist, or 'show' found\n"
	"a certificate that has expired or is not valid yet; 2 wrong options or files that do not belong together.\n\n"
	"Examples:\n"
	"  securdma cert ca\n"
	"  securdma cert server --name storage1.example.com --name 192.0.2.7\n"
	"  securdma cert client --cn alice --out alice\n"
	"  securdma cert self-signed --name localhost --out local\n"
	"  securdma cert show server.crt\n"
	"  securdma cert pin local.crt\n";

/* ---- show ---- */

static void format_time(int64_t when, char *text, size_t size)
{
	time_t seconds = (time_t)when;
	struct tm utc;

	gmtime_r(&seconds, &utc);
	strftime(text, size, "%Y-%m-%dT%H:%M:%SZ", &utc);
}

/* Rounded down; negative when `when` is past. */
static int64_t days_until(int64_t when)
{
	int64_t left = when - (int64_t)time(NULL);

	return left >= 0 ? left / 86400 : -1 - (-left) / 86400;
}

static const char *status_of(const struct srdma_cert_info *info, int64_t warn_days)
{
	int64_t now = (int64_t)time(NULL);

	if (info->not_after < now)
		return "expired";
	if (info->not_before > now)
		return "not-yet-valid";
	return info->not_after - now < warn_days * 86400 ? "expiring" : "valid";
}

/* "DNS:a, IP:1.2.3.4" as an array; commas within a name are escaped in the text. */
static json_t *names_array(const char *names)
{
	json_t *array = json_array();

	while (array && *names) {
		const char *end = strstr(names, ", ");
		size_t length = end ? (size_t)(end - names) : strlen(names);

		json_array_append_new(array, json_stringn(names, length));
		names += length + (end ? 2 : 0);
	}
	return array;
}

static json_t *describe_json(const char *file, const struct srdma_cert_info *info, int64_t warn_days)
{
	char from[32], to[32];

	format_time(info->not_before, from, sizeof from);
	format_time(info->not_after, to, sizeof to);
	return json_pack("{s:s, s:s, s:s, s:s, s:o, s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:s, s:b, s:b, s:b, s:b}",
			 "cert_file", file, "subject", info->subject, "issuer", info->issuer, "common_name",
			 info->common_name, "names", names_array(info->names), "serial", info->serial, "key", info->key,
			 "key_problem", info->key_problem, "pin", info->pin, "not_before", from, "not_after", to, "days_left",
			 (json_int_t)days_until(info->not_after), "status", status_of(info, warn_days), "is_ca",
			 info->is_ca, "self_signed", info->self_signed, "server_auth", info->server_auth, "client_auth",
			 info->client_auth);
}

static void describe_text(const struct srdma_cert_info *info)
{
	const char *status = status_of(info, 0);
	long long days = (long long)days_until(info->not_after);
	char from[32], to[32];

	format_time(info->not_before, from, sizeof from);
	format_time(info->not_after, to, sizeof to);
	printf("Subject:   %s\n", info->subject);
	printf("Issuer:    %s%s\n", info->issuer, info->self_signed ? " (itself)" : "");
	printf("Names:     %s\n", info->names[0] ? info->names : "none");
	printf("Use:       %s\n", info->is_ca                              ? "CA, issues certificates"
				  : info->server_auth && info->client_auth ? "server and client"
				  : info->server_auth                      ? "server"
				  : info->client_auth                      ? "client"
									   : "neither server nor client");
	printf("Valid:     %s to %s", from, to);
	if (strcmp(status, "expired") == 0)
		printf(" (expired)\n");
	else if (strcmp(status, "not-yet-valid") == 0)
		printf(" (not valid yet)\n");
	else
		printf(" (%lld day%s left)\n", days, CLI_S(days));
	printf("Key:       %s\n", info->key);
	if (info->key_problem[0])
		printf("           cannot be used for TLS: %s\n", info->key_problem);
	printf("Serial:    %s\n", info->serial);
	printf("Pin:       %s\n", info->pin);
}

static int report_validity(const char *file, const struct srdma_cert_info *info, int64_t warn_days)
{
	const char *status = status_of(info, warn_days);
	bool early = strcmp(status, "not-yet-valid") == 0, expired = strcmp(status, "expired") == 0;
	char when[32];

	fflush(stdout);
	format_time(early ? info->not_before : info->not_after, when, sizeof when);
	if (early)
		fprintf(stderr, "securdma: error: %s is not valid before %s; check the clock of this machine\n", file, when);
	else if (strcmp(status, "valid") != 0)
		fprintf(stderr, "securdma: %s: %s %s at %s; make a new one with 'securdma cert'\n", expired ? "error" : "warning", file,
			expired ? "expired" : "expires", when);
	return early || expired ? CLI_EXIT_FAILED : CLI_EXIT_OK;
}

/* Returns an exit code. */
static int read_file(const struct subcommand *subcommand, const char *file, struct srdma_cert_info *info)
{
	int error;

	if (!file)
		return cli_usage(subcommand->name, "give the FILE of a certificate");
	error = srdma_cert_read(file, info);
	return error ? cli_fail(error, "%s", subcommand->name) : CLI_EXIT_OK;
}

static int run_show(const struct subcommand *subcommand, struct arguments *arguments)
{
	struct srdma_cert_info info;
	int code = read_file(subcommand, arguments->file, &info);

	if (code != CLI_EXIT_OK)
		return code;
	if (arguments->json)
		cli_json_print(describe_json(arguments->file, &info, arguments->warn_days));
	else
		describe_text(&info);
	return report_validity(arguments->file, &info, arguments->warn_days);
}

static int run_pin(const struct subcommand *subcommand, struct arguments *arguments)
{
	struct srdma_cert_info info;
	int code = read_file(subcommand, arguments->file, &info);

	if (code == CLI_EXIT_OK)
		printf("%s\n", info.pin);
	return code;
}

/* ---- make ---- */

/* Reads the file back, so that the command shows the certificate that a peer will see. */
static int report_made(const struct subcommand *subcommand, const struct srdma_cert_request *request, bool json)
{
	struct srdma_cert_info info;
	int error = srdma_cert_read(request->cert_file, &info);
	json_t *object;

	if (error)
		return cli_fail(error, "%s: cannot read the new certificate", subcommand->name);
	if (json) {
		object = describe_json(request->cert_file, &info, WARN_DAYS_DEFAULT);
		if (object)
			json_object_set_new(object, "key_file", json_string(request->key_file));
		cli_json_print(object);
		return CLI_EXIT_OK;
	}
	printf("Certificate %s (%s", request->cert_file, info.subject);
	if (info.names[0])
		printf("; %s", info.names);
	printf(")\nPrivate key %s; keep it secret\n", request->key_file);
	if (request->kind == SRDMA_CERT_SELF_SIGNED)
		printf("Pin %s\n", info.pin);
	return CLI_EXIT_OK;
}

static void choose_common_name(const struct subcommand *subcommand, struct srdma_cert_request *request, char *host)
{
	if (request->common_name)
		return;
	request->common_name = subcommand->common_name;
	/* A longer name does not fit a CN; it is the alternative names that clients check anyway. */
	for (size_t i = 0; !request->common_name && i < request->name_count; i++)
		if (strlen(request->names[i]) < CN_SIZE)
			request->common_name = request->names[i];
	if (!request->common_name) {
		if (gethostname(host, CN_SIZE - 1) || !host[0])
			strcpy(host, "localhost");
		request->common_name = host;
	}
}

static bool parse_time(const char *text, int64_t *when)
{
	struct tm given = {.tm_sec = 0}, utc;
	const char *end = strptime(text, "%Y-%m-%dT%H:%M:%SZ", &given);

	if (!end || *end)
		return false;
	utc = given;
	*when = (int64_t)timegm(&utc);
	/* timegm makes 30 February the 2nd of March; then it was no date. */
	return *when > 0 && utc.tm_mday == given.tm_mday && utc.tm_sec == given.tm_sec;
}

static int run_make(const struct subcommand *subcommand, struct arguments *arguments)
{
	const char *name = subcommand->name, *prefix = arguments->out ? arguments->out : name + strlen("cert ");
	char cert_file[PATH_MAX], key_file[PATH_MAX], host[CN_SIZE] = "";
	struct srdma_cert_request request;
	int error;

	if (arguments->file)
		return cli_usage(name, "unexpected argument '%s'", arguments->file);
	if (arguments->out && arguments->cert && arguments->key)
		return cli_usage(name, "give either --out, or --cert and --key");
	if (strlen(prefix) + sizeof ".crt" > PATH_MAX)
		return cli_usage(name, "--out is too long");
	snprintf(cert_file, sizeof cert_file, "%s.crt", prefix);
	snprintf(key_file, sizeof key_file, "%s.key", prefix);
	srdma_cert_request_init(&request);
	request.kind = subcommand->kind;
	request.common_name = arguments->common_name;
	request.names = (const char *const *)arguments->names.items;
	request.name_count = arguments->names.count;
	if ((subcommand->flag & (SERVER | PEER)) && request.name_count == 0) {
		if (!request.common_name)
			return cli_usage(name, "give --name, the name or address that clients connect to");
		request.names = &request.common_name;
		request.name_count = 1;
	}
	request.days = (unsigned)(arguments->days ? arguments->days : subcommand->days);
	if (arguments->not_after && arguments->days)
		return cli_usage(name, "give either --days or --not-after");
	if (arguments->not_after && !parse_time(arguments->not_after, &request.not_after))
		return cli_usage(name, "--not-after takes YYYY-MM-DDTHH:MM:SSZ, not '%s'", arguments->not_after);
	request.ca_cert_file = arguments->ca ? arguments->ca : "ca.crt";
	request.ca_key_file = arguments->ca_key ? arguments->ca_key : "ca.key";
	request.cert_file = arguments->cert ? arguments->cert : cert_file;
	request.key_file = arguments->key ? arguments->key : key_file;
	request.overwrite = arguments->force;
	choose_common_name(subcommand, &request, host);
	error = srdma_cert_make(&request);
	if (error == -ENOENT && (subcommand->flag & ISSUED) && access(request.ca_cert_file, F_OK))
		return cli_fail(error, "%s ('securdma cert ca' makes a CA, --ca and --ca-key name another)", name);
	if (error)
		return cli_fail(error, "%s", name);
	return report_made(subcommand, &request, arguments->json);
}

/* ---- command line ---- */

static const struct subcommand *find_subcommand(const char *name)
{
	for (size_t i = 0; i < sizeof subcommands / sizeof *subcommands; i++)
		if (strcmp(subcommands[i].name + strlen("cert "), name) == 0)
			return &subcommands[i];
	return NULL;
}

int cmd_cert(int argc, char **argv)
{
	const struct subcommand *subcommand = argc > 1 ? find_subcommand(argv[1]) : NULL;
	struct arguments arguments = {.warn_days = WARN_DAYS_DEFAULT};
	struct command_line line = {
		.name = subcommand ? subcommand->name : "cert",
		.command = subcommand ? subcommand->flag : MADE | SHOW | PIN,
		.synopsis = subcommand ? subcommand->synopsis : "SUBCOMMAND [OPTION]... [FILE]",
		.about = subcommand ? subcommand->about : about,
		.details = details,
		.options = options,
		.option_count = OPTION_COUNT,
		.values = &arguments,
		.operands = &arguments.file,
		.max_operands = 1,
	};
	int code;

	if (argc < 2)
		return cli_usage("cert", "give a subcommand: ca, server, client, self-signed, show or pin");
	if (!subcommand && argv[1][0] != '-')
		return cli_usage("cert", "unknown subcommand '%s'", argv[1]);
	if (command_line_parse(&line, subcommand ? argc - 1 : argc, subcommand ? argv + 1 : argv, &code))
		code = subcommand ? subcommand->run(subcommand, &arguments) : cli_usage("cert", "the subcommand goes before its options");
	options_free(options, OPTION_COUNT, &arguments);
	return code;
}
