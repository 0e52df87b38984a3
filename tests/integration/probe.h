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
/* Listens on a port until one client of another process has come, and accepts it, without a server. */
struct srdma_conn *rig_accept(struct rig *rig, const char *port);
/* Disconnects in order. */
void rig_leave(struct srdma_conn **conn);
/* Both ends in this process, without a server: by listener, accept and connect. */
void rig_pair(struct rig *rig, struct srdma_conn **client, struct srdma_conn **accepted);
/* Waits until the server has that many clients. */
void rig_wait_clients(struct rig *rig, unsigned clients);
/* Waits until the connection's descriptor is readable. */
void rig_poll(struct rig *rig, struct srdma_conn *conn);

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

/* Each mode: its name, its function (mode_...), and how many arguments it takes. */
#define PROBE_MODES(X) \
	X("psn", psn, 0) \
	X("raw", raw, 0) \
	X("refuse", refuse, 0) \
	X("handler-error", handler_error, 0) \
	X("event-order", event_order, 0) \
	X("sizes", sizes, 3) /* MESSAGE_SIZE DEPTH COUNT */ \
	X("nonblocking", nonblocking, 0) \
	X("timeouts", timeouts, 0) \
	X("flood", flood, 2) /* DEPTH COUNT */ \
	X("disconnect", disconnect, 2) /* client|server DEPTH */ \
	X("rights", rights, 1) /* rw|r|w|none|absent */ \
	X("posted", posted, 0) \
	X("client-region", client_region, 0) \
	X("isolation", isolation, 0) \
	X("identity-region", identity_region, 0) \
	X("window", window, 1) /* write|read */ \
	X("named-windows", named_windows, 1) /* other|withdrawn|renewed */ \
	X("named-load", named_load, 1) /* EPOCHS */ \
	X("lost", lost, 0) \
	X("stuffed", stuffed, 0) \
	X("never-reads", never_reads, 0) \
	X("not-now", not_now, 0) \
	X("speaks-first", speaks_first, 0) \
	X("blocking-handlers", blocking_handlers, 0) \
	X("renew", renew, 2) /* asked|count|time|client|server|both COUNT */ \
	X("stream", stream, 1) /* COUNT */ \
	X("psn-count", psn_count, 0) \
	X("withdraw", withdraw, 1) /* told|write|read */ \
	X("seal-differs", seal_differs, 1) /* client|server */ \
	X("link-once", link_once, 1) /* LOSSES */ \
	X("link-kept", link_kept, 0) \
	X("link-policy", link_policy, 0) \
	X("error-texts", error_texts, 0) \
	X("completions", completions, 0) \
	X("raw-refusals", raw_refusals, 0) \
	X("disconnect-nonblocking", disconnect_nonblocking, 0) \
	X("accept-timeouts", accept_timeouts, 0) \
	X("ring", ring, 0) \
	X("starts", starts, 0) \
	X("zero", zero, 0) \
	X("sleep-after-zero", sleep_after_zero, 0) \
	X("waits-for-the-sleeping", waits_for_the_sleeping, 0) \
	X("not-again", not_again, 0) \
	X("posts-to-the-sleeping", posts_to_the_sleeping, 0) \
	X("stopped", stopped, 2) /* PORT PID */ \
	X("peer-cert", peer_cert, 2) /* CERTIFICATE ORDER, either may be "" */ \
	X("link-nonblocking", link_nonblocking, 0) \
	X("control", control, 1) /* messages|raw */ \
	X("memory-arguments", memory_arguments, 0) \
	X("memory-use", memory_use, 1) /* EPOCHS */ \
	X("memory-release", memory_release, 0) \
	X("memory-withdraw", memory_withdraw, 0) \
	X("memory-atomics", memory_atomics, 0) \
	X("memory-broken", memory_broken, 0) \
	X("memory-server", memory_server, 0) \
	X("memory-raw", memory_raw, 0) \
	X("memory-accept", memory_accept, 1) /* PORT */ \
	X("memory-dmabuf", memory_dmabuf, 0) \
	X("memory-connect", memory_connect, 1) /* PORT */ \
	X("control-accept", control_accept, 1) /* PORT */ \
	X("arguments", arguments, 0) \
	X("idle", idle, 1) /* COUNT */ \
	X("bad-calls", bad_calls, 0) \
	X("unfit", unfit, 0) \
	X("bytes-both", bytes_both, 2) /* REGION TOTAL */ \
	X("bytes-waiting", bytes_waiting, 2) /* REGION TOTAL */ \
	X("bytes-rate", bytes_rate, 3) /* write|reserve SIZE TOTAL */ \
	X("bytes-server", bytes_server, 2) /* REGION TOTAL */ \
	X("bytes-abort", bytes_abort, 0) \
	X("bytes-cut", bytes_cut, 1) /* order|loss */ \
	X("bytes-arguments", bytes_arguments, 0) \
	X("bytes-hostile", bytes_hostile, 0) \
	X("bytes-foreign", bytes_foreign, 0) \
	X("bytes-overrun", bytes_overrun, 0) \
	X("bytes-flood", bytes_flood, 0)
/* Of probe-wrapped alone. */
#define PROBE_WRAPPED_MODES(X) \
	X("hostile-nothing", hostile_nothing, 2) /* client|server plain|renewed|broken */ \
	X("hostile-late", hostile_late, 1) /* TRIES */ \
	X("hostile-serve", hostile_serve, 1) /* PORT */

#define DECLARE_MODE(name, function, count)         void mode_##function(struct rig *rig, char **arguments);
#define DECLARE_WRAPPED_MODE(name, function, count) __attribute__((weak)) DECLARE_MODE(name, function, count)
PROBE_MODES(DECLARE_MODE)
PROBE_WRAPPED_MODES(DECLARE_WRAPPED_MODE)

#endif
