/* SPDX-License-Identifier: Apache-2.0 */
#include "serve.h"

#include "cli.h"
#include "control_reload.h"

/* The sandbox was made for the folders of the start, or for none. */
static bool takes_files(const struct serve *serve, const struct settings *fresh, json_t *later)
{
	const char *folder = serve->files ? serve_files_new_folder(serve->files, fresh) : NULL;

	if (serve->files && !folder)
		return true;
	if (!serve->files && !serve_files_wanted(fresh))
		return false;
	if (folder)
		cli_log(SRDMA_LOG_WARN, "reload: the sandbox does not let this server write to %s yet: [files] takes effect at the next start", folder);
	else
		cli_log(SRDMA_LOG_WARN, "reload: this server offers no files yet: [files] takes effect at the next start");
	if (later)
		json_array_append_new(later, json_string("--files-directory"));
	return false;
}

static int apply(struct srdma_server *server, struct settings *fresh)
{
	struct srdma_server_limits limits;
	struct srdma_tls_context *context = NULL;
	int ret;

	ret = credentials_server(fresh, &context);
	if (ret == 0)
		ret = settings_server_limits(fresh, &limits);
	/* Here everything else is checked: setting the context cannot fail. */
	if (ret == 0)
		ret = srdma_server_set_limits(server, &limits);
	if (ret == 0)
		ret = srdma_server_set_tls(server, context);
	srdma_tls_context_unref(&context);
	return ret;
}

/* A server without targets has no thread for tunnels, and its clients have no service but the echo. */
static bool takes_tunnels(const struct serve *serve, const struct settings *fresh, json_t *later)
{
	if (serve->tunnels || !tunnel_server_wanted(fresh))
		return serve->tunnels != NULL;
	cli_log(SRDMA_LOG_WARN, "reload: this server has no tunnels yet: [tunnel-targets] takes effect at the next start");
	if (later)
		json_array_append_new(later, json_string("[tunnel-targets]"));
	return false;
}

/* The sandbox was made for the ports of the start. */
static void name_forbidden_targets(const struct serve *serve, const struct settings *fresh, json_t *later)
{
	bool any = false;

	for (size_t i = 0; i < fresh->tunnel_targets.count; i++) {
		const struct tunnel_target *target = &fresh->tunnel_targets.items[i];

		if (tunnel_server_reaches(serve->tunnels, target))
			continue;
		cli_log(SRDMA_LOG_WARN, "reload: the sandbox does not let this server connect to port %u yet: the target '%s' takes effect at the next start",
			tunnel_target_port(target), target->name);
		any = true;
	}
	if (any && later)
		json_array_append_new(later, json_string("[tunnel-targets]"));
}

bool reload(struct serve *serve, struct settings *fresh, json_t *later)
{
	struct settings *settings = &serve->settings, old;

	if (serve_files_check(fresh) != CLI_EXIT_OK) {
		cli_log_event(SRDMA_LOG_ERROR, "server.reload_failed", "not reloaded: [files] is not valid; the server keeps all old values");
		return false;
	}
	if (tunnel_server_check(fresh) != CLI_EXIT_OK) {
		cli_log_event(SRDMA_LOG_ERROR, "server.reload_failed", "not reloaded: [tunnel-targets] is not valid; the server keeps all old values");
		return false;
	}
	if (apply(serve->server, fresh) != 0) {
		cli_log_event(SRDMA_LOG_ERROR, "server.reload_failed", "not reloaded: %s; the server keeps all old values",
			      srdma_error_text());
		return false;
	}
	/* Copies that run keep what they began with. */
	if (takes_files(serve, fresh, later) && serve_files_set(serve->files, fresh) < 0)
		cli_log(SRDMA_LOG_ERROR, "reload: out of memory: [files] stays as it was");
	/* Tunnels that are open stay. */
	if (takes_tunnels(serve, fresh, later)) {
		name_forbidden_targets(serve, fresh, later);
		if (tunnel_server_set(serve->tunnels, fresh) < 0)
			cli_log(SRDMA_LOG_ERROR, "reload: out of memory: [tunnel] stays as it was");
	}
	settings_compare(settings, fresh, FOR_SERVE, control_name_what_stays, later);
	old = *settings;
	*settings = *fresh;
	*fresh = old; /* the caller frees it */
	cli_log_event(SRDMA_LOG_INFO, "server.reloaded",
		      "reloaded: certificates, CAs, revocation lists and limits; at most %lld client%s; listed identities: %zu",
		      (long long)settings->limits.max_clients, CLI_S(settings->limits.max_clients), settings->identities.count);
	return true;
}
