/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"
#include "command_line.h"
#include "doctor.h"

#include <stdarg.h>
#include <stdio.h>

static const char about[] =
	"Checks what securdma needs: certificates and keys, RDMA devices, ports and GIDs, permissions, memory and other\n"
	"limits, the TLS port, the random generator. Each problem comes with a way to fix it.\n"
	"It takes all settings of 'securdma serve' and checks them with the same code: a server does not start if a check\n"
	"fails here. With --ca or --pin it also checks what 'securdma connect' needs.\n"
	"With --encryption it checks instead whether something encrypts the path to a peer.";
static const char details[] =
	"With --json: one array of {what, status: ok|warn|fail, text, fix}.\n\n"
	"Exit codes: 0 nothing failed (there may be warnings), 1 something failed, 2 usage or settings,\n"
	"6 there is no usable RDMA device.\n\n"
	"Examples:\n"
	"  securdma doctor\n"
	"  securdma doctor --cert server.crt --key server.key --client-ca ca.crt --max-clients 1000\n"
	"  securdma doctor --config /etc/securdma/securdma.conf --json\n"
	"  securdma doctor --encryption 192.0.2.7 --device rxe0\n";

struct doctor_options {
	char *encryption, *from;
};

#define AT(field) OPTION_AT(struct doctor_options, field)
static const struct option options_table[] = {
	{"--encryption", NULL, NULL, OPTION_TEXT, FOR_DOCTOR, AT(encryption), 0, 0, "ADDRESS",
	 "check only whether the path to this address is encrypted"},
	{"--from", NULL, NULL, OPTION_TEXT, FOR_DOCTOR, AT(from), 0, 0, "ADDRESS", "the path from this address; default: the one that the kernel would choose"},
};
#define OPTION_COUNT (sizeof options_table / sizeof *options_table)

void doctor_find(struct doctor *doctor, enum finding finding, const char *what, const char *fix, const char *format, ...)
{
	static const char *const names[] = {"ok", "warn", "fail"};
	char text[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	doctor->counts[finding]++;
	if (doctor->findings) {
		json_array_append_new(doctor->findings, json_pack("{s:s, s:s, s:s, s:s?}", "what", what, "status",
								  names[finding], "text", text, "fix", fix));
		return;
	}
	printf("%-4s  %-17s %s\n", names[finding], what, text);
	if (fix)
		printf("%-4s  %-17s   fix: %s\n", "", "", fix);
}

static void check_all(struct doctor *doctor)
{
	doctor_check_certificates(doctor);
	doctor_become_user(doctor);
	doctor_check_devices(doctor);
	doctor_check_gids(doctor);
	doctor_check_limits(doctor);
	doctor_check_port(doctor);
	doctor_check_random(doctor);
}

static int check(struct doctor *doctor, const struct doctor_options *options)
{
	if (!options->encryption && options->from)
		return cli_usage("doctor", "--from goes with --encryption");
	if (options->encryption)
		return doctor_check_encryption(doctor, options->encryption, options->from);
	check_all(doctor);
	return CLI_EXIT_OK;
}

int cmd_doctor(int argc, char **argv)
{
	struct doctor_options options = {0};
	struct settings settings;
	struct doctor doctor = {.settings = &settings};
	struct command_line line = {
		.name = "doctor",
		.command = FOR_DOCTOR | FOR_SERVE,
		.synopsis = "[OPTION...]",
		.about = about,
		.details = details,
		.options = options_table,
		.option_count = OPTION_COUNT,
		.values = &options,
		.settings = &settings,
	};
	int code;

	settings_init(&settings);
	srdma_server_conn_options_init(&settings.conn);
	if (!command_line_parse(&line, argc, argv, &code))
		goto out;
	if (settings.json)
		doctor.findings = json_array();
	code = check(&doctor, &options);
	srdma_device_unref(&doctor.device);
	if (code == CLI_EXIT_USAGE) {
		json_decref(doctor.findings);
		goto out;
	}
	if (settings.json)
		cli_json_print(doctor.findings);
	else
		printf("%u ok, %u warning%s, %u failed\n", doctor.counts[FINDING_OK], doctor.counts[FINDING_WARN],
		       CLI_S(doctor.counts[FINDING_WARN]), doctor.counts[FINDING_FAIL]);
	if (doctor.counts[FINDING_FAIL] > 0)
		code = doctor.usable_device ? CLI_EXIT_FAILED : CLI_EXIT_DEVICE;
out:
	options_free(options_table, OPTION_COUNT, &options);
	settings_free(&settings);
	return code;
}
