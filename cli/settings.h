/* SPDX-License-Identifier: Apache-2.0 */
/* The settings that the subcommands share: defaults of the library, then the configuration file, then flags. */
#ifndef CLI_SETTINGS_H
#define CLI_SETTINGS_H

#include "identities.h"
#include "option.h"
#include "securdma_server.h"

#define FOR_SERVE   (1U << 0)
#define FOR_CONNECT (1U << 1)
#define FOR_DOCTOR  (1U << 2)
#define FOR_BENCH   (1U << 3)
#define FOR_CONTROL (1U << 4)
/* Not a command: a reload puts the new value into effect while the server runs. */
#define AT_RELOAD   (1U << 5)
#define FOR_ALL     (~AT_RELOAD)

/* Numbers are int64_t because options are; their ranges are in the table of settings.c. */
struct settings {
	char *config_file;
	int64_t log_level, log_format;
	bool json;

	char *device;
	int64_t device_port, gid_index, device_wait_ms;

	char *ca_file, *pin, *server_name, *cert_file, *key_file, *client_ca_file, *crl_file, *client_crl_file;
	bool insecure_anonymous_clients, allow_tls12, crl_require_all;
	char *identity_from;

	int64_t path_mtu, message_size, max_bytes_per_second, depth, rdma_depth, region_size, region_access;
	int64_t timeout_ms, setup_timeout_ms, busy_retry_ms, reconnect_ms, spin;
	char *user, *group;
	bool no_sandbox;
	int64_t seal, epoch_psns, epoch_ms, recoveries;
	char *gid_networks;
	int64_t qp_timeout, retry_count, rnr_retry, min_rnr_timer, max_rd_atomic, service_level, traffic_class,
		hop_limit;

	char *listen_address, *listen_port;
	bool listen_port_said; /* by the file or a flag; no option */
	int64_t max_clients, max_pending, max_clients_per_identity, max_clients_per_address, max_setups_per_second;
	bool only_listed_identities;
	struct identities identities; /* no option: the sections of the file */
	char *control;
	int64_t workers, drain_timeout_ms;
	char *metrics;
	char *proxy_networks;

	char *host, *port;
};

extern const struct option settings_options[];
extern const size_t settings_option_count;

/* Where the commands look for a server that nobody has named: what securdma.service has. */
#define SETTINGS_CONTROL "/run/securdma/control"

/* Fills in the library's defaults. Errors: -ENOMEM. */
int settings_init(struct settings *settings);
/* Fills in what stays open until file and flags are read. Returns an exit code. */
int settings_complete(struct settings *settings);
void settings_free(struct settings *settings);

/* Reads the INI file. Each thing wrong with it is reported with file, line and what is allowed. Returns an exit code.
 */
int settings_read_file(struct settings *settings, const char *file);

/* Calls `differs` for each setting of the commands in `command` that is not the same in both. */
void settings_compare(const struct settings *a, const struct settings *b, unsigned command,
		      void (*differs)(const struct option *option, void *arg), void *arg);

/* The library's forms. The strings stay the settings'. */
/* options->qp becomes `qp`. */
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
/* All but where to listen. Likewise. */
int settings_server_options(struct settings *settings, struct server_options *options);

/* Opens the device that the settings name. Errors: of srdma_device_open. */
int settings_open_device(const struct settings *settings, struct srdma_device **device);

/* Splits "HOST", "HOST:PORT", "[ADDRESS]", "[ADDRESS]:PORT" or a bare IPv6 address, and puts it into host and port.
 * Errors: -EINVAL, -ENOMEM. */
int settings_set_target(struct settings *settings, const char *target);

#endif
