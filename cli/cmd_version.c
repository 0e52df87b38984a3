/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"
#include "command_line.h"

#include <dlfcn.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char about[] = "Prints the versions of securdma, OpenSSL and libibverbs.";
static const char details[] = "Exit codes: 0 printed, 2 usage.\n";

/* libibverbs has no call that tells its version, but its file bears the one of rdma-core: libibverbs.so.1.14.44.0. */
static void verbs_version(char *text, size_t size)
{
	static const char stem[] = "libibverbs.so.";
	char path[PATH_MAX];
	const char *name;
	Dl_info info;

	snprintf(text, size, "unknown");
	if (!dladdr((void *)ibv_get_device_list, &info) || !info.dli_fname || !realpath(info.dli_fname, path))
		return;
	name = strstr(path, stem);
	if (name)
		snprintf(text, size, "%s", name + strlen(stem));
}

int cmd_version(int argc, char **argv)
{
	struct settings settings;
	struct command_line line = {
		.name = "version",
		.command = 1U << 31,
		.synopsis = "[--json]",
		.about = about,
		.details = details,
		.settings = &settings,
	};
	char verbs[64];
	int code;

	settings_init(&settings);
	if (!command_line_parse(&line, argc, argv, &code))
		goto out;
	verbs_version(verbs, sizeof verbs);
	if (settings.json)
		cli_json_print(json_pack("{s:s, s:s, s:s}", "securdma", srdma_version(), "openssl",
					 OpenSSL_version(OPENSSL_VERSION_STRING), "libibverbs", verbs));
	else
		printf("securdma %s\n%s\nlibibverbs %s\n", srdma_version(), OpenSSL_version(OPENSSL_VERSION), verbs);
out:
	settings_free(&settings);
	return code;
}
