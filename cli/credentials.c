/* SPDX-License-Identifier: Apache-2.0 */
#include "settings.h"

#include "cli.h"

static void log_warning(const struct srdma_check *check, void *arg)
{
	(void)arg;
	if (check->result == SRDMA_CHECK_WARN)
		cli_log(SRDMA_LOG_WARN, "%s%s%s", check->text, check->advice ? "; " : "", check->advice ? check->advice : "");
}

int credentials_server(const struct settings *settings, struct srdma_tls_context **out)
{
	struct srdma_tls_server_options options;
	int ret;

	settings_server_tls(settings, &options);
	ret = srdma_tls_server_check(&options, log_warning, NULL);
	return ret == 0 ? srdma_tls_server_new(&options, out) : ret;
}

int credentials_client(const struct settings *settings, struct srdma_tls_context **out)
{
	struct srdma_tls_client_options options;
	int ret;

	settings_client_tls(settings, &options);
	ret = srdma_tls_client_check(&options, log_warning, NULL);
	return ret == 0 ? srdma_tls_client_new(&options, out) : ret;
}
