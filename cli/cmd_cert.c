/* SPDX-License-Identifier: Apache-2.0 */
/* securdma cert: makes and shows certificates. */
#include "cli.h"
#include "securdma_cert.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MAX_NAMES 100
#define CN_SIZE   65
#define WARN_DAYS_DEFAULT 30

enum flag { CN, NAME, DAYS, NOT_AFTER, CA, CA_KEY, OUT, CERT, KEY, FORCE, JSON, WARN_DAYS, HELP };

#define BIT(flag)    (1U << (flag))
#define MAKE_FLAGS   (BIT(CN) | BIT(DAYS) | BIT(NOT_AFTER) | BIT(OUT) | BIT(CERT) | BIT(KEY) | BIT(FORCE) | BIT(JSON))
#define ISSUER_FLAGS (BIT(CA) | BIT(CA_KEY))

static const struct option long_options[] = {
	{"cn", required_argument, NULL, CN},     {"name", required_argument, NULL, NAME},
	{"days", required_argument, NULL, DAYS}, {"not-after", required_argument, NULL, NOT_AFTER},
	{"ca", required_argument, NULL, CA},     {"ca-key", required_argument, NULL, CA_KEY},
	{"out", required_argument, NULL, OUT},   {"cert", required_argument, NULL, CERT},
	{"key", required_argument, NULL, KEY},   {"force", no_argument, NULL, FORCE},
	{"json", no_argument, NULL, JSON},       {"warn-days", required_argument, NULL, WARN_DAYS},
	{"help", no_argument, NULL, HELP},       {NULL, 0, NULL, 0},
};

struct arguments {
	struct srdma_cert_request request;
	const char *names[MAX_NAMES];
	char cert_file[PATH_MAX], key_file[PATH_MAX], host[CN_SIZE]; /* defaults that the request points to */
	const char *out;
	const char *file;
	unsigned warn_days;
	bool json;
	bool help;
};

struct subcommand {
	const char *name;
	enum srdma_cert_kind kind;
	unsigned flags;
	unsigned days;
	const char *common_name; /* default; NULL: the first name, or this machine's */
	int (*run)(const struct subcommand *subcommand, struct arguments *arguments);
};

static int run_make(const struct subcommand *subcommand, struct arguments *arguments);
static int run_show(const struct subcommand *subcommand, struct arguments *arguments);
static int run_pin(const struct subcommand *subcommand, struct arguments *arguments);

static const struct subcommand subcommands[] = {
	{"ca", SRDMA_CERT_CA, MAKE_FLAGS, 3650, "securdma CA", run_make},
	{"server", SRDMA_CERT_SERVER, MAKE_FLAGS | ISSUER_FLAGS | BIT(NAME), 365, NULL, run_make},
	{"client", SRDMA_CERT_CLIENT, MAKE_FLAGS | ISSUER_FLAGS, 365, NULL, run_make},
	{"self-signed", SRDMA_CERT_SELF_SIGNED, MAKE_FLAGS | BIT(NAME), 365, NULL, run_make},
	{"show", 0, BIT(JSON) | BIT(WARN_DAYS), 0, NULL, run_show},
	{"pin", 0, 0, 0, NULL, run_pin},
};

static void print_help(void)
{
	fputs("Usage: securdma cert ca          [OPTION]...\n"
	      "       securdma cert server      --name NAME [OPTION]...\n"
	      "       securdma cert client      [OPTION]...\n"
	      "       securdma cert self-signed [OPTION]...\n"
	      "       securdma cert show        [--json] [--warn-days N] FILE\n"
	      "       securdma cert pin         FILE\n"
	      "Make keys and certificates (ECDSA P-256), or show a certificate.\n"
	      "\n"
	      "  ca           make a private certification authority\n"
	      "  server       make a server's certificate, issued by the CA\n"
	      "  client       make a client's certificate, issued by the CA\n"
	      "  self-signed  make a server's certificate that needs no CA; clients pin its key\n"
	      "  show         print a certificate and warn if it expires soon\n"
	      "  pin          print the pin of a certificate's key, for 'securdma connect --pin'\n"
	      "\n"
	      "Options for making:\n"
	      "      --cn NAME         common name; default: 'securdma CA', or the first --name, or this host's name\n"
	      "      --name NAME       DNS name or IP address that clients connect to; may be repeated\n"
	      "                        (server, self-signed); default for server: --cn\n"
	      "      --days N          validity, 1 to 36500; default 365, for a CA 3650\n"
	      "      --not-after TIME  end of validity instead of --days, YYYY-MM-DDTHH:MM:SSZ\n"
	      "      --ca FILE         certificate of the issuing CA (server, client); default ca.crt. If it is not\n"
	      "                        a root, it is appended to the new certificate, with the CAs above it in FILE\n"
	      "      --ca-key FILE     its private key; default ca.key\n"
	      "      --out PREFIX      write PREFIX.crt and PREFIX.key; default: the subcommand's name\n"
	      "      --cert FILE       write the certificate to FILE instead of PREFIX.crt\n"
	      "      --key FILE        write the private key (mode 0600) to FILE instead of PREFIX.key\n"
	      "      --force           replace existing files\n"
	      "      --json            describe the new certificate as JSON\n"
	      "Options for show:\n"
	      "      --warn-days N     warn if it expires within N days; default 30\n"
	      "      --json            print one JSON object\n"
	      "      --help            print this\n"
	      "\n"
	      "Exit codes: 0 success (also if the certificate expires soon); 1 failed, files already exist, or 'show' "
	      "found\n"
	      "a certificate that has expired or is not valid yet; 2 wrong options or files that do not belong together.\n"
	      "\n"
	      "Examples:\n"
	      "  securdma cert ca\n"
	      "  securdma cert server --name storage1.example.com --name 192.0.2.7\n"
	      "  securdma cert client --cn alice --out alice\n"
	      "  securdma cert self-signed --name localhost --out local\n"
	      "  securdma cert show server.crt\n"
	      "  securdma cert pin local.crt\n",
	      stdout);
}

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

static const char *status_of(const struct srdma_cert_info *info, unsigned warn_days)
{
	int64_t now = (int64_t)time(NULL);

	if (info->not_after < now)
		return "expired";
	if (info->not_before > now)
		return "not-yet-valid";
	return info->not_after - now < (int64_t)warn_days * 86400 ? "expiring" : "valid";
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

static json_t *describe_json(const char *file, const struct srdma_cert_info *info, unsigned warn_days)
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

static void describe_text(const struct srdma_cert_info *info, unsigned warn_days)
{
	const char *status = status_of(info, warn_days);
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

static int report_validity(const char *file, const struct srdma_cert_info *info, unsigned warn_days)
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

static int run_show(const struct subcommand *subcommand, struct arguments *arguments)
{
	struct srdma_cert_info info;
	int error = srdma_cert_read(arguments->file, &info);

	if (error)
		return cli_fail(error, "cert %s", subcommand->name);
	if (arguments->json)
		cli_json_print(describe_json(arguments->file, &info, arguments->warn_days));
	else
		describe_text(&info, arguments->warn_days);
	return report_validity(arguments->file, &info, arguments->warn_days);
}

static int run_pin(const struct subcommand *subcommand, struct arguments *arguments)
{
	struct srdma_cert_info info;
	int error = srdma_cert_read(arguments->file, &info);

	if (error)
		return cli_fail(error, "cert %s", subcommand->name);
	printf("%s\n", info.pin);
	return CLI_EXIT_OK;
}

/* ---- make ---- */

/* Reads the file back, so that the command shows the certificate that a peer will see. */
static int report_made(const struct subcommand *subcommand, const struct arguments *arguments)
{
	const struct srdma_cert_request *request = &arguments->request;
	struct srdma_cert_info info;
	int error = srdma_cert_read(request->cert_file, &info);
	json_t *object;

	if (error)
		return cli_fail(error, "cert %s: cannot read the new certificate", subcommand->name);
	if (arguments->json) {
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

static int make_file_names(const struct subcommand *subcommand, struct arguments *arguments)
{
	const char *prefix = arguments->out ? arguments->out : subcommand->name;

	if (strlen(prefix) + sizeof ".crt" > PATH_MAX)
		return cli_usage("cert", "--out is too long");
	snprintf(arguments->cert_file, PATH_MAX, "%s.crt", prefix);
	snprintf(arguments->key_file, PATH_MAX, "%s.key", prefix);
	if (!arguments->request.cert_file)
		arguments->request.cert_file = arguments->cert_file;
	if (!arguments->request.key_file)
		arguments->request.key_file = arguments->key_file;
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

static int run_make(const struct subcommand *subcommand, struct arguments *arguments)
{
	struct srdma_cert_request *request = &arguments->request;
	int error = make_file_names(subcommand, arguments);

	if (error)
		return error;
	if (subcommand->kind == SRDMA_CERT_SERVER && request->name_count == 0) {
		if (!request->common_name)
			return cli_usage("cert", "give --name, the name or address that clients connect to");
		arguments->names[request->name_count++] = request->common_name;
	}
	choose_common_name(subcommand, request, arguments->host);
	error = srdma_cert_make(request);
	if (error == -ENOENT && (subcommand->flags & BIT(CA)) && access(request->ca_cert_file, F_OK))
		return cli_fail(error, "cert %s ('securdma cert ca' makes a CA, --ca and --ca-key name another)",
				subcommand->name);
	if (error)
		return cli_fail(error, "cert %s", subcommand->name);
	return report_made(subcommand, arguments);
}

/* ---- command line ---- */

static bool parse_number(const char *text, unsigned min, unsigned max, unsigned *value)
{
	char *end;
	unsigned long number;

	errno = 0;
	number = strtoul(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end || errno || number < min || number > max)
		return false;
	*value = (unsigned)number;
	return true;
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

static int take_flag(enum flag flag, const char *value, struct arguments *arguments)
{
	struct srdma_cert_request *request = &arguments->request;

	switch (flag) {
	case CN: request->common_name = value; break;
	case NAME:
		if (request->name_count == MAX_NAMES)
			return cli_usage("cert", "--name can be given %d times at most", MAX_NAMES);
		arguments->names[request->name_count++] = value;
		break;
	case DAYS:
		if (!parse_number(value, 1, 36500, &request->days))
			return cli_usage("cert", "--days takes a number from 1 to 36500, not '%s'", value);
		break;
	case NOT_AFTER:
		if (!parse_time(value, &request->not_after))
			return cli_usage("cert", "--not-after takes YYYY-MM-DDTHH:MM:SSZ, not '%s'", value);
		break;
	case CA: request->ca_cert_file = value; break;
	case CA_KEY: request->ca_key_file = value; break;
	case OUT: arguments->out = value; break;
	case CERT: request->cert_file = value; break;
	case KEY: request->key_file = value; break;
	case FORCE: request->overwrite = true; break;
	case JSON: arguments->json = true; break;
	case WARN_DAYS:
		if (!parse_number(value, 0, 36500, &arguments->warn_days))
			return cli_usage("cert", "--warn-days takes a number from 0 to 36500, not '%s'", value);
		break;
	case HELP: arguments->help = true; break;
	}
	return CLI_EXIT_OK;
}

static int parse_flags(const struct subcommand *subcommand, int argc, char **argv, struct arguments *arguments)
{
	unsigned seen = 0;
	int flag, error;

	optind = 0;
	opterr = 0;
	while ((flag = getopt_long(argc, argv, ":h", long_options, NULL)) != -1) {
		if (flag == ':')
			return cli_usage("cert", "%s needs a value", argv[optind - 1]);
		if (flag == '?' && optopt > ' ')
			return cli_usage("cert", "unknown option '-%c'", optopt);
		if (flag == '?')
			return cli_usage("cert", "option '%s' is unknown, or takes no value", argv[optind - 1]);
		if (flag == 'h')
			flag = HELP;
		if (flag != HELP && !(subcommand->flags & BIT(flag)))
			return cli_usage("cert", "--%s is not an option of '%s'", long_options[flag].name,
					 subcommand->name);
		seen |= BIT(flag);
		error = take_flag((enum flag)flag, optarg, arguments);
		if (error || arguments->help)
			return error;
	}
	if ((seen & BIT(DAYS)) && (seen & BIT(NOT_AFTER)))
		return cli_usage("cert", "give either --days or --not-after");
	if ((seen & BIT(OUT)) && (seen & BIT(CERT)) && (seen & BIT(KEY)))
		return cli_usage("cert", "give either --out, or --cert and --key");
	return CLI_EXIT_OK;
}

static const struct subcommand *find_subcommand(const char *name)
{
	for (size_t i = 0; i < sizeof subcommands / sizeof *subcommands; i++)
		if (strcmp(subcommands[i].name, name) == 0)
			return &subcommands[i];
	return NULL;
}

int cmd_cert(int argc, char **argv)
{
	struct arguments arguments = {
		.warn_days = WARN_DAYS_DEFAULT,
	};
	const struct subcommand *subcommand;
	int operands, error;

	if (argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
		print_help();
		return CLI_EXIT_OK;
	}
	if (argc < 2)
		return cli_usage("cert", "give a subcommand: ca, server, client, self-signed, show or pin");
	subcommand = find_subcommand(argv[1]);
	if (!subcommand)
		return cli_usage("cert", "unknown subcommand '%s'", argv[1]);
	srdma_cert_request_init(&arguments.request);
	arguments.request.ca_cert_file = "ca.crt";
	arguments.request.ca_key_file = "ca.key";
	arguments.request.kind = subcommand->kind;
	arguments.request.days = subcommand->days;
	arguments.request.names = arguments.names;
	error = parse_flags(subcommand, argc - 1, argv + 1, &arguments);
	if (error)
		return error;
	if (arguments.help) {
		print_help();
		return CLI_EXIT_OK;
	}
	operands = argc - 1 - optind;
	if (subcommand->run == run_make ? operands > 0 : operands > 1)
		return cli_usage("cert", "unexpected argument '%s'", argv[argc - 1]);
	if (subcommand->run != run_make && operands == 0)
		return cli_usage("cert", "%s needs a certificate FILE", subcommand->name);
	arguments.file = operands ? argv[argc - 1] : NULL;
	return subcommand->run(subcommand, &arguments);
}
