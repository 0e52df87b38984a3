/* SPDX-License-Identifier: Apache-2.0 */
/* The settings that the subcommands share: defaults of the library, then the configuration file, then flags. */
#ifndef CLI_SETTINGS_H
#define CLI_SETTINGS_H

#include "agent_settings.h"
#include "identities.h"
#include "option.h"
#include "securdma_server.h"
#include "tunnel_targets.h"

#define FOR_SERVE   (1U << 0)
#define FOR_CONNECT (1U << 1)
#define FOR_DOCTOR  (1U << 2)
#define FOR_BENCH   (1U << 3)
#define FOR_CONTROL (1U << 4)
#define FOR_CP      (1U << 6)
#define FOR_TUNNEL  (1U << 7)
#define FOR_AGENT   (1U << 8)
/* Not a command: a reload puts the new value into effect while the server runs. */
#define AT_RELOAD   (1U << 5)
#define FOR_ALL     (~AT_RELOAD)

/* The library's own structures, to whose fields the table of settings.c points, and the command's own settings. The struct owns all
 * strings, including those in the library's structures. */
struct settings {
	char *config_file;
	int64_t log_level, log_format;
	bool json;

	struct srdma_device_options device;
	int64_t device_wait_ms;

	char *cert_file, *key_file;        /* of either end, as the next two: settings_client_tls and settings_server_tls */
	bool allow_tls12, crl_require_all;
	struct srdma_tls_client_options client_tls;
	struct srdma_tls_server_options server_tls;

	struct srdma_qp_options qp;
	struct srdma_conn_options conn;
	int64_t reconnect_ms;

	struct srdma_server_options server;
	struct srdma_server_limits limits;
	bool listen_port_said;        /* by the file or a flag; no option */
	struct identities identities; /* no option: the sections of the file */
	char *user, *group;
	bool no_sandbox;
	char *control, *metrics;

	char *files_directory;
	int64_t files_rights, files_quota, files_copies, files_copies_per_identity;
	struct tunnel_targets tunnel_targets; /* no option: the section [tunnel-targets] */
	char *tunnel_allow;
	int64_t tunnel_connect_timeout_ms, tunnel_idle_timeout_ms;

	struct agent_settings agent;
	struct agent_peers agent_peers; /* no option: the sections [peer NAME] */

	char *host, *port;
};

extern const struct option settings_options[];
extern const size_t settings_option_count;

/* Where the commands look for a server that nobody has named: what securdma.service has. */
#define SETTINGS_CONTROL "/run/securdma/control"
#define SETTINGS_AGENT_PORT "4434"

/* Fills in the library's defaults. */
void settings_init(struct settings *settings);
/* Fills in what stays open until file and flags are read. Returns an exit code. */
int settings_complete(struct settings *settings);
void settings_free(struct settings *settings);

/* Reads the INI file. Prints each error with the file, the line and the allowed values. Returns an exit code.
 */
int settings_read_file(struct settings *settings, const char *file);

/* Calls `differs` for each setting of the commands in `command` that is not the same in both. */
void settings_compare(const struct settings *a, const struct settings *b, unsigned command,
		      void (*differs)(const struct option *option, void *arg), void *arg);

/* The library's forms. The strings stay the settings'. options->qp becomes `qp`. */
void settings_conn_options(const struct settings *settings, struct srdma_conn_options *options, struct srdma_qp_options *qp);
void settings_client_tls(const struct settings *settings, struct srdma_tls_client_options *options);
void settings_server_tls(const struct settings *settings, struct srdma_tls_server_options *options);
/* The identities stay the settings'. Errors: -ENOMEM. */
int settings_server_limits(struct settings *settings, struct srdma_server_limits *limits);
/* A server's options with what they point to: not to be copied. */
struct server_options {
	struct srdma_server_options server;
	struct srdma_server_limits limits;
	struct srdma_conn_options conn;
	struct srdma_qp_options qp;
};
/* Likewise. */
int settings_server_options(struct settings *settings, struct server_options *options);

/* credentials.c: judges certificates and keys as `securdma doctor` does, logs warnings, and loads them. Errors: those of
 * srdma_tls_server_check and srdma_tls_server_new, and of their forms for a client. */
int credentials_server(const struct settings *settings, struct srdma_tls_context **out);
int credentials_client(const struct settings *settings, struct srdma_tls_context **out);

/* Splits "HOST", "HOST:PORT", "[ADDRESS]", "[ADDRESS]:PORT" or a bare IPv6 address, and puts it into host and port.
 * Errors: -EINVAL, -ENOMEM. */
int settings_set_target(struct settings *settings, const char *target);

#endif
