/* SPDX-License-Identifier: Apache-2.0 */
/* A program that uses the library's API as others will, one behaviour a mode, and prints the facts that it saw as JSON. */
#ifndef PROBE_H
#define PROBE_H

#include "securdma_link.h"
#include "securdma_server.h"

#include <jansson.h>
#include <pthread.h>
#include <stdbool.h>

/* Ends the program, with the place and the library's last error, unless `condition` holds. */
#define CHECK(condition)                                                                                               \
	do {                                                                                                           \
		if (!(condition))                                                                                      \
			probe_die(__FILE__, __LINE__, #condition);                                                     \
	} while (0)
/* The same for a call that must return `expected`. */
#define EXPECT(call, expected)                                                                                         \
	do {                                                                                                           \
		long long got_ = (call), expected_ = (expected);                                                       \
		if (got_ != expected_)                                                                                 \
			probe_die_value(__FILE__, __LINE__, #call, got_, expected_);                                   \
	} while (0)

_Noreturn void probe_die(const char *file, int line, const char *condition);
_Noreturn void probe_die_value(const char *file, int line, const char *call, long long got, long long expected);

/* A device, credentials, and a server of this process. */
struct rig {
	const char *folder, *host;
	int scale; /* factor for time limits */
	struct srdma_device *device;
	struct srdma_tls_context *server_tls, *client_tls;
	struct srdma_server_options server_options; /* of rig_serve, with the two that follow; to be changed before */
	struct srdma_server_limits server_limits;
	struct srdma_conn_options server_conn; /* of rig_pair, too */
	struct srdma_conn_options client_options;
	struct srdma_server *server;
	char port[16];
	void *scratch; /* a mode's own */
	json_t *facts;
};

void rig_serve(struct rig *rig);
/* Stops the server; `unclean` clients must not have ended in order. */
void rig_stop(struct rig *rig, int unclean);
struct srdma_conn *rig_connect(struct rig *rig);
/* Both ends in this process, without a server: by listener, accept and connect. */
void rig_pair(struct rig *rig, struct srdma_conn **client, struct srdma_conn **accepted);
/* Waits until the server has that many clients. */
void rig_wait_clients(struct rig *rig, unsigned clients);

/* What the library would not post: one request by hand on a queue pair of `pd`, from or into a buffer that says "trespasser". Its
 * status; *unread: no other bytes came into the buffer. */
enum ibv_wc_status post_by_hand(struct rig *rig, struct ibv_qp *qp, struct ibv_pd *pd, enum ibv_wr_opcode opcode, uint64_t address,
				uint32_t rkey, bool *unread);

void fact(struct rig *rig, const char *name, long long value);
void fact_text(struct rig *rig, const char *name, const char *text);

uint64_t clock_ms(void);
void pause_ms(int ms);
/* Bytes that differ from one `seed` to the next. */
void fill(void *data, size_t length, unsigned seed);
bool is_filled(const void *data, size_t length, unsigned seed);

/* The modes; each takes the arguments behind its name. */
void mode_psn(struct rig *rig, char **args);
void mode_raw(struct rig *rig, char **args);
void mode_max_clients(struct rig *rig, char **args);
void mode_refuse(struct rig *rig, char **args);
void mode_handler_error(struct rig *rig, char **args);
void mode_event_order(struct rig *rig, char **args);
void mode_sizes(struct rig *rig, char **args);
void mode_nonblocking(struct rig *rig, char **args);
void mode_timeouts(struct rig *rig, char **args);
void mode_flood(struct rig *rig, char **args);
void mode_disconnect(struct rig *rig, char **args);
void mode_rights(struct rig *rig, char **args);
void mode_posted(struct rig *rig, char **args);
void mode_client_region(struct rig *rig, char **args);
void mode_isolation(struct rig *rig, char **args);
void mode_identity_region(struct rig *rig, char **args);
void mode_window(struct rig *rig, char **args);
void mode_lost(struct rig *rig, char **args);
void mode_stuffed(struct rig *rig, char **args);
void mode_never_reads(struct rig *rig, char **args);
void mode_not_now(struct rig *rig, char **args);
void mode_blocking_handlers(struct rig *rig, char **args);
void mode_renew(struct rig *rig, char **args);
void mode_stream(struct rig *rig, char **args);
void mode_psn_count(struct rig *rig, char **args);
void mode_withdraw(struct rig *rig, char **args);
void mode_seal_differs(struct rig *rig, char **args);
void mode_link_once(struct rig *rig, char **args);
void mode_link_kept(struct rig *rig, char **args);
void mode_link_policy(struct rig *rig, char **args);
void mode_error_texts(struct rig *rig, char **args);
void mode_completions(struct rig *rig, char **args);
void mode_raw_refusals(struct rig *rig, char **args);
void mode_disconnect_nonblocking(struct rig *rig, char **args);
void mode_accept_timeouts(struct rig *rig, char **args);
void mode_stopped(struct rig *rig, char **args);
/* Of probe-wrapped alone. */
void mode_hostile_nothing(struct rig *rig, char **args) __attribute__((weak));
void mode_hostile_late(struct rig *rig, char **args) __attribute__((weak));
void mode_hostile_serve(struct rig *rig, char **args) __attribute__((weak));
void mode_peer_cert(struct rig *rig, char **args);
void mode_link_nonblocking(struct rig *rig, char **args);
void mode_arguments(struct rig *rig, char **args);

#endif
