/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A server with many clients: which clients it accepts, threads that serve them, how it is operated, its state and metrics.
 */
#ifndef SECURDMA_SERVER_H
#define SECURDMA_SERVER_H

#include "securdma.h"
#include "securdma_cert.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- servers --------------------------------------------------------------------------------------------------- */

/* -- which clients a server accepts, and what they may do -- */

/** What clients with one identity may do.
 *
 *  Every client that has proved to own a certificate has exactly one identity: the first kind of name, in the order of
 *  srdma_tls_server_options.identity_from (by default the common name, a URI, an e-mail address, a DNS name), of which the
 *  certificate has exactly one fit name; else the pin of its key, "sha256:" and 64 hexadecimal digits. Two or more different
 *  names of a kind decide nothing. Not fit is a name that is empty, longer than SRDMA_NAME_SIZE - 1 bytes, has characters that
 *  do not show (controls, NULs, bidirectional and invisible ones), or begins as a pin does; a DNS name with a wildcard; and,
 *  while URIs count, a name of another kind that has "://" in it or begins with "urn:". DNS names are taken in lower case.
 *
 *  Names are compared byte for byte, in UTF-8, whichever CA of client_ca_file issued the certificate: trust no CA there that
 *  does not keep names unique. All clients without a certificate share the empty name, which cannot be listed. */
struct srdma_identity {
	size_t size;           /**< set by srdma_identity_init() */
	const char *name;      /**< 1 to SRDMA_NAME_SIZE - 1 bytes of UTF-8 that can be shown; a pin in either case */
	bool denied;           /**< clients are told SRDMA_REJECT_REFUSED if this is any name in their certificate, of whatever kind,
				    whole or as it shows, or its pin; the other fields then mean nothing */
	unsigned max_clients;  /**< connected at the same time under this name; default 0: max_clients_per_identity */
	int64_t region_size;   /**< bytes of the region offered to each of its clients; 0: none; default -1: as for all clients */
	int region_access;     /**< what they may do to it: IBV_ACCESS_REMOTE_WRITE, IBV_ACCESS_REMOTE_READ, both, or 0: nothing;
				    default -1: as for all clients */
	uint32_t message_size; /**< longest message, 64 to 1 MiB; the client's is used when it is lower; default 0: as for all
				    clients */
	uint64_t max_bytes_per_second; /**< as in srdma_conn_options; default 0: as for all clients */
};
/** Fills `identity` with the defaults; its name is NULL. Thread-safe. */
SRDMA_API void srdma_identity_init_sized(struct srdma_identity *identity, size_t size);
SRDMA_INLINE void srdma_identity_init(struct srdma_identity *identity)
{
	srdma_identity_init_sized(identity, sizeof *identity);
}
/** Checks whether an identity can have this name. Thread-safe.
 *  Errors:
 *    -EINVAL   It cannot; the text says why. */
SRDMA_API int srdma_identity_check_name(const char *name);

/** Which clients may come, and how many. */
struct srdma_server_limits {
	size_t size;                    /**< set by srdma_server_limits_init() */
	unsigned max_clients;           /**< connected at the same time; default 10 */
	unsigned max_pending;           /**< authenticated clients in set-up at the same time; further ones are told
					     SRDMA_REJECT_BUSY. As many clients again may be about to authenticate; the rest
					     wait to be accepted. Default 64 */
	unsigned max_clients_per_identity; /**< connected at the same time under one identity; all clients without a certificate
					     together are one; default 0: max_clients */
	unsigned max_clients_per_address;  /**< connected at the same time from one IP address; default 0: max_clients */
	unsigned max_setups_per_second; /**< set-ups begun in a second; further clients wait to be accepted; default 0: no limit */
	bool only_listed_identities;    /**< tell every client without an entry in `identities` SRDMA_REJECT_REFUSED, including
					     clients without a certificate; default false */
	const struct srdma_identity *identities; /**< in any order, each name once; thousands are fine. Copied */
	size_t identity_count;
};
/** Fills `limits` with the defaults. Thread-safe. */
SRDMA_API void srdma_server_limits_init_sized(struct srdma_server_limits *limits, size_t size);
SRDMA_INLINE void srdma_server_limits_init(struct srdma_server_limits *limits)
{
	srdma_server_limits_init_sized(limits, sizeof *limits);
}

/* -- start and stop a server -- */

/** As many workers as processors. */
#define SRDMA_WORKERS_AUTO 0
/** A worker for each client. */
#define SRDMA_WORKERS_PER_CLIENT (-1)

struct srdma_stream; /* securdma_stream.h */

struct srdma_notice; /* securdma_memory.h */

/** Options of a server, and the functions with which a program answers its clients. Any of these may be NULL. When
 *  on_connect, on_message and on_disconnect all are, the built-in echo service answers (SRDMA_ECHO_OVERHEAD).
 *
 *  The calls for one client come one after the other, those for different clients at the same time, unless the clients are on the same
 *  worker (`workers`): then only one of the functions runs at a time. While a function waits in a call of this library on a
 *  connection of its worker, the others go on after 20 ms, in another thread; each function that waits needs one, with a stack of
 *  1 MiB. So the calls for one client may come from different threads, but for SRDMA_WORKERS_PER_CLIENT. A function that blocks
 *  otherwise, or computes for long, holds up the other clients of its worker. A call with a timeout_ms of 0 and a posted write or read
 *  need no thread. On the connection of a call, srdma_conn_fd() is -1.
 *
 *  A function that returns -EAGAIN puts its matter off. It is called again when the last call in it that returned -EAGAIN is worth
 *  repeating (there is room to send, to post, or whatever that call has to wait for), or srdma_conn_wake() was called; never before,
 *  so it is not called for nothing. If no call in it returned -EAGAIN, only srdma_conn_wake() has it called again. It then begins
 *  from its start. A function that has already done a part, such as the first of several answers, therefore notes what is left, calls
 *  srdma_conn_wake(), and returns 0: on_wake goes on, and no other message of the client comes before on_wake is done or waits for
 *  something other than a call. */
struct srdma_server_options {
	size_t size;                    /**< set by srdma_server_options_init() */
	const char *address;            /**< to listen on; NULL: all addresses */
	const char *port;               /**< "0": any free one; default "4433" */
	const int *listen_fds;          /**< listening TCP sockets instead of address and port, each as for
					     srdma_listener_from_fd(); clients of all are served; default: none */
	unsigned listen_fd_count;
	int workers;                    /**< threads that serve clients; a new client goes to the one with the fewest.
					     SRDMA_WORKERS_AUTO: as many as processors. SRDMA_WORKERS_PER_CLIENT (default): one
					     for each client, used again when its client has gone */
	const char *proxy_networks;     /**< comma-separated CIDR list of balancers. A TCP connection from there must begin with
					     a header of the PROXY protocol (version 1 or 2) that names the client's address; a
					     connection from anywhere else must not. All rules about the client's address, the one
					     for its GID included, then go by what a balancer says: name no network that anyone
					     else is in. Default: none */
	int drain_timeout_ms;           /**< for srdma_server_stop() to end all clients in order; above 0; default 5000 */
	const struct srdma_server_limits *limits; /**< NULL: the defaults. Copied; srdma_server_set_limits() may replace them later */
	const struct srdma_conn_options *conn;    /**< for every client; NULL: those of srdma_server_conn_options_init(). Copied */
	/** A client has connected. The other calls get `*client_arg`. A result other than 0 disconnects the client. The function may send
	 *  and post; to send more than there is room for, it calls srdma_conn_wake() and leaves the rest to on_wake. */
	int (*on_connect)(struct srdma_conn *conn, void **client_arg, void *arg);
	/** A message came; `data` is valid until the function returns. With -EAGAIN it does not take the message, and is called with the
	 *  same message again. A client whose messages wait, for this or for on_wake, must itself take messages: at least one within
	 *  the connection's timeout_ms. Any other result that is not 0 disconnects the client: fill `reason` (128 bytes) for it. */
	int (*on_message)(struct srdma_conn *conn, const void *data, size_t length, char *reason, void *client_arg, void *arg);
	/** The client is gone, in order (`status` 0) or not (the error). The connection is freed after the function returns. */
	void (*on_disconnect)(struct srdma_conn *conn, int status, void *client_arg, void *arg);
	void *arg;                      /**< for these functions; stays the program's */
	srdma_admit_fn *on_admit;       /**< decides about a client that the limits would let in, before anything is made for it; `arg` is
					     its last argument. One that it turns away is told SRDMA_REJECT_REFUSED, unless it
					     says otherwise. NULL: the limits decide alone */
	/** A control message came (srdma_conn_control_send()); `data` is valid until the function returns. With -EAGAIN it is called with
	 *  the same message again. Any other result that is not 0 disconnects the client: fill `reason` (128 bytes) for it. Needed if
	 *  the clients' options have control_messages. */
	int (*on_control)(struct srdma_conn *conn, const void *data, size_t length, char *reason, void *client_arg, void *arg);
	/** A notice came, in its order with messages (srdma_conn_recv_notice(), securdma_memory.h); `notice` is valid until the function
	 *  returns. Its results are those of on_message, -EAGAIN too. NULL: a client that sends one is disconnected. */
	int (*on_notice)(struct srdma_conn *conn, const struct srdma_notice *notice, char *reason, void *client_arg, void *arg);
	/** The client has offered or withdrawn regions since the last call: srdma_conn_find_region() with timeout_ms 0, or
	 *  srdma_conn_region_at(). A result that is not 0 disconnects the client: fill `reason` (128 bytes) for it. */
	int (*on_regions)(struct srdma_conn *conn, char *reason, void *client_arg, void *arg);
	/** Some thread, or another of these functions, has called srdma_conn_wake() for this client, once or several times since the last
	 *  call. With -EAGAIN it is called again, without another wake-up. Any other result that is not 0 disconnects the client:
	 *  fill `reason` (128 bytes) for it. A thread that wakes a client must know that its on_disconnect has not returned. */
	int (*on_wake)(struct srdma_conn *conn, char *reason, void *client_arg, void *arg);
	/** A write or a read that was posted with this cookie has completed: srdma_conn_post_write(), srdma_conn_post_read(). With
	 *  -EAGAIN it is called again, for the same one. Any other result that is not 0 disconnects the client: fill `reason` (128 bytes)
	 *  for it. NULL: the program calls srdma_conn_complete().
	 *  Unlike that call, and unlike srdma_conn_write(), this needs no thread that waits. */
	int (*on_complete)(struct srdma_conn *conn, uint64_t cookie, char *reason, void *client_arg, void *arg);
	/** Something has happened on a client's stream: a call that had returned -EAGAIN is worth repeating. It is called once as soon as both
	 *  ends have made their streams. Use timeout_ms 0. With -EAGAIN it is called again after the other clients' turns: a function that
	 *  has read its share returns it when there is more. Any other result that is not 0 disconnects the client: fill `reason` (128
	 *  bytes) for it. Clients without a stream have the other functions.
	 *  After srdma_stream_shutdown() the worker sends the rest by itself. A function that wants to know when the client has it calls
	 *  srdma_stream_flush() with timeout_ms 0, returns 0 after -EAGAIN, and is called again when that is so. The stream stays the
	 *  program's: call srdma_stream_free() in on_disconnect, however the client ended; what came before can still be read there. */
	int (*on_stream)(struct srdma_conn *conn, struct srdma_stream *stream, char *reason, void *client_arg, void *arg);
};
/** Fills `options` with the defaults. Thread-safe. */
SRDMA_API void srdma_server_options_init_sized(struct srdma_server_options *options, size_t size);
SRDMA_INLINE void srdma_server_options_init(struct srdma_server_options *options)
{
	srdma_server_options_init_sized(options, sizeof *options);
}
/** Fills `options` with the defaults for the clients of a server: those of srdma_conn_options_init(), but for a region of 65536
 *  bytes. Thread-safe. */
SRDMA_API void srdma_server_conn_options_init_sized(struct srdma_conn_options *options, size_t size);
SRDMA_INLINE void srdma_server_conn_options_init(struct srdma_conn_options *options)
{
	srdma_server_conn_options_init_sized(options, sizeof *options);
}

/** A thread that listens, a few threads that set clients up, and workers that serve them. */
struct srdma_server;

/** Starts a server; its threads run when this returns. `context` comes from srdma_tls_server_new(). The server takes
 *  references of its own to `context` and `device`. Locked memory (RLIMIT_MEMLOCK) is not checked: whether it counts depends
 *  on the device.
 *  Errors:
 *    -EINVAL         An option is out of range or not initialised, or `context` is a client's.
 *    -ENOMEM         Memory ran out.
 *    SRDMA_ECONFIG   max_clients need more than the device has, more descriptors than the process may have, or, for rings
 *                    and regions, more memory than the machine or the process's control group has.
 *    -EADDRINUSE     Another program listens on the port. Other errors are those of srdma_listener_listen(). */
SRDMA_API int srdma_server_start(const struct srdma_server_options *options, struct srdma_tls_context *context,
				 struct srdma_device *device, struct srdma_server **out);

/** Checks what srdma_server_start() checks, by the same code, but for the port: that the options make sense, and that the
 *  limits fit the device, the process's descriptors and locked memory, and the machine's memory. It may raise the process's
 *  limit of descriptors, as srdma_server_start() does. With `device` NULL it leaves out what depends on the device. `fn` may be
 *  NULL.
 *  Errors: those of srdma_server_start(); it returns the first failure. */
SRDMA_API int srdma_server_check(const struct srdma_server_options *options, struct srdma_device *device, srdma_check_fn *fn, void *arg);

/** Stops the server: it takes no new clients, disconnects every client in order within drain_timeout_ms, ends its threads and
 *  frees everything.
 *  Returns: the number of clients that did not end in order. */
SRDMA_API int srdma_server_stop(struct srdma_server **server);

/* -- operate a running server -- */

/** Returns the port that the server listens on; with several sockets, the first one's. Thread-safe. */
SRDMA_API uint16_t srdma_server_port(const struct srdma_server *server);
/** Writes the address of the server's listening socket `index`, counted from 0, as the kernel tells it: "10.0.0.1:4433",
 *  "[fd00::1]:4433", or "*:4433" for all addresses, IPv4 and IPv6. 80 bytes always suffice. Thread-safe.
 *  Errors:
 *    -ENOENT   There are not so many sockets. */
SRDMA_API int srdma_server_address(const struct srdma_server *server, unsigned index, char *text, size_t size);

/** Gives the server other certificates, CAs or revocation lists, for clients that come from now on. Clients that are being set
 *  up keep the context that they began with, and connected clients notice nothing. Thread-safe.
 *  Errors:
 *    -EINVAL   The context is a client's. */
SRDMA_API int srdma_server_set_tls(struct srdma_server *server, struct srdma_tls_context *context);

/** Replaces all limits of a running server, or, when it fails, none. New clients meet the new limits. Connected clients that
 *  may not come any more (denied, or not listed while only_listed_identities is set) are disconnected in order and told why.
 *  Those beyond a lower number stay, and all keep their regions. Thread-safe.
 *  Errors:
 *    -EINVAL         A limit or an identity is out of range or not initialised; the text says which.
 *    -ENOMEM         Memory ran out.
 *    SRDMA_ECONFIG   The limits need more than there is, as in srdma_server_start(). */
SRDMA_API int srdma_server_set_limits(struct srdma_server *server, const struct srdma_server_limits *limits);

/** Receives what is known of one client. `info` is valid until the function returns, and may be copied whole. */
typedef void srdma_visit_fn(const struct srdma_conn_info *info, void *arg);
/** Calls `visit` for each connected client, with the slot table locked: keep it short. Thread-safe.
 *  Errors:
 *    -ENOMEM   Memory ran out. */
SRDMA_API int srdma_server_each_sized(struct srdma_server *server, srdma_visit_fn *visit, void *arg, size_t size);
SRDMA_INLINE int srdma_server_each(struct srdma_server *server, srdma_visit_fn *visit, void *arg)
{
	return srdma_server_each_sized(server, visit, arg, sizeof(struct srdma_conn_info));
}

/** Returns a descriptor for poll(2), owned by the server. It is readable when srdma_server_get_status() has changed in a way that
 *  needs the program: device_failed or drained. */
SRDMA_API int srdma_server_event_fd(const struct srdma_server *server);

/** Disconnects one client in order. `reason` is for the client (up to 127 bytes; NULL: a general one); its on_disconnect has the
 *  status -ECONNABORTED. It returns at once, and the client's worker does the rest within drain_timeout_ms. A client that is
 *  already leaving is not affected; of two kicks the first reason counts. Thread-safe.
 *  Errors:
 *    -ENOENT   No such client is connected. */
SRDMA_API int srdma_server_kick(struct srdma_server *server, uint64_t client_id, const char *reason);

/** Takes no new clients from now on. A new client is told SRDMA_REJECT_DRAINING after its TLS handshake, so that it can tell a
 *  drain from a dead server. Connected clients stay. When the last one has gone, or timeout_ms (0 or more) have passed,
 *  srdma_server_get_status() has `drained` set and the event descriptor is readable: the program then calls srdma_server_stop(),
 *  which disconnects the clients that are left. Another call sets another deadline; a drain cannot be undone. It returns at
 *  once. Thread-safe.
 *  Errors:
 *    -EINVAL   timeout_ms is negative. */
SRDMA_API int srdma_server_drain(struct srdma_server *server, int timeout_ms);

/* -- the state of a server -- */

/** The state of a server. */
struct srdma_server_status {
	size_t size;          /**< how much of it the library filled; see SRDMA_HAS_FIELD() */
	unsigned clients;     /**< connected now */
	unsigned pending;     /**< in set-up now */
	unsigned max_clients; /**< the present limit */
	uint64_t accepted;    /**< clients ever connected */
	uint64_t rejected;    /**< clients told REJECT */
	uint64_t failed;      /**< set-ups that failed otherwise */
	uint64_t lost;        /**< clients that went away without a disconnect */
	bool device_failed;   /**< the device is gone: stop the server */
	bool draining;        /**< srdma_server_drain() was called: no new clients */
	bool drained;         /**< and the last client has gone, or the deadline has passed: stop the server */
};
/** Fills `status`. Thread-safe. */
SRDMA_API void srdma_server_get_status_sized(struct srdma_server *server, struct srdma_server_status *status, size_t size);
SRDMA_INLINE void srdma_server_get_status(struct srdma_server *server, struct srdma_server_status *status)
{
	srdma_server_get_status_sized(server, status, sizeof *status);
}

/* -- the metrics of a server -- */

/** Latency histogram. */
struct srdma_histogram {
	size_t size;            /**< how much of it the library filled */
	const uint64_t *counts; /**< of each bucket alone: above the bound of the one before, up to its own */
	size_t bucket_count;    /**< the last bucket has no bound; see srdma_histogram_bound() */
	uint64_t sum_us;        /**< sum of all times, microseconds */
};

/** Why a set-up failed whose client was not told REJECT. */
enum srdma_setup_failure {
	SRDMA_SETUP_TLS,
	SRDMA_SETUP_CERTIFICATE, /**< one end did not accept the other's certificate, or the client showed none */
	SRDMA_SETUP_PROTOCOL,
	SRDMA_SETUP_TIMEOUT,
	SRDMA_SETUP_LOST,        /**< the client went away */
	SRDMA_SETUP_VERBS,
	SRDMA_SETUP_EVICTED,     /**< others waited for its place, and it had not authenticated, or was about to be refused */
	SRDMA_SETUP_OTHER,
};
/** How a connected client ended. */
enum srdma_client_end {
	SRDMA_END_IN_ORDER,
	SRDMA_END_SERVER,   /**< the server's program ended it, and told it so */
	SRDMA_END_LOST,     /**< it went away without a disconnect */
	SRDMA_END_TLS,
	SRDMA_END_PROTOCOL,
	SRDMA_END_SEAL,     /**< one of its records did not authenticate */
	SRDMA_END_TIMEOUT,
	SRDMA_END_VERBS,
	SRDMA_END_OTHER,
};
/** A phase of the set-up of a client. */
enum srdma_setup_phase { SRDMA_PHASE_TLS, SRDMA_PHASE_EXCHANGE, SRDMA_PHASE_QP, SRDMA_PHASE_TOTAL };

/** What a server has done since its start. Its counters only grow. The arrays belong to the structure; an array that is indexed by
 *  an enumeration may be longer or shorter than the enumeration of this header: the library may be newer or older. */
struct srdma_server_metrics {
	size_t size;          /**< how much of it the library filled; see SRDMA_HAS_FIELD() */
	unsigned clients;     /**< connected now */
	unsigned pending;     /**< in set-up now */
	unsigned max_clients; /**< the present limit */
	unsigned workers;     /**< threads that serve clients */
	const unsigned *worker_load; /**< clients of each of the first workers, including those in set-up */
	size_t worker_load_count;    /**< up to 1024 */

	uint64_t accepted;        /**< clients ever connected */
	const uint64_t *rejected; /**< clients told REJECT; by enum srdma_reject_reason */
	size_t rejected_count;
	const uint64_t *failed;   /**< set-ups that failed otherwise; by enum srdma_setup_failure */
	size_t failed_count;
	const struct srdma_histogram *const *setup_time; /**< pointers to the times of accepted clients; by enum srdma_setup_phase */
	size_t setup_time_count;

	const uint64_t *ended;             /**< clients that have gone; by enum srdma_client_end */
	size_t ended_count;
	const uint64_t *completion_errors; /**< that ended a connection; by enum ibv_wc_status */
	size_t completion_error_count;

	uint64_t messages_received, messages_sent;    /**< of all clients, including those that have gone */
	uint64_t bytes_received, bytes_sent;          /**< payload of these messages */
	uint64_t rdma_bytes_written, rdma_bytes_read; /**< by the server. Only the clients' devices know what clients write and
							   read */

	uint64_t epochs;     /**< times that a client and the server renewed their queue pairs, including recoveries */
	uint64_t recoveries; /**< of these, because a queue pair had failed */
	uint64_t sweeps;     /**< times that the device's counters showed that someone tries PSNs */

	int64_t certificate_not_after; /**< end of the server's certificate, seconds since the epoch; 0: not known */
	bool device_failed;            /**< the device is gone: stop the server */

	const uint64_t *seal_bytes;    /**< with seal_threads: bytes of records that each thread sealed or opened. The first number is for
					    the clients' own threads, for what they shared with the others */
	size_t seal_bytes_count;       /**< seal_threads and 1; 0: none */
};
/** Takes a snapshot, which the caller frees. It takes two locks, each for a moment, and reads the counters of each client.
 *  Thread-safe.
 *  Errors:
 *    -ENOMEM   Memory ran out. */
SRDMA_API int srdma_server_get_metrics(struct srdma_server *server, struct srdma_server_metrics **out);
/** Frees the snapshot. */
SRDMA_API void srdma_server_metrics_free(struct srdma_server_metrics **metrics);

/** Returns the bound of a histogram's bucket, microseconds; UINT64_MAX for the last bucket and beyond. Thread-safe. */
SRDMA_API uint64_t srdma_histogram_bound(unsigned bucket);
/** Return a word for each value, such as "certificate", "in_order" or "exchange"; NULL for any other number. Static.
 *  Thread-safe. */
SRDMA_API const char *srdma_setup_failure_name(enum srdma_setup_failure failure);
SRDMA_API const char *srdma_client_end_name(enum srdma_client_end end);
SRDMA_API const char *srdma_setup_phase_name(enum srdma_setup_phase phase);

#ifdef __cplusplus
}
#endif
#endif
