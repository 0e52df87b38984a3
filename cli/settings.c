/* SPDX-License-Identifier: Apache-2.0 */
#include "settings.h"

#include "cli.h"

#include <errno.h>
#include <ini.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AT(field) OPTION_AT(struct settings, field)
#define FOR_CLIENTS (FOR_CONNECT | FOR_BENCH | FOR_CP | FOR_TUNNEL)
#define FOR_VERBS   (FOR_SERVE | FOR_CONNECT | FOR_BENCH | FOR_CP | FOR_TUNNEL)
#define MS_MAX      3600000
#define LINE_SIZE   IDENTITIES_LINE_SIZE

/* {flag, section, key, type, commands, offset, min, max, value name, help} */
const struct option settings_options[] = {
	{"--config", NULL, NULL, OPTION_TEXT, FOR_ALL, AT(config_file), 0, 0, "FILE",
	 "configuration file; default: the file that SECURDMA_CONFIG names"},
	{"--log-level", "log", "level", OPTION_LEVEL, FOR_ALL, AT(log_level), 0, 0, "LEVEL",
	 "error, warn, info or debug"},
	{"--log-format", "log", "format", OPTION_LOG_FORMAT, FOR_ALL, AT(log_format), 0, 0, "FORMAT",
	 "text, or json: one object per line"},
	{"--json", NULL, NULL, OPTION_SWITCH, FOR_ALL, AT(json), 0, 0, NULL, "print JSON, for scripts"},

	{"--device", "device", "name", OPTION_TEXT, FOR_ALL & ~(FOR_CONTROL | FOR_AGENT), AT(device.name), 0, 0, "NAME",
	 "RDMA device; default: the first with an active port, preferably one of this network namespace"},
	{"--port-num", "device", "port", OPTION_NUMBER, FOR_ALL & ~(FOR_CONTROL | FOR_AGENT), AT(device.port), 0, 255, "N",
	 "port of the device; 0: the first active port"},
	{"--device-wait-ms", "device", "wait-ms", OPTION_NUMBER, FOR_SERVE, AT(device_wait_ms), 0, MS_MAX, "N",
	 "time to wait for a missing device; 0: do not wait"},
	{"--gid-index", "device", "gid-index", OPTION_NUMBER, FOR_VERBS, AT(device.gid_index), -1, 255, "N",
	 "index of the source GID; -1: choose it by the address"},

	{"--ca", "tls", "ca", OPTION_TEXT, FOR_CLIENTS | FOR_DOCTOR | FOR_AGENT | AT_RELOAD, AT(client_tls.ca_file), 0, 0, "FILE",
	 "CA certificates to verify the server with, or other agents"},
	{"--pin", "tls", "pin", OPTION_TEXT, FOR_CLIENTS | FOR_DOCTOR, AT(client_tls.pin), 0, 0, "sha256:HEX",
	 "pin of the public key in a self-signed server certificate, instead of --ca"},
	{"--server-name", "tls", "server-name", OPTION_TEXT, FOR_CLIENTS, AT(client_tls.server_name), 0, 0, "NAME",
	 "name that the server's certificate must contain; default: HOST"},
	{"--cert", "tls", "cert", OPTION_TEXT, (FOR_ALL & ~FOR_CONTROL) | AT_RELOAD, AT(cert_file), 0, 0, "FILE", "certificate of this end"},
	{"--key", "tls", "key", OPTION_TEXT, (FOR_ALL & ~FOR_CONTROL) | AT_RELOAD, AT(key_file), 0, 0, "FILE", "private key of this end"},
	{"--client-ca", "tls", "client-ca", OPTION_TEXT, FOR_SERVE | FOR_DOCTOR | AT_RELOAD, AT(server_tls.client_ca_file), 0, 0, "FILE",
	 "CA certificates to verify clients with"},
	{"--crl", "tls", "crl", OPTION_TEXT, FOR_CLIENTS | FOR_DOCTOR | FOR_AGENT | AT_RELOAD, AT(client_tls.crl_file), 0, 0, "FILE",
	 "revocation lists of the CAs in --ca"},
	{"--client-crl", "tls", "client-crl", OPTION_TEXT, FOR_SERVE | AT_RELOAD, AT(server_tls.client_crl_file), 0, 0, "FILE",
	 "revocation lists of the CAs in --client-ca"},
	{"--crl-require-all", "tls", "crl-require-all", OPTION_SWITCH, FOR_SERVE | FOR_CLIENTS | FOR_AGENT | AT_RELOAD, AT(crl_require_all), 0, 0, NULL,
	 "require a revocation list for each CA below the trusted one, too"},
	{"--identity-from", "tls", "identity-from", OPTION_TEXT, FOR_SERVE | FOR_AGENT | AT_RELOAD, AT(server_tls.identity_from), 0, 0, "KIND,...",
	 "kinds of certificate names that identify a client or an agent, in order: cn, uri, email, dns, pin; default: cn,uri,email,dns"},
	{"--insecure-anonymous-clients", "tls", "insecure-anonymous-clients", OPTION_SWITCH, FOR_SERVE | AT_RELOAD,
	 AT(server_tls.insecure_anonymous_clients), 0, 0, NULL, "serve clients without a certificate"},
	{"--allow-tls12", "tls", "allow-tls12", OPTION_SWITCH, FOR_SERVE | FOR_CLIENTS | AT_RELOAD, AT(allow_tls12), 0, 0, NULL,
	 "accept TLS 1.2 as well as 1.3"},

	{"--mtu", "connection", "mtu", OPTION_NUMBER, FOR_VERBS, AT(qp.path_mtu), 0, 4096, "BYTES",
	 "highest path MTU: 256, 512, 1024, 2048 or 4096; 0: the MTU of the port"},
	{"--message-size", "connection", "message-size", OPTION_SIZE, FOR_VERBS | FOR_DOCTOR, AT(conn.message_size), 64,
	 1 << 20, "BYTES", "longest message; the ends use the lower of their values"},
	{"--depth", "connection", "depth", OPTION_NUMBER, FOR_VERBS | FOR_DOCTOR, AT(conn.depth), 1, 4096, "N",
	 "messages in flight per direction; the ends use the lower of their values"},
	{"--rdma-depth", "connection", "rdma-depth", OPTION_NUMBER, FOR_VERBS, AT(conn.rdma_depth), 1, 4096, "N",
	 "RDMA writes and reads in flight"},
	{"--region-size", "connection", "region-size", OPTION_SIZE, FOR_VERBS | FOR_DOCTOR, AT(conn.region_size), 0,
	 (int64_t)1 << 40, "BYTES", "size of the memory region that the peer can access"},
	{"--region-access", "connection", "region-access", OPTION_ACCESS, FOR_SERVE | FOR_CONNECT, AT(conn.region_access), 0,
	 0, "RIGHTS", "access that the peer has to the region: rw, r, w or none"},
	{"--timeout-ms", "connection", "timeout-ms", OPTION_NUMBER, FOR_VERBS, AT(conn.timeout_ms), 1, MS_MAX, "N",
	 "timeout of each blocking operation"},
	{"--setup-timeout-ms", "connection", "setup-timeout-ms", OPTION_NUMBER, FOR_VERBS, AT(conn.setup_timeout_ms), 1,
	 MS_MAX, "N", "timeout of name lookup, TCP, TLS, exchange and queue pair together"},
	{"--busy-retry-ms", "connection", "busy-retry-ms", OPTION_NUMBER, FOR_CLIENTS, AT(conn.busy_retry_ms), 0, MS_MAX, "N",
	 "time to retry while the server is too busy; 0: no retry"},
	{"--reconnect-ms", "connection", "reconnect-ms", OPTION_NUMBER, FOR_CONNECT, AT(reconnect_ms), 0, MS_MAX, "N",
	 "time to try to reconnect after a loss; 0: do not reconnect"},
	{"--seal", "connection", "seal", OPTION_SEAL, FOR_VERBS, AT(conn.seal), 0, 0, "off|required",
	 "encrypt and authenticate all RDMA traffic; both ends need the same setting"},
	{"--seal-threads", "connection", "seal-threads", OPTION_NUMBER, FOR_VERBS, AT(conn.seal_threads), 0, 64, "N",
	 "threads that seal and open ahead for sealed connections; 0: each connection's own thread does it"},
	{"--epoch-psns", "connection", "epoch-psns", OPTION_NUMBER, FOR_VERBS, AT(conn.epoch_psns), 0, SRDMA_EPOCH_PSNS, "N",
	 "packets that each end may send before both draw new PSNs; 0: no limit, and no recovery"},
	{"--epoch-ms", "connection", "epoch-ms", OPTION_NUMBER, FOR_VERBS, AT(conn.epoch_ms), 0, MS_MAX, "N",
	 "milliseconds after which both ends draw new PSNs and make a new queue pair; 0: no time limit"},
	{"--recoveries", "connection", "recoveries", OPTION_NUMBER, FOR_VERBS, AT(conn.recoveries), 0, 1000000, "N",
	 "failed queue pairs to replace per minute; 0: a failure ends the connection"},
	{"--max-bytes-per-second", "connection", "max-bytes-per-second", OPTION_SIZE, FOR_SERVE | FOR_CP, AT(conn.max_bytes_per_second), 0,
	 (int64_t)1 << 40, "BYTES",
	 "bytes per second accepted from the peer: messages and, if sealed, writes and reads; 0: no limit"},
	{"--spin", "connection", "spin", OPTION_NUMBER, FOR_VERBS, AT(conn.spin), -1, 1000000, "US",
	 "microseconds to poll before sleeping; -1: always poll"},
	{"--gid-networks", "connection", "gid-networks", OPTION_TEXT, FOR_VERBS, AT(conn.gid_networks), 0, 0, "CIDR,...",
	 "networks in which a peer's GID may be, besides the address of its TLS connection"},

	{"--qp-timeout", "connection", "qp-timeout", OPTION_NUMBER, FOR_VERBS, AT(qp.timeout), 0, 31, "N",
	 "local ACK timeout, 4.096 us * 2^N; 0: no timeout"},
	{"--retry-count", "connection", "retry-count", OPTION_NUMBER, FOR_VERBS, AT(qp.retry_count), 0, 7, "N",
	 "transport retries"},
	{"--rnr-retry", "connection", "rnr-retry", OPTION_NUMBER, FOR_VERBS, AT(qp.rnr_retry), 0, 7, "N",
	 "retries when the receiver is not ready; 7: no limit"},
	{"--min-rnr-timer", "connection", "min-rnr-timer", OPTION_NUMBER, FOR_VERBS, AT(qp.min_rnr_timer), 0, 31, "N",
	 "RNR NAK timer code of the InfiniBand specification"},
	{"--max-rd-atomic", "connection", "max-rd-atomic", OPTION_NUMBER, FOR_VERBS, AT(qp.max_rd_atomic), 1, 128, "N",
	 "outstanding RDMA reads; the device may allow fewer"},
	{"--service-level", "connection", "service-level", OPTION_NUMBER, FOR_VERBS, AT(qp.service_level), 0, 15, "N",
	 "InfiniBand service level"},
	{"--traffic-class", "connection", "traffic-class", OPTION_NUMBER, FOR_VERBS, AT(qp.traffic_class), 0, 255, "N",
	 "traffic class of the GRH or IP header"},
	{"--hop-limit", "connection", "hop-limit", OPTION_NUMBER, FOR_VERBS, AT(qp.hop_limit), 1, 255, "N",
	 "hop limit of the GRH or IP header"},

	{"--listen", "server", "address", OPTION_TEXT, FOR_SERVE | FOR_DOCTOR, AT(server.address), 0, 0, "ADDRESS",
	 "address to listen on; default: all"},
	{"--port", "server", "port", OPTION_TEXT, FOR_SERVE | FOR_DOCTOR, AT(server.port), 0, 0, "PORT",
	 "TLS port to listen on; 0: any free port; default: " SRDMA_DEFAULT_PORT},
	{"--max-clients", "server", "max-clients", OPTION_NUMBER, FOR_SERVE | FOR_DOCTOR | AT_RELOAD, AT(limits.max_clients), 1,
	 1000000, "N", "clients that may be connected at once"},
	{"--max-clients-per-identity", "server", "max-clients-per-identity", OPTION_NUMBER, FOR_SERVE | AT_RELOAD,
	 AT(limits.max_clients_per_identity), 0, 1000000, "N",
	 "clients of one identity that may be connected at once; 0: max-clients"},
	{"--max-clients-per-address", "server", "max-clients-per-address", OPTION_NUMBER, FOR_SERVE | AT_RELOAD,
	 AT(limits.max_clients_per_address), 0, 1000000, "N", "clients from one IP address that may be connected at once; 0: max-clients"},
	{"--only-listed-identities", "server", "only-listed-identities", OPTION_SWITCH, FOR_SERVE | AT_RELOAD, AT(limits.only_listed_identities), 0,
	 0, NULL, "serve only clients whose name has an [identity NAME] section in the configuration file"},
	{"--workers", "server", "workers", OPTION_WORKERS, FOR_SERVE, AT(server.workers), 1, 1024, "N",
	 "threads that serve clients; auto: one per processor; per-client: one per client"},
	{"--max-pending", "server", "max-pending", OPTION_NUMBER, FOR_SERVE | AT_RELOAD, AT(limits.max_pending), 1, 65535, "N",
	 "authenticated clients in set-up at once; the server tells others to retry"},
	{"--max-setups-per-second", "server", "max-setups-per-second", OPTION_NUMBER, FOR_SERVE | AT_RELOAD,
	 AT(limits.max_setups_per_second), 0, 1000000, "N", "set-ups that may begin per second; 0: no limit"},
	{"--proxy-networks", "server", "proxy-networks", OPTION_TEXT, FOR_SERVE, AT(server.proxy_networks), 0, 0, "CIDR,...",
	 "networks of load balancers, which must send a PROXY header"},
	{"--drain-timeout-ms", "server", "drain-timeout-ms", OPTION_NUMBER, FOR_SERVE, AT(server.drain_timeout_ms), 0, MS_MAX,
	 "N", "time that clients have to disconnect when the server stops"},
	{"--metrics", "server", "metrics", OPTION_TEXT, FOR_SERVE, AT(metrics), 0, 0, "ADDRESS:PORT",
	 "serve Prometheus metrics over HTTP; PORT alone: on the loopback address; default: none"},

	{"--user", "server", "user", OPTION_TEXT, FOR_SERVE | FOR_DOCTOR, AT(user), 0, 0, "NAME",
	 "user that the server switches to when root has started it"},
	{"--group", "server", "group", OPTION_TEXT, FOR_SERVE, AT(group), 0, 0, "NAME", "group that it switches to; default: that of the user"},
	{"--no-sandbox", "server", "no-sandbox", OPTION_SWITCH, FOR_SERVE, AT(no_sandbox), 0, 0, NULL,
	 "disable the system-call filter"},

	{"--control", "server", "control", OPTION_TEXT, FOR_SERVE | FOR_CONTROL, AT(control), 0, 0, "PATH",
	 "control socket of the server; default: " SETTINGS_CONTROL " (a server has it only under a service manager)"},

	{"--files-directory", "files", "directory", OPTION_TEXT, FOR_SERVE | AT_RELOAD, AT(files_directory), 0, 0, "DIR",
	 "folder that clients copy to and from with 'securdma cp'; default: none"},
	{"--files-rights", "files", "rights", OPTION_ACCESS, FOR_SERVE | AT_RELOAD, AT(files_rights), 0, 0, "RIGHTS",
	 "what clients may do there: r, w, rw or none"},
	{"--files-quota", "files", "quota", OPTION_SIZE, FOR_SERVE | AT_RELOAD, AT(files_quota), 0, (int64_t)1 << 60, "BYTES",
	 "bytes that may stand in the folder when clients write; 0: no limit"},
	{"--files-copies", "files", "copies", OPTION_NUMBER, FOR_SERVE | AT_RELOAD, AT(files_copies), 1, 256, "N",
	 "copies that may run at once, each in a thread"},
	{"--files-copies-per-identity", "files", "copies-per-identity", OPTION_NUMBER, FOR_SERVE | AT_RELOAD, AT(files_copies_per_identity), 0,
	 256, "N", "copies of one identity that may run at once; 0: half of the copies"},

	{"--tunnel-allow", "tunnel", "allow", OPTION_TEXT, FOR_SERVE | AT_RELOAD, AT(tunnel_allow), 0, 0, "NAME,...",
	 "targets of [tunnel-targets] that clients may use; *: all; default: none"},
	{"--tunnel-connect-timeout-ms", "tunnel", "connect-timeout-ms", OPTION_NUMBER, FOR_SERVE | AT_RELOAD, AT(tunnel_connect_timeout_ms), 1,
	 MS_MAX, "N", "time that a target has to answer"},
	{"--tunnel-idle-timeout-ms", "tunnel", "idle-timeout-ms", OPTION_NUMBER, FOR_SERVE | AT_RELOAD, AT(tunnel_idle_timeout_ms), 0, MS_MAX,
	 "N", "time without a byte after which a tunnel ends; 0: none"},

	{"--socket", "agent", "socket", OPTION_TEXT, FOR_AGENT, AT(agent.socket), 0, 0, "PATH",
	 "Unix socket for programs; default: securdma/agent.sock in /run, or in XDG_RUNTIME_DIR for a user other than root"},
	{"--mode", "agent", "mode", OPTION_MODE, FOR_AGENT | AT_RELOAD, AT(agent.mode), 0, 0, "enforce|observe",
	 "refuse connections that the agent cannot vouch for, or let them go on and log them"},
	{"--require-encryption", "agent", "require-encryption", OPTION_SWITCH, FOR_AGENT | AT_RELOAD, AT(agent.require_encryption), 0, 0, NULL,
	 "refuse connections over paths that MACsec, IPsec or WireGuard do not encrypt"},
	{"--users", "agent", "users", OPTION_TEXT, FOR_AGENT | AT_RELOAD, AT(agent.users), 0, 0, "USER,...",
	 "local users, and @groups, that may connect to hosts without a [peer NAME] section; default: all"},
	{"--only-listed-peers", "agent", "only-listed-peers", OPTION_SWITCH, FOR_AGENT | AT_RELOAD, AT(agent.only_listed_peers), 0, 0, NULL,
	 "connect only to hosts with a [peer NAME] section in the configuration file"},
	{"--map", "agent", "map", OPTION_TEXT, FOR_AGENT | AT_RELOAD, AT(agent.map), 0, 0, "FILE",
	 "which host has which GID or LID, where GIDs are no addresses (InfiniBand)"},
	{"--listen", "agent", "address", OPTION_TEXT, FOR_AGENT, AT(agent.listen), 0, 0, "ADDRESS", "address to listen on for other agents; default: all"},
	{"--port", "agent", "port", OPTION_TEXT, FOR_AGENT, AT(agent.port), 0, 0, "PORT",
	 "TLS port to listen on for other agents; default: " SETTINGS_AGENT_PORT},
	{"--peer-port", "agent", "peer-port", OPTION_TEXT, FOR_AGENT, AT(agent.peer_port), 0, 0, "PORT",
	 "TLS port on which other agents listen; default: the agent's own"},
	{"--queue-pairs-per-user", "agent", "queue-pairs-per-user", OPTION_NUMBER, FOR_AGENT | AT_RELOAD, AT(agent.queue_pairs_per_user), 1, 16777216, "N",
	 "queue pairs that the programs of one user may have"},
	{"--programs-per-user", "agent", "programs-per-user", OPTION_NUMBER, FOR_AGENT | AT_RELOAD, AT(agent.programs_per_user), 1, 65536, "N",
	 "programs of one user that may be connected"},
	{"--queries-per-second", "agent", "queries-per-second", OPTION_NUMBER, FOR_AGENT | AT_RELOAD, AT(agent.queries_per_second), 1, 1000000, "N",
	 "questions per second accepted from each peer, which waits beyond that"},
	{"--max-sessions", "agent", "max-sessions", OPTION_NUMBER, FOR_AGENT | AT_RELOAD, AT(agent.max_sessions), 1, 65536, "N",
	 "sessions with other agents"},
	{"--max-handshakes", "agent", "max-handshakes", OPTION_NUMBER, FOR_AGENT | AT_RELOAD, AT(agent.max_handshakes), 1, 4096, "N",
	 "connections of agents that have not authenticated yet"},
	{"--max-handshakes-per-second", "agent", "max-handshakes-per-second", OPTION_NUMBER, FOR_AGENT | AT_RELOAD, AT(agent.max_handshakes_per_second), 1,
	 100000, "N", "connections of agents that may begin per second"},
	{"--connect-timeout-ms", "agent", "connect-timeout-ms", OPTION_NUMBER, FOR_AGENT | AT_RELOAD, AT(agent.connect_timeout_ms), 100, MS_MAX, "N",
	 "time until a program has its answer"},
	{"--keepalive-ms", "agent", "keepalive-ms", OPTION_NUMBER, FOR_AGENT | AT_RELOAD, AT(agent.keepalive_ms), 100, MS_MAX, "N",
	 "silence after which a peer is asked whether it is there; after three times that it counts as gone"},
	{"--idle-timeout-ms", "agent", "idle-timeout-ms", OPTION_NUMBER, FOR_AGENT | AT_RELOAD, AT(agent.idle_timeout_ms), 0, MS_MAX, "N",
	 "time without a question after which a session is closed; 0: none"},
	{"--metrics", "agent", "metrics", OPTION_TEXT, FOR_AGENT, AT(agent.metrics), 0, 0, "ADDRESS:PORT",
	 "serve Prometheus metrics over HTTP; PORT alone: on the loopback address; default: none"},
	{"--user", "agent", "user", OPTION_TEXT, FOR_AGENT, AT(agent.user), 0, 0, "NAME", "user that the agent switches to when root has started it"},
	{"--group", "agent", "group", OPTION_TEXT, FOR_AGENT, AT(agent.group), 0, 0, "NAME", "group that it switches to; default: that of the user"},
	{"--no-sandbox", "agent", "no-sandbox", OPTION_SWITCH, FOR_AGENT, AT(agent.no_sandbox), 0, 0, NULL, "disable the system-call filter"},
	{"--control", "agent", "control", OPTION_TEXT, FOR_AGENT, AT(agent.control), 0, 0, "PATH",
	 "control socket of the agent; default: agent.control beside the socket for programs"},

	{NULL, "client", "host", OPTION_TEXT, 0, AT(host), 0, 0, "HOST", "server to connect to"},
	{"--port", "client", "port", OPTION_TEXT, FOR_CLIENTS, AT(port), 0, 0, "PORT", "the server's TLS port; default: " SRDMA_DEFAULT_PORT},
};
const size_t settings_option_count = sizeof settings_options / sizeof settings_options[0];

void settings_init(struct settings *settings)
{
	*settings = (struct settings){.log_level = SRDMA_LOG_WARN};
	srdma_device_options_init(&settings->device);
	srdma_tls_client_options_init(&settings->client_tls);
	srdma_tls_server_options_init(&settings->server_tls);
	srdma_qp_options_init(&settings->qp);
	srdma_conn_options_init(&settings->conn);
	srdma_server_options_init(&settings->server);
	srdma_server_limits_init(&settings->limits);
	settings->server.port = NULL;                    /* settings_complete */
	agent_settings_init(&settings->agent);
	settings->files_rights = IBV_ACCESS_REMOTE_READ;
	settings->files_copies = 8;
	settings->tunnel_connect_timeout_ms = 10000;
	settings->server.workers = SRDMA_WORKERS_AUTO; /* the echo service does not block */
}

int settings_complete(struct settings *settings)
{
	settings->listen_port_said = settings->server.port != NULL;
	if (!settings->server.port)
		settings->server.port = strdup(SRDMA_DEFAULT_PORT);
	if (!settings->port)
		settings->port = strdup(SRDMA_DEFAULT_PORT);
	return settings->server.port && settings->port ? CLI_EXIT_OK : cli_fail(-ENOMEM, "settings");
}

void settings_free(struct settings *settings)
{
	options_free(settings_options, settings_option_count, settings);
	identities_free(&settings->identities);
	tunnel_targets_free(&settings->tunnel_targets);
	agent_peers_free(&settings->agent_peers);
}

struct ini_source {
	struct settings *settings;
	const char *name;
	FILE *file;
	int line;
	int problems;
	bool in_named;             /* the section is an [identity NAME] or a [peer NAME], */
	struct identity *identity; /* this one, */
	struct agent_peer *peer;   /* or this one. Both NULL: it is wrong, which was said */
};

static void complain(struct ini_source *source, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void complain(struct ini_source *source, const char *format, ...)
{
	char what[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(what, sizeof what, format, args);
	va_end(args);
	cli_error_event("settings.invalid", "%s:%d: %s", source->name, source->line, what);
	source->problems++;
}

/* libinih cuts the names of sections, knows no quotes, and does not tell of a section without keys; an identity or a peer needs no key to be
 * listed. Returns whether it was one of these. */
static bool take_section(struct ini_source *source, const char *line)
{
	char name[LINE_SIZE], problem[1024];
	bool is_peer = false;
	enum identities_section kind = identities_parse_section("identity", line, name);

	if (kind == NO_IDENTITY) {
		kind = identities_parse_section("peer", line, name);
		is_peer = kind != NO_IDENTITY;
	}
	source->identity = NULL;
	source->peer = NULL;
	source->in_named = kind != NO_IDENTITY;
	if (kind == IDENTITY_MALFORMED)
		complain(source, "a quoted name ends with a quote, and then the bracket: [%s \"NAME\"]", is_peer ? "peer" : "identity");
	if (kind != IDENTITY_NAMED)
		return source->in_named;
	if (is_peer)
		source->peer = agent_peers_add(&source->settings->agent_peers, name, source->line, problem, sizeof problem);
	else
		source->identity = identities_add(&source->settings->identities, name, source->line, problem, sizeof problem);
	if (!source->identity && !source->peer)
		complain(source, "%s", problem);
	return true;
}

/* libinih's handler is not told the line's number, so the reader counts the lines. */
static char *read_line(char *buffer, int size, void *stream)
{
	static const char bom[] = "\xef\xbb\xbf";
	struct ini_source *source = stream;
	char line[LINE_SIZE], *start = line;
	bool is_named;
	size_t length;

	if (!fgets(line, sizeof line, source->file))
		return NULL;
	length = strlen(line);
	source->line++;
	if (length == sizeof line - 1 && line[sizeof line - 2] != '\n')
		complain(source, "the line is too long; at most %zu bytes are allowed", sizeof line - 2);
	else if ((length == 0 || line[length - 1] != '\n') && !feof(source->file))
		complain(source, "the line has a NUL byte");
	if (source->line == 1 && strncmp(start, bom, strlen(bom)) == 0)
		start += strlen(bom);
	/* To libinih an indented line continues the value before it; here indentation means nothing. */
	start += strspn(start, " \t");
	is_named = start[0] == '[' && take_section(source, start);
	/* Its room is smaller, and it must not see what it would not understand. */
	if (!is_named && strlen(start) >= (size_t)size)
		complain(source, "the line is too long; at most %d bytes are allowed", size - 2);
	snprintf(buffer, (size_t)size, "%s", is_named ? (source->peer ? "[peer]\n" : "[identity]\n") : start);
	return buffer;
}

/* Keys of a section, or, when that is NULL, sections. */
static void list_allowed(const struct option *options, size_t count, const char *section, char *text, size_t size)
{
	const char *previous = "";
	size_t used = 0;

	for (size_t i = 0; i < count && used < size; i++) {
		const struct option *option = &options[i];
		const char *name = section ? option->key : option->section;

		if (!option->section || (section && strcmp(section, option->section) != 0) || strcmp(name, previous) == 0)
			continue;
		used += (size_t)snprintf(text + used, size - used, "%s%s", used ? ", " : "", name);
		previous = name;
	}
}

/* The keys of this section are names that the operator chooses. */
static void take_target(struct ini_source *source, const char *name, const char *address)
{
	char problem[512];

	if (!tunnel_targets_add(&source->settings->tunnel_targets, name, address, problem, sizeof problem))
		complain(source, "[tunnel-targets] %s: %s", name, problem);
}

/* The table of keys of the section that is being read, and where their values go. */
struct keys {
	const struct option *options;
	size_t count;
	void *values;
	const char *space, *name; /* of the section, for messages */
};

static struct keys keys_of(struct ini_source *source)
{
	if (source->identity)
		return (struct keys){identity_options, identity_option_count, source->identity, " ", source->identity->name};
	if (source->peer)
		return (struct keys){agent_peer_options, agent_peer_option_count, source->peer, " ", source->peer->name};
	return (struct keys){settings_options, settings_option_count, source->settings, "", ""};
}

static int take_value(void *user, const char *section, const char *key, const char *value)
{
	struct ini_source *source = user;
	const struct keys keys = keys_of(source);
	const struct option *found = NULL;
	bool known_section = false, named = source->identity || source->peer;
	char allowed[512] = "";

	if (source->in_named && !named)
		return 1;
	if (!named && strcmp(section, "tunnel-targets") == 0) {
		take_target(source, key, value);
		return 1;
	}
	for (size_t i = 0; i < keys.count && !found; i++) {
		const struct option *option = &keys.options[i];

		if (!option->section || strcmp(option->section, section) != 0)
			continue;
		known_section = true;
		if (strcmp(option->key, key) == 0)
			found = option;
	}
	if (found && option_set(found, keys.values, value, allowed, sizeof allowed) == 0)
		return 1;
	if (found) {
		complain(source, "[%s%s%s] %s: '%s' is not valid; give %s", section, keys.space, keys.name, key, value, allowed);
		return 1;
	}
	list_allowed(keys.options, keys.count, known_section ? section : NULL, allowed, sizeof allowed);
	if (known_section)
		complain(source, "section [%s%s%s] has no key '%s'; its keys are: %s", section, keys.space, keys.name, key, allowed);
	else
		complain(source, "there is no section [%s] (key '%s'); the sections are: %s, tunnel-targets, identity NAME, peer NAME", section, key, allowed);
	return 1;
}

int settings_read_file(struct settings *settings, const char *file)
{
	struct ini_source source = {.settings = settings, .name = file};
	int bad_line;

	source.file = fopen(file, "re");
	if (!source.file) {
		cli_error_event("settings.invalid", "cannot read the configuration file %s: %s", file, strerror(errno));
		return CLI_EXIT_USAGE;
	}
	bad_line = ini_parse_stream(read_line, &source, take_value, &source);
	if (bad_line != 0 && source.problems == 0) {
		cli_error_event("settings.invalid", "%s:%d: the line is neither [section], 'key = value' nor a comment", file, bad_line);
		source.problems++;
	}
	if (ferror(source.file)) {
		cli_error_event("settings.invalid", "cannot read the configuration file %s: %s", file, strerror(errno));
		source.problems++;
	}
	fclose(source.file);
	return source.problems ? CLI_EXIT_USAGE : CLI_EXIT_OK;
}

void settings_compare(const struct settings *a, const struct settings *b, unsigned command,
		      void (*differs)(const struct option *option, void *arg), void *arg)
{
	for (size_t i = 0; i < settings_option_count; i++) {
		const struct option *option = &settings_options[i];

		if ((option->commands & command) && !option_equals(option, a, b))
			differs(option, arg);
	}
}

void settings_conn_options(const struct settings *settings, struct srdma_conn_options *options, struct srdma_qp_options *qp)
{
	*qp = settings->qp;
	*options = settings->conn;
	options->qp = qp;
}

void settings_client_tls(const struct settings *settings, struct srdma_tls_client_options *options)
{
	*options = settings->client_tls;
	options->cert_file = settings->cert_file;
	options->key_file = settings->key_file;
	options->allow_tls12 = settings->allow_tls12;
	options->crl_require_all = settings->crl_require_all;
}

void settings_server_tls(const struct settings *settings, struct srdma_tls_server_options *options)
{
	*options = settings->server_tls;
	options->cert_file = settings->cert_file;
	options->key_file = settings->key_file;
	options->allow_tls12 = settings->allow_tls12;
	options->crl_require_all = settings->crl_require_all;
}

int settings_server_limits(struct settings *settings, struct srdma_server_limits *limits)
{
	*limits = settings->limits;
	limits->identity_count = settings->identities.count;
	limits->identities = identities_forms(&settings->identities);
	return limits->identity_count == 0 || limits->identities ? 0 : -ENOMEM;
}

int settings_server_options(struct settings *settings, struct server_options *options)
{
	options->server = settings->server;
	options->server.limits = &options->limits;
	options->server.conn = &options->conn;
	settings_conn_options(settings, &options->conn, &options->qp);
	return settings_server_limits(settings, &options->limits);
}

static int replace_text(char **text, const char *start, size_t length)
{
	char *copy = length ? strndup(start, length) : NULL;

	if (!copy)
		return length ? -ENOMEM : -EINVAL;
	free(*text);
	*text = copy;
	return 0;
}

int settings_set_target(struct settings *settings, const char *target)
{
	const char *host = target, *port, *end;
	int ret;

	if (target[0] == '[') {
		host = target + 1;
		end = strchr(host, ']');
		if (!end || (end[1] != '\0' && end[1] != ':'))
			return -EINVAL;
		port = end[1] == ':' ? end + 2 : NULL;
	} else {
		end = strchr(target, ':');
		/* More than one colon without brackets: an IPv6 address, and no port. */
		if (end && strchr(end + 1, ':'))
			end = NULL;
		port = end ? end + 1 : NULL;
	}
	ret = replace_text(&settings->host, host, end ? (size_t)(end - host) : strlen(host));
	if (ret == 0 && port)
		ret = replace_text(&settings->port, port, strlen(port));
	return ret;
}
