/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Brings up reliable-connected RDMA queue pairs with pure InfiniBand verbs over an authenticated TLS channel.
 *
 * One end listens (srdma_server_start(), or srdma_listener_listen() for a program with its own threads); the other end
 * connects (srdma_conn_connect()). Both ends draw a random 24-bit starting PSN, exchange it with the other parameters of
 * the queue pair inside TLS, and take the queue pair through RESET, INIT, RTR and RTS. The result is a connection with
 * messages in both directions, RDMA writes to and RDMA reads from the region that the peer offers, or only the verbs
 * objects.
 *
 * Headers
 *   - securdma.h: devices, TLS contexts, and connections, at either end. A program that wants a connected queue pair needs no
 *     other.
 *   - securdma_server.h: a server with many clients, its limits, and its metrics.
 *   - securdma_memory.h: memory of the program's own, offered to peers by name, and used without a copy.
 *   - securdma_link.h: a client that connects again after a loss. It is apart because a program whose work ends with its
 *     connection has no use for it.
 *   - securdma_stream.h: a stream of bytes over a connection, with the semantics of read(2) and write(2).
 *   - securdma_cert.h: makes, reads and checks certificates.
 *
 * Conventions
 *   - A function returns 0 or a count when it succeeds, and a negative error when it fails: an errno such as -ETIMEDOUT,
 *     or a SRDMA_E* of this header. srdma_error_text() then says what failed, on what, and what to do about it.
 *   - A constructor sets `*out` only when it succeeds. One that uses the network is called connect, accept, listen or start; one
 *     with another name, such as new or open, does not use it.
 *   - An object with one owner is freed by its function _free; a server by srdma_server_stop(), which tells its clients first. An
 *     object that several owners share (a device, a TLS context) has _ref and _unref instead: the constructor's caller has the
 *     first reference, and the last _unref frees it. These functions take the address of the pointer, accept NULL in it, and set
 *     it to NULL.
 *   - Sizes are bytes. Times are microseconds, unless the name ends in _ms. Nothing waits for ever: timeout_ms is for the
 *     whole call, which then returns -ETIMEDOUT. With a timeout_ms of 0 a call never waits: it returns -EAGAIN instead. Only
 *     srdma_conn_write() and srdma_conn_read() have to wait: 0 is -EINVAL there, and srdma_conn_post_write() does not wait.
 *     SRDMA_DEFAULT_TIMEOUT, like any negative timeout_ms, stands for the connection's default, srdma_conn_options.timeout_ms.
 *     A member of an options structure whose name ends in _ms, and the timeout_ms of srdma_server_drain(), which has no default,
 *     must not be negative: -EINVAL.
 *   - A program with an event loop calls nothing that waits. What takes several exchanges with the peer has a function _start, which
 *     begins it, and one _step, which goes on as far as it can: connecting, accepting, ending a connection, and links. All others
 *     take a timeout_ms of 0, or are called _post_. After -EAGAIN the program waits until the object's descriptor is readable
 *     (srdma_connect_fd(), srdma_accept_fd(), srdma_conn_fd(), srdma_link_fd()), with any other descriptors of its own, and calls again.
 *     These descriptors also tell that a time has come, so no timer is needed; only accepting says the time by itself. Take a descriptor
 *     out of an epoll(7) set before you free its object: where a child process has a duplicate, epoll goes on telling of it.
 *   - In a server's handlers, each call that waits returns -ECANCELED once the server is stopped and its drain time is over.
 *   - Fill a structure of options with its _init function before you set fields: fields that a later version adds then have
 *     their defaults. NULL instead of a structure stands for the defaults. A function that takes options copies them and
 *     everything that they point to: strings, other options and arrays may change or go when it returns. It returns -EINVAL for
 *     options that were never initialised, and for a field that is set and that the library, being older than the program, does
 *     not know. The library fills a structure that has no _init function.
 *   - Each structure begins with its size, and may get more fields at its end. So a program runs with a newer library, and
 *     with an older one as long as it sets no field that the older one lacks. A function _sized is what its namesake
 *     without _sized calls with the size that the program was compiled with; a binding for another language calls it directly.
 *     An array of structures that a program passes has the size of its first element as its stride. Do not embed these structures
 *     in an interface of your own library.
 *   - An enumeration may get more values at its end: have a case for values that you do not know.
 *   - One thread at a time uses an object, unless its description says that it is thread-safe. Different threads may use
 *     different objects at the same time.
 *
 * How to read this file: a line between two dashes begins a group of functions, which is also a manual page of section 3;
 * the comment before a declaration describes it, and the declarations that follow it without a comment of their own. In C++
 * the names need no `struct` and no `enum`: srdma_conn *conn.
 */
#ifndef SECURDMA_H
#define SECURDMA_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SRDMA_API __attribute__((visibility("default")))
#else
#define SRDMA_API
#endif
#define SRDMA_INLINE static inline

/* ---- version, errors, log -------------------------------------------------------------------------------------- */

/* -- the version of the library -- */

#define SRDMA_VERSION_MAJOR 0
#define SRDMA_VERSION_MINOR 1
#define SRDMA_VERSION_PATCH 0

/** Returns the version of the library that is running, "MAJOR.MINOR.PATCH". The SRDMA_VERSION_* macros are the version
 *  that the program was compiled for. The string is static. Thread-safe. */
SRDMA_API const char *srdma_version(void);

/** Whether the library that is running filled `field` of a structure that it wrote or handed out: false when the library is older
 *  than the field. Ask for fields that a later version added, before you read them. */
#define SRDMA_HAS_FIELD(structure, field)                                                                                  \
	((const char *)&(structure)->field + sizeof (structure)->field <= (const char *)(structure) + (structure)->size)

/* -- errors and their texts -- */

/** Errors that errno has no word for. All are negative, and none equals a negative errno. */
enum srdma_error {
	SRDMA_ERANDOM = -10001,   /**< the random generator failed; nothing was sent */
	SRDMA_ETLS = -10002,      /**< the TLS handshake or the TLS channel failed */
	SRDMA_ECERT = -10003,     /**< the peer's certificate is not acceptable, or the peer did not accept ours */
	SRDMA_EPROTOCOL = -10004, /**< the peer sent something that docs/PROTOCOL.md does not allow */
	SRDMA_EREJECTED = -10005, /**< the server sent REJECT; srdma_reject_last() has the reason */
	SRDMA_EVERBS = -10006,    /**< a verbs call or a work request failed on the device */
	SRDMA_ELOST = -10007,     /**< the peer went away without a disconnect */
	SRDMA_ECLOSED = -10008,   /**< one of the two ends disconnected the connection in order */
	SRDMA_ECONFIG = -10009,   /**< certificates, keys or settings do not fit together */
	SRDMA_ESEAL = -10011,     /**< a sealed record did not authenticate: it was altered, replayed, or sent by someone else */
	SRDMA_ERECONNECTED = -10010, /**< not a failure: a link lost its connection and has a new one; see srdma_link_get_loss() */
};

/** Returns a short name for an error that this library returns. The string is static. Thread-safe. */
SRDMA_API const char *srdma_strerror(int error);

/** Returns the calling thread's last error as a sentence: what failed, on which object, and what to do. Each call that returns
 *  an error sets it, -EAGAIN and -ETIMEDOUT included. The text is valid until the thread's next call of this library. It is ""
 *  when no call has failed. */
SRDMA_API const char *srdma_error_text(void);

/* -- receive the log of the library -- */

enum srdma_log_level { SRDMA_LOG_ERROR, SRDMA_LOG_WARN, SRDMA_LOG_INFO, SRDMA_LOG_DEBUG };

/** The event of a record that has no name of its own. */
#define SRDMA_LOG_PLAIN "log"

/** One fact of a log record. */
struct srdma_log_field {
	size_t size;      /**< how much of it the library filled */
	const char *name; /**< a stable name in lower case and '_' */
	const char *text; /**< UTF-8 without characters that would steer a terminal or a log; NULL: the value is `number` */
	int64_t number;   /**< the value, when text is NULL */
};

/** One line of the log: the line as text, and its facts for programs. securdma-serve(1), "LOG", lists the events of the server
 *  and their fields. */
struct srdma_log_record {
	size_t size;       /**< how much of it the library filled */
	enum srdma_log_level level;
	const char *event; /**< a stable name such as "client.connected"; SRDMA_LOG_PLAIN for a line that is only text */
	bool security;     /**< someone tried something that is not allowed, or an operator may want to know who did this */
	const struct srdma_log_field *const *fields; /**< pointers to the facts */
	size_t field_count;
	const char *text;  /**< the line, without a newline */
};

/** Receives one record. The record and everything it points to are valid until the function returns. Any thread may call
 *  it, and several threads at the same time. */
typedef void srdma_log_fn(const struct srdma_log_record *record, void *arg);

/** Sends records up to `level` to `fn`; with `fn` NULL, their text goes to standard error, which is the default, at
 *  SRDMA_LOG_WARN. `arg` is for `fn`. Call it before other threads use the library. */
SRDMA_API void srdma_log_set(enum srdma_log_level level, srdma_log_fn *fn, void *arg);

/* ---- packet sequence numbers ----------------------------------------------------------------------------------- */

/* -- draw a packet sequence number -- */

/** Draws a packet sequence number: 24 uniform bits from OpenSSL's RAND_bytes. Thread-safe.
 *  Errors:
 *    SRDMA_ERANDOM   The generator failed. `*psn` is untouched: the function fails closed. */
SRDMA_API int srdma_psn_generate(uint32_t *psn);

/* ---- devices --------------------------------------------------------------------------------------------------- */

/* -- list the RDMA devices and their ports -- */

/** One port of one RDMA device. */
struct srdma_port_info {
	size_t size;                   /**< how much of it the library filled; see SRDMA_HAS_FIELD() */
	char device[64];               /**< name, as ibv_devices lists it */
	uint8_t port;                  /**< port number, from 1 */
	enum ibv_port_state state;     /**< IBV_PORT_ACTIVE when usable */
	uint8_t link_layer;            /**< IBV_LINK_LAYER_INFINIBAND or IBV_LINK_LAYER_ETHERNET */
	uint32_t active_mtu;           /**< bytes */
	uint16_t lid;                  /**< local identifier; 0 on Ethernet */
	int gid_count;                 /**< entries in the GID table that are not zero */
	bool is_local;                 /**< one of the GIDs is an address of this network namespace, or the port is InfiniBand's. The
					    kernel shows the devices of all namespaces, unless told otherwise (rdma-system(8)) */
	char error[160];               /**< why the device could not be opened or queried; "" when it could */
};

/** Lists the ports of all RDMA devices. Free `*list` with srdma_device_list_free(). Where there is no device, or the kernel
 *  has no RDMA support, it returns 0 and `*count` is 0. Thread-safe.
 *  Errors:
 *    -ENOMEM   Memory ran out.
 *    -EACCES   The process may not see the devices; other errors of ibv_get_device_list(3) are returned the same way. */
SRDMA_API int srdma_device_list_sized(struct srdma_port_info **list, size_t *count, size_t size);
SRDMA_INLINE int srdma_device_list(struct srdma_port_info **list, size_t *count)
{
	return srdma_device_list_sized(list, count, sizeof **list);
}
SRDMA_API void srdma_device_list_free(struct srdma_port_info **list);

/* -- open an RDMA device that all connections share -- */

struct srdma_device_options {
	size_t size;      /**< set by srdma_device_options_init() */
	const char *name; /**< device name; NULL: the first device with an active port that is local, as in srdma_port_info; else
			       the first with an active port */
	uint8_t port;     /**< port number; 0: likewise */
	int gid_index;    /**< index in the port's GID table; -1: chosen for each connection from the peer's address */
};
/** Fills `options` with the defaults: NULL, 0 and -1. Thread-safe. */
SRDMA_API void srdma_device_options_init_sized(struct srdma_device_options *options, size_t size);
SRDMA_INLINE void srdma_device_options_init(struct srdma_device_options *options)
{
	srdma_device_options_init_sized(options, sizeof *options);
}

/** A device context. A process opens it once and all its connections share it. Thread-safe; reference-counted. */
struct srdma_device;

/** Opens a device. The caller has the first reference and releases it with srdma_device_unref(). Thread-safe.
 *  Errors:
 *    -ENODEV        There is no device, no device of that name, or no active port; the text says how to get one.
 *    -EACCES        The process may not open the device.
 *    -EINVAL        The device has no such port, or the port no such GID index; or `options` is not initialised.
 *    -ENOMEM        Memory ran out.
 *    SRDMA_EVERBS   The device could not be opened or queried. */
SRDMA_API int srdma_device_open(const struct srdma_device_options *options, struct srdma_device **out);
/** Takes one more reference and returns `device`. */
SRDMA_API struct srdma_device *srdma_device_ref(struct srdma_device *device);
/** Releases a reference; the last one closes the device. */
SRDMA_API void srdma_device_unref(struct srdma_device **device);

/** The name of the device. Owned by the device. */
SRDMA_API const char *srdma_device_name(const struct srdma_device *device);
/** The number of the port that connections use. */
SRDMA_API uint8_t srdma_device_port(const struct srdma_device *device);
/** The shared verbs context. Owned by the device. */
SRDMA_API struct ibv_context *srdma_device_context(const struct srdma_device *device);
/** The device's capabilities, as read when it was opened. Owned by the device. */
SRDMA_API const struct ibv_device_attr *srdma_device_attr(const struct srdma_device *device);
/** The port's attributes, as read when the device was opened. Owned by the device. */
SRDMA_API const struct ibv_port_attr *srdma_device_port_attr(const struct srdma_device *device);

/* -- choose the source GID of a connection -- */

/** Chooses the source GID for a connection whose TCP socket has these addresses. It is the first of these that exists:
 *   - the index that the device was opened with, if it was opened with one;
 *   - on InfiniBand, index 0;
 *   - the RoCE v2 GID that is equal to `local`;
 *   - the first RoCE v2 GID of the address family of `peer` (IPv4-mapped for IPv4) that is an address of this network
 *     namespace, then any other; link-local ones last.
 *
 *  Errors:
 *    -EADDRNOTAVAIL   The port has no such GID, or the addresses are neither IPv4 nor IPv6.
 *    SRDMA_EVERBS     The device did not tell its GIDs. */
SRDMA_API int srdma_device_choose_gid(const struct srdma_device *device, const struct sockaddr *local,
				      const struct sockaddr *peer, uint8_t *gid_index, union ibv_gid *gid);

/* ---- TLS ------------------------------------------------------------------------------------------------------- */

/* -- credentials and rules of a TLS client or server -- */

/** Size in bytes of the SHA-256 of a certificate's public key (SubjectPublicKeyInfo, DER). */
#define SRDMA_PIN_SIZE 32
/** Room for a pin as text: "sha256:", 64 hexadecimal digits, and the terminating NUL. */
#define SRDMA_PIN_TEXT_SIZE 72

/** What a client checks its server against, and what it identifies itself with. Give ca_file or pin: there is no way to
 *  turn the check off.
 *
 *  The certificates in ca_file are trusted: a CA, root or not, for everything that it issues, itself or through other CAs;
 *  any other certificate for itself alone. A chain has at most 8 certificates and 32 KiB. Its keys are ECDSA on P-256, P-384 or
 *  P-521, RSA of 2048 to 4096 bits, Ed25519, Ed448 or, where OpenSSL has it, ML-DSA.
 *
 *  With revocation lists, every certificate of a chain is looked up in the lists of its issuer, and so are the CAs above a
 *  trusted one. A list must be whole: a list with a delta indicator, with an issuing distribution point that narrows it down,
 *  or with an unknown critical extension is an error here. While a list has expired, every peer whose chain it concerns is
 *  refused. The peer's own certificate needs a list of its issuer; crl_require_all says whether the CAs between it and the
 *  trusted one need lists, too. Lists in ca_file count as those in crl_file do. */
struct srdma_tls_client_options {
	size_t size;             /**< set by srdma_tls_client_options_init() */
	const char *ca_file;     /**< PEM file with the certificates to trust */
	const char *crl_file;    /**< PEM file with revocation lists; NULL: no list is consulted. With ca_file only */
	bool crl_require_all;    /**< a list must cover each certificate below the trusted one; default false: it must cover the
				      server's own, and may leave out the CAs above it */
	const char *pin;         /**< the server's public key, "sha256:HEX", for a self-signed certificate; instead of ca_file */
	const char *server_name; /**< name or IP address that the certificate must bear; NULL: the host connected to. A dot at the
				      end, upper case, and an IPv6 zone ("fe80::1%eth0") make no difference */
	const char *cert_file;   /**< own certificate (PEM, leaf first); NULL: anonymous */
	const char *key_file;    /**< its private key (PEM) */
	bool allow_tls12;        /**< accept TLS 1.2 as well as 1.3 */
};
/** What a server identifies itself with, and which clients it accepts. */
struct srdma_tls_server_options {
	size_t size;                 /**< set by srdma_tls_server_options_init() */
	const char *cert_file;       /**< certificate (PEM, leaf first) */
	const char *key_file;        /**< its private key (PEM) */
	const char *client_ca_file;  /**< PEM file with the certificates to trust, as for clients */
	const char *client_crl_file; /**< PEM file with revocation lists; NULL: no list is consulted */
	bool crl_require_all;        /**< as for clients */
	const char *identity_from;   /**< which names of a certificate a client goes by: a comma-separated list of cn, uri, email,
					  dns and pin; see struct srdma_identity (securdma_server.h). NULL: "cn,uri,email,dns" */
	bool insecure_anonymous_clients; /**< serve clients that show no certificate; one that is shown must still verify */
	bool allow_tls12;            /**< accept TLS 1.2 as well as 1.3 */
};
/** Fill `options` with the defaults: all NULL and false. */
SRDMA_API void srdma_tls_client_options_init_sized(struct srdma_tls_client_options *options, size_t size);
SRDMA_INLINE void srdma_tls_client_options_init(struct srdma_tls_client_options *options)
{
	srdma_tls_client_options_init_sized(options, sizeof *options);
}
SRDMA_API void srdma_tls_server_options_init_sized(struct srdma_tls_server_options *options, size_t size);
SRDMA_INLINE void srdma_tls_server_options_init(struct srdma_tls_server_options *options)
{
	srdma_tls_server_options_init_sized(options, sizeof *options);
}

/** The credentials and rules of a TLS client or server; many connections use one. Thread-safe; reference-counted. */
struct srdma_tls_context;

/** Make the context of a client or of a server. The files are read now; a later change of them needs a new context.
 *  Connections and servers take references of their own. Thread-safe.
 *  Errors:
 *    SRDMA_ECONFIG    A file is missing from the options, unreadable or malformed, key and certificate do not belong
 *                     together, or no peer could use the key: TLS 1.3 has no place for its curve (brainpool, secp256k1), or it
 *                     is RSA of other than 2048 to 4096 bits.
 *    -EACCES          The process may not read a file.
 *    -ENOENT          A file does not exist.
 *    -EINVAL          The pin is not "sha256:" and 64 hexadecimal digits, server_name is not a name, or `options` is
 *                     not initialised.
 *    -ENOMEM          Memory ran out. */
SRDMA_API int srdma_tls_client_new(const struct srdma_tls_client_options *options, struct srdma_tls_context **out);
SRDMA_API int srdma_tls_server_new(const struct srdma_tls_server_options *options, struct srdma_tls_context **out);
/** Takes one more reference and returns `context`. Thread-safe. */
SRDMA_API struct srdma_tls_context *srdma_tls_context_ref(struct srdma_tls_context *context);
/** Releases the caller's reference; the last one wipes and frees the context. Thread-safe. */
SRDMA_API void srdma_tls_context_unref(struct srdma_tls_context **context);

/* ---- connections ----------------------------------------------------------------------------------------------- */

/* -- options of a connection -- */

/** Room for the name that a peer goes by, with the terminating NUL. */
#define SRDMA_NAME_SIZE 256

/** Attributes of the queue pair that the verbs specification leaves to each end. */
struct srdma_qp_options {
	size_t size;            /**< set by srdma_qp_options_init() */
	uint32_t path_mtu;      /**< upper bound, bytes: 256 to 4096; 0: the port's; the lower of both ends is used */
	uint8_t timeout;        /**< local ACK timeout 4.096 us * 2^timeout, 0 to 31, 0 = never; default 14 (67 ms) */
	uint8_t retry_count;    /**< transport retries, 0 to 7; default 6, because rdma_rxe never stops at 7 */
	uint8_t rnr_retry;      /**< retries when the receiver is not ready, 0 to 7, 7 = for ever; default 6. Credits keep the
				     receiver ready in ordinary use */
	uint8_t min_rnr_timer;  /**< code 0 to 31 of the specification's table; default 12 (0.64 ms) */
	uint8_t max_rd_atomic;  /**< outstanding RDMA reads, above 0; the device's limit is used when it is lower; default 16 */
	uint8_t service_level;  /**< 0 to 15; default 0 */
	uint8_t traffic_class;  /**< of the GRH or IP header; default 0 */
	uint8_t hop_limit;      /**< of the GRH or IP header; default 64 */
};
/** Fills `options` with the defaults. Thread-safe. */
SRDMA_API void srdma_qp_options_init_sized(struct srdma_qp_options *options, size_t size);
SRDMA_INLINE void srdma_qp_options_init(struct srdma_qp_options *options)
{
	srdma_qp_options_init_sized(options, sizeof *options);
}

/** Whether the messages, writes and reads on the queue pair are encrypted and authenticated. */
enum srdma_seal {
	SRDMA_SEAL_OFF,      /**< plain RDMA packets: anyone who sees them can read and forge them */
	SRDMA_SEAL_REQUIRED, /**< all messages, writes and reads are sealed with keys from the TLS session. When only one end
				  requires it, there is no connection */
};

/** The default, and the highest, number of PSNs that a direction may consume before both ends draw new ones. */
#define SRDMA_EPOCH_PSNS (1u << 23)
/** The lowest such number. */
#define SRDMA_EPOCH_PSNS_MIN 16384u

/** The most bytes of private data, and of a control message. */
#define SRDMA_PRIVATE_DATA_MAX 512
#define SRDMA_CONTROL_MESSAGE_MAX 512
/** How many control messages a peer's program may leave untaken before srdma_conn_control_send() waits. */
#define SRDMA_CONTROL_DEPTH 16

/** Options of a connection. */
struct srdma_conn_options {
	size_t size;                       /**< set by srdma_conn_options_init() */
	const struct srdma_qp_options *qp; /**< of its queue pair; NULL: the defaults. Copied by the function that takes the options */
	bool raw;                /**< only the secure bring-up: no rings, no posted receives; you use the verbs objects */
	uint32_t raw_send_depth; /**< raw: send queue depth; default 64 */
	uint32_t raw_recv_depth; /**< raw: receive queue depth; default 64 */
	uint32_t message_size;   /**< longest message, 64 to 1 MiB; default 4096; the lower of both ends is used */
	uint32_t depth;          /**< messages in flight per direction, 1 to 4096; default 16; the lower of both ends is used */
	uint32_t rdma_depth;     /**< RDMA writes and reads in flight, 1 to 4096; default 16 */
	size_t region_size;      /**< bytes of the region offered to the peer, zeroed; 0: none, the default, but not for
				      the clients of a server: see srdma_server_conn_options_init() */
	unsigned region_access;  /**< what the peer may do to the region: IBV_ACCESS_REMOTE_WRITE, IBV_ACCESS_REMOTE_READ, or
				      both, which is the default. The queue pair of a raw connection allows the same, for memory
				      that you register in its protection domain */
	int setup_timeout_ms;    /**< for TCP, TLS, exchange and queue pair together; default 10000 */
	int busy_retry_ms;       /**< when connecting: how long to try again, after growing random pauses, while the server
				      answers SRDMA_REJECT_BUSY. Each try is logged (info). 0: not at all; default 10000 */
	int timeout_ms;          /**< default of blocking calls; above 0; default 30000 */
	enum srdma_seal seal;    /**< default SRDMA_SEAL_OFF. Not for raw connections. A sealed write or read of the peer's region
				      needs the peer's program to be in a call of this library, or to be a server */
	uint32_t epoch_psns;     /**< PSNs that a direction may consume before both ends draw new ones and renew the queue pair,
				      without loss of anything: SRDMA_EPOCH_PSNS_MIN to SRDMA_EPOCH_PSNS (default). 0: never;
				      then there are no epochs, and no recovery either. Unless both ends want epochs, there are
				      none */
	int epoch_ms;            /**< the same after so many milliseconds, with a fresh queue pair, so that no sweep of the PSNs
				      ever completes; at least 100. 5000 is half of what a fast NIC needs for a sweep. Default 0:
				      not by time */
	unsigned recoveries;     /**< how often in a minute a failed queue pair is replaced, without loss or duplication of
				      messages. One failure more ends the connection. 0: the first one does; default 8 */
	uint64_t max_bytes_per_second; /**< what this end takes from the peer: messages, and, when sealed, the peer's writes and
				      reads; each counts as 64 bytes at least. The rest waits at the peer. The device serves plain writes and reads without asking,
				      so they do not count. Default 0: no limit */
	int spin;                /**< microseconds to poll the completion queues before sleeping; default 50; -1: always poll.
				      Unless it is 0, up to 1.5 ms after a chunk of a sealed write or read */
	const char *gid_networks;/**< comma-separated CIDR list: GIDs that a peer may use besides its own TCP address. A server's
				      default is none. For a client, NULL trusts the authenticated server's word. Copied, like all
				      that the options point to */
	const void *private_data; /**< bytes for the peer's program, which has them before it accepts the connection:
				      srdma_conn_peer_private_data(). A client that has none to send and wants the server's gives a
				      pointer and the size 0. A server's data goes only to clients that have set this. Default
				      NULL. A server of an older version, without private data, rejects a client that sets it */
	size_t private_data_size; /**< 0 to SRDMA_PRIVATE_DATA_MAX bytes */
	bool control_messages;   /**< allow srdma_conn_control_send() and srdma_conn_control_recv(), which need both ends to set this.
				      Default false. A server of an older version rejects a client that sets it */

	unsigned seal_threads;   /**< sealed: threads besides the connection's own that seal chunks of writes and reads, and open chunks
				      and messages, ahead; 0 to 64. The clients of a server share its threads; all other connections
				      of a process share others, as many as the highest number that one of them asks for. Useful where
				      one processor seals more slowly than the device transfers, and others are idle. Default 0:
				      the connection's thread does it all */
	bool named_regions;      /**< allow what securdma_memory.h has: regions with names, notices, and requests of several pieces. Both
				      ends must set this. Default false. A server of an older version rejects a client that sets it */
};
/** Fills `options` with the defaults. Thread-safe. */
SRDMA_API void srdma_conn_options_init_sized(struct srdma_conn_options *options, size_t size);
SRDMA_INLINE void srdma_conn_options_init(struct srdma_conn_options *options)
{
	srdma_conn_options_init_sized(options, sizeof *options);
}

/* -- connect to a server -- */

/** A timeout_ms: the default of the connection, srdma_conn_options.timeout_ms. */
#define SRDMA_DEFAULT_TIMEOUT (-1)
/** Port of the TLS channel unless another is given. */
#define SRDMA_DEFAULT_PORT "4433"

/** A connected queue pair and everything that belongs to it: its own protection domain, completion queues, memory, and TLS
 *  channel. */
struct srdma_conn;

/** Connects to `host` (a name or an address) and `port` (a number or a service). Of a name's addresses it takes the one that
 *  answers first: it tries the next one when one has failed, or has not answered for a quarter of a second (RFC 8305).
 *  `context` comes from srdma_tls_client_new(). The connection takes references of its own to `context` and `device`. Blocks up to
 *  options->setup_timeout_ms, and, while the server is busy, up to options->busy_retry_ms more. Thread-safe.
 *  Errors:
 *    -EINVAL           The host, the port or an option is not valid, `options` is not initialised, or `context` is a server's.
 *    -EHOSTUNREACH     The name has no address.
 *    -ECONNREFUSED     Nothing listens at any of the addresses; other errors of connect(2) are returned the same way.
 *    -ETIMEDOUT        The set-up took longer than setup_timeout_ms.
 *    -EADDRNOTAVAIL    The device has no GID for this peer.
 *    -ENOMEM           Memory, or the limit on locked memory, does not suffice.
 *    SRDMA_ECONFIG     Certificates, keys or settings do not fit together.
 *    SRDMA_ETLS        The TLS handshake or the TLS channel failed.
 *    SRDMA_ECERT       One end did not accept the other's certificate.
 *    SRDMA_EPROTOCOL   The peer does not speak this protocol.
 *    SRDMA_EREJECTED   The server sent REJECT; srdma_reject_last() has its reason.
 *    SRDMA_ELOST       The server went away during the set-up.
 *    SRDMA_ERANDOM     The random generator failed.
 *    SRDMA_EVERBS      A verbs call failed. */
SRDMA_API int srdma_conn_connect(const char *host, const char *port, struct srdma_tls_context *context, struct srdma_device *device,
				 const struct srdma_conn_options *options, struct srdma_conn **out);

/* -- connect without waiting -- */

/** A connection that is coming up. */
struct srdma_connect;

/** Begins what srdma_conn_connect() does, and returns at once. srdma_connect_step() does the work; only the look-up of a host name
 *  has a thread of its own. A program can connect many side by side. The time limits of the options count from here on. Everything
 *  that is passed is copied or referenced. Thread-safe.
 *  Errors:
 *    -EINVAL   The host or the port is NULL, an option is not valid, `options` is not initialised, or `context` is a server's.
 *    -EMFILE   The process has no descriptor left.
 *    -ENOMEM   Memory ran out. */
SRDMA_API int srdma_conn_connect_start(const char *host, const char *port, struct srdma_tls_context *context, struct srdma_device *device,
				       const struct srdma_conn_options *options, struct srdma_connect **out);
/** Returns a descriptor for poll(2), select(2) or epoll(7), the same one for the object's life. It is readable when
 *  srdma_connect_step() is worth a call: at first, whenever something has come, and when a time has passed, so the program needs no
 *  timer. Owned by the object. Take it out of your epoll(7) set before srdma_connect_free(); that of the connection is another one. */
SRDMA_API int srdma_connect_fd(const struct srdma_connect *connect);
/** Goes as far as it can without waiting. Returns 0 with the connection, which is the caller's; or a negative error. After -EAGAIN
 *  call it again; after any other result only srdma_connect_free() is useful. srdma_reject_last() then has the server's reason.
 *  Errors: -EAGAIN; those of srdma_conn_connect(). */
SRDMA_API int srdma_connect_step(struct srdma_connect *connect, struct srdma_conn **out);
/** Frees the object, also while the connection is coming up, which then ends. A connection that was returned stays. */
SRDMA_API void srdma_connect_free(struct srdma_connect **connect);

/* -- why a server rejected the connection -- */

/** Reason codes of REJECT. */
enum srdma_reject_reason {
	SRDMA_REJECT_NONE = 0,
	SRDMA_REJECT_VERSION = 1,   /**< the protocol version is not supported */
	SRDMA_REJECT_MALFORMED = 2, /**< a field is out of range */
	SRDMA_REJECT_FULL = 3,      /**< max_clients, or the limit for one name or address, is reached */
	SRDMA_REJECT_ADDRESS = 4,   /**< the GID is not the client's to use */
	SRDMA_REJECT_FEATURE = 5,   /**< the link layers or modes of the two ends do not fit together */
	SRDMA_REJECT_RESOURCES = 6, /**< the server could not make the queue pair */
	SRDMA_REJECT_DRAINING = 7,  /**< the server is shutting down */
	SRDMA_REJECT_REFUSED = 8,   /**< the server's limits (denied, or not listed) or its program refuse this client */
	SRDMA_REJECT_BUSY = 9,      /**< too many connections are being set up; try again after retry_after_ms */
};
/** What a REJECT said. */
struct srdma_reject {
	size_t size;             /**< how much of it the library filled or reads */
	enum srdma_reject_reason reason;
	uint32_t retry_after_ms; /**< 0: retrying does not help by itself */
	char text[256];          /**< a sentence of the server's */
};
/** Returns a word for a reason, such as "full"; "unknown" for a number that is no reason. Static. Thread-safe. */
SRDMA_API const char *srdma_reject_reason_name(enum srdma_reject_reason reason);

/** Copies the REJECT behind the calling thread's last SRDMA_EREJECTED; zeros when there was none. Thread-safe. */
SRDMA_API void srdma_reject_last_sized(struct srdma_reject *reject, size_t size);
SRDMA_INLINE void srdma_reject_last(struct srdma_reject *reject)
{
	srdma_reject_last_sized(reject, sizeof *reject);
}

/* -- accept connections in a program with threads of its own -- */

/** A listening TLS port, for programs with their own threads. srdma_server_start() is built on it. */
struct srdma_listener;

/** Listens on `address` (NULL: all addresses) and `port` ("0": any free one; NULL: SRDMA_DEFAULT_PORT).
 *  Errors:
 *    -EADDRINUSE      Another program listens there.
 *    -EACCES          The process may not listen on this port.
 *    -EADDRNOTAVAIL   No interface has this address.
 *    -EINVAL          The address or the port is not valid.
 *    -EHOSTUNREACH    The name has no address.
 *    -ETIMEDOUT       The name could not be looked up within 10 s, for which the call waits.
 *    -ENOMEM          Memory ran out. */
SRDMA_API int srdma_listener_listen(const char *address, const char *port, struct srdma_listener **out);
/** Makes a listener of a socket that already listens, such as one from systemd. The descriptor is duplicated: `fd` stays the
 *  caller's. The socket becomes non-blocking.
 *  Errors:
 *    -EINVAL   The descriptor is not a listening TCP socket.
 *    -EMFILE   The process has no descriptor left.
 *    -ENOMEM   Memory ran out. */
SRDMA_API int srdma_listener_from_fd(int fd, struct srdma_listener **out);
/** Closes the listener. Connections that came from it stay. */
SRDMA_API void srdma_listener_free(struct srdma_listener **listener);
/** Returns a descriptor for poll(2), readable while a client waits. Owned by the listener. */
SRDMA_API int srdma_listener_fd(const struct srdma_listener *listener);
/** Returns the port that the listener has. */
SRDMA_API uint16_t srdma_listener_port(const struct srdma_listener *listener);

/** Accepts a TCP connection, and no more. SRDMA_DEFAULT_TIMEOUT is 30 s here.
 *  Returns: the socket, close-on-exec and non-blocking, which the caller closes or passes on; or a negative error.
 *  Errors:
 *    -ETIMEDOUT, -EAGAIN   No client came. Other errors are those of accept4(2). */
SRDMA_API int srdma_listener_accept(struct srdma_listener *listener, int timeout_ms);

struct srdma_cert_name; /* securdma_cert.h */

/** What is known of a client that asks for a connection: it has authenticated, and its HELLO is valid. Everything it points to is
 *  valid until the function returns. */
struct srdma_admit_request {
	size_t size;                     /**< how much of it the library filled; see SRDMA_HAS_FIELD() */
	const char *peer_name;           /**< as in struct srdma_conn_info */
	const char *peer_pin;            /**< likewise */
	const struct srdma_cert_name *const *names; /**< all names in the certificate, as in struct srdma_peer_cert */
	size_t name_count;               /**< 0: it showed no certificate */
	const struct sockaddr *address;  /**< of the client; behind a balancer, what the balancer said */
	const void *private_data;        /**< the client's; NULL: it has announced none */
	size_t private_data_size;
};
/** What the program answers. The library fills it before the call, so that an answer may be left as it is. */
struct srdma_admit_answer {
	size_t size;                /**< how much of it the library reads; see SRDMA_HAS_FIELD() */
	uint64_t client_id;         /**< for srdma_conn_info, 0 at first; a server sets its own instead */
	struct srdma_reject *reject; /**< why the client is turned away: SRDMA_REJECT_REFUSED, "refused", unless it is changed */
	uint8_t *private_data;      /**< room for SRDMA_PRIVATE_DATA_MAX bytes, with the private data of the options in it: change it for
				         this client */
	size_t private_data_size;   /**< how many bytes the client gets, if it has announced private data itself */
};
/** Decides about a client before anything is made for it: no queue pair, no memory. It returns 0 to accept the client, and any
 *  other value to turn it away. It should not block: in a server, other clients' set-ups wait for it. Several threads may call it
 *  at the same time. */
typedef int srdma_admit_fn(const struct srdma_admit_request *request, struct srdma_admit_answer *answer, void *arg);

/** Takes one accepted TCP socket through TLS, HELLO with its private data, `admit` (NULL: every client is accepted, with id 0), queue pair,
 *  WELCOME and READY. From this call on the socket is the library's, also when the call fails. Blocks up to
 *  options->setup_timeout_ms. Different threads may call it at the same time.
 *  Errors: those of srdma_conn_connect(). */
SRDMA_API int srdma_conn_accept(int socket, struct srdma_tls_context *context, struct srdma_device *device,
				const struct srdma_conn_options *options, srdma_admit_fn *admit, void *admit_arg, struct srdma_conn **out);

/* -- accept without waiting -- */

/** A client that is being accepted. */
struct srdma_accept;

/** Begins what srdma_conn_accept() does, and returns at once. No thread is involved: srdma_accept_step() does the work. A program can
 *  accept many clients side by side. From this call on the socket is the library's, also when the call fails. Thread-safe.
 *  Errors:
 *    -EINVAL       An option is not valid, `options` is not initialised, or `context` is a client's.
 *    SRDMA_ELOST   The client has gone, or `socket` is not its TCP socket.
 *    -ENOMEM       Memory ran out. */
SRDMA_API int srdma_conn_accept_start(int socket, struct srdma_tls_context *context, struct srdma_device *device,
				      const struct srdma_conn_options *options, srdma_admit_fn *admit, void *admit_arg,
				      struct srdma_accept **out);
/** Return what to wait for before the next srdma_accept_step(): the descriptor, its events (POLLIN or POLLOUT of poll(2)), which
 *  change from step to step, and the milliseconds after which to call it even without an event. The descriptor is -1, which
 *  poll(2) ignores, once the connection was returned. */
SRDMA_API int srdma_accept_fd(const struct srdma_accept *accept);
SRDMA_API short srdma_accept_events(const struct srdma_accept *accept);
SRDMA_API int srdma_accept_left_ms(const struct srdma_accept *accept);
/** Goes as far as it can without waiting. Returns 0 with the connection, which is the caller's; or a negative error. After -EAGAIN
 *  call it again; after any other result only srdma_accept_free() is useful. A client that is turned away keeps it at -EAGAIN for
 *  up to a second, so that the client can read why.
 *  Errors: -EAGAIN; those of srdma_conn_connect(). */
SRDMA_API int srdma_accept_step(struct srdma_accept *accept, struct srdma_conn **out);
/** Frees the object, also while the client is being accepted, whose connection then ends. A connection that was returned stays. */
SRDMA_API void srdma_accept_free(struct srdma_accept **accept);

/* -- end a connection -- */

/** Ends a connection in order (request, acknowledge, finish). It waits until this end's outstanding work has completed and
 *  the peer has every message. `reason` (NULL, or up to 127 bytes) is for the peer's log. Whatever it returns, the
 *  connection is then over, and only srdma_conn_recv(), for messages that had come before, and srdma_conn_free() are useful.
 *  But with timeout_ms 0 it returns -EAGAIN while the disconnect is under way: call it again when srdma_conn_fd() is readable.
 *  Returns: 0, also when the peer has disconnected or an earlier call did; or a negative error.
 *  Errors:
 *    -EAGAIN       timeout_ms is 0, and the disconnect is under way.
 *    -ETIMEDOUT    The peer did not answer in time.
 *    SRDMA_ELOST   The peer went away meanwhile. Other errors are those that ended the connection before. */
SRDMA_API int srdma_conn_disconnect(struct srdma_conn *conn, const char *reason, int timeout_ms);

/** Ends several connections at once: what srdma_conn_disconnect() does for one, side by side. Programs that are each other's peers, such
 *  as the ranks of a ring, need it to leave together: with one call after the other, each would wait for a peer that waits as
 *  well. NULL entries are passed over. SRDMA_DEFAULT_TIMEOUT is that of the first connection. Not for a server's connections.
 *  Returns: 0 when all ended in order; or the first error. All have ended then, but for -EAGAIN.
 *  Errors:
 *    -EAGAIN   timeout_ms is 0, and some are under way: call it again. Other errors are those of srdma_conn_disconnect(). */
SRDMA_API int srdma_conn_disconnect_all(struct srdma_conn *const *conns, size_t count, const char *reason, int timeout_ms);

/** Frees the connection and all its objects, and wipes its memory. If the connection was not disconnected, the peer is not
 *  told. */
SRDMA_API void srdma_conn_free(struct srdma_conn **conn);

/* -- end a connection without waiting -- */

/** Begins what srdma_conn_disconnect() does, and returns at once. srdma_conn_disconnect_step() does the work. Begin the disconnects of
 *  several connections one after the other, and they go on side by side. Not for a server's connections.
 *  Errors:
 *    -EINVAL   timeout_ms is 0, or the connection is a server's. */
SRDMA_API int srdma_conn_disconnect_start(struct srdma_conn *conn, const char *reason, int timeout_ms);
/** Goes as far as it can without waiting. After -EAGAIN call it again when srdma_conn_fd() is readable, which it also is at first and
 *  when timeout_ms have passed.
 *  Returns: 0 when the connection has ended in order, also when the peer has disconnected; or a negative error.
 *  Errors:
 *    -EAGAIN       The disconnect is under way.
 *    -EINVAL       There was no srdma_conn_disconnect_start().
 *    -ETIMEDOUT    The peer did not answer in time. Other errors are those of srdma_conn_disconnect(). */
SRDMA_API int srdma_conn_disconnect_step(struct srdma_conn *conn);

/* -- what was agreed, and what has happened so far -- */

/** Duration of each phase of the set-up, in microseconds. On the accepting side tcp is 0, or the time spent waiting for a
 *  balancer's PROXY header. */
struct srdma_conn_timing {
	size_t size;       /**< how much of it the library filled; see SRDMA_HAS_FIELD() */
	uint64_t tcp;      /**< name resolution and TCP connect */
	uint64_t tls;      /**< TLS handshake, without this end's work on the queue pair meanwhile */
	uint64_t exchange; /**< HELLO, WELCOME, READY, with the waiting for the peer, without this end's work on the queue pair */
	uint64_t qp;       /**< PD, CQs, QP, memory registration and state transitions */
	uint64_t psn;      /**< of that, drawing the PSN */
	uint64_t total;
};

/** What the two ends agreed on, and what has happened so far. */
struct srdma_conn_info {
	size_t size;                 /**< how much of it the library filled; see SRDMA_HAS_FIELD() */
	uint64_t client_id;          /**< the server's number for this client; one server never uses a number twice */
	char peer_name[SRDMA_NAME_SIZE]; /**< the identity of the peer's certificate, as struct srdma_identity (securdma_server.h) says;
				      "" when it showed none. UTF-8 that can be shown. Never altered or cut: you can decide by it */
	char peer_pin[SRDMA_PIN_TEXT_SIZE]; /**< of the key in it; "" when it showed none */
	char peer_address[64];       /**< of the TCP connection, "10.0.0.1:4433" or "[fd00::1]:4433"; in a server with
					  proxy_networks, what the balancer said */
	char device[64];             /**< name of the RDMA device */
	char tls_version[16];        /**< "TLSv1.3" */
	char tls_cipher[64];         /**< OpenSSL's name of the cipher suite */
	char tls_group[32];          /**< of the key exchange, "x25519", "X25519MLKEM768" */
	uint32_t qpn, peer_qpn;
	uint32_t psn, peer_psn;      /**< starting PSNs: a secret as long as the connection lives; do not log them */
	uint8_t gid_index;
	union ibv_gid gid, peer_gid;
	uint16_t lid, peer_lid;
	uint32_t path_mtu;           /**< bytes */
	uint32_t message_size;       /**< longest message either way; 0 when raw */
	uint32_t depth;              /**< messages in flight per direction */
	uint32_t rdma_depth;         /**< RDMA writes and reads in flight */
	size_t region_size;          /**< own region, offered to the peer */
	size_t peer_region_size;     /**< the peer's region; 0: the peer offers none */
	unsigned peer_region_access; /**< IBV_ACCESS_REMOTE_* on the peer's region */
	uint64_t messages_sent, messages_received;
	uint64_t messages_acknowledged; /**< the peer's program has taken the first so many of the messages sent. The peer reports
					     it now and then, and when it disconnects */
	uint64_t bytes_sent, bytes_received; /**< payload of messages */
	uint64_t rdma_bytes_written, rdma_bytes_read; /**< by this end */
	uint32_t epoch;              /**< how often the PSNs were drawn anew; 0 at first. psn, peer_psn, qpn and peer_qpn are those
					  of the present epoch */
	uint32_t recoveries;         /**< how often this happened because the queue pair had failed */
	uint64_t epoch_psns;         /**< PSNs that this end has consumed in the present epoch */
	uint32_t pause_us;           /**< how long the last renewal kept this end from posting */
	uint32_t pause_max_us;       /**< the longest such pause so far */
	char seal[32];               /**< "AES-256-GCM" or "ChaCha20-Poly1305"; "" when not sealed */
	char close_reason[160];      /**< why the connection ended, in the peer's words; "" while it is up */
	int64_t connected_at;        /**< seconds since the epoch; only srdma_server_each() sets it */
	int worker;                  /**< the worker that serves the client, from 0; only srdma_server_each() sets it */
};
/** Fill `info` or `timing`. */
SRDMA_API void srdma_conn_get_info_sized(const struct srdma_conn *conn, struct srdma_conn_info *info, size_t size);
SRDMA_INLINE void srdma_conn_get_info(const struct srdma_conn *conn, struct srdma_conn_info *info)
{
	srdma_conn_get_info_sized(conn, info, sizeof *info);
}
SRDMA_API void srdma_conn_get_timing_sized(const struct srdma_conn *conn, struct srdma_conn_timing *timing, size_t size);
SRDMA_INLINE void srdma_conn_get_timing(const struct srdma_conn *conn, struct srdma_conn_timing *timing)
{
	srdma_conn_get_timing_sized(conn, timing, sizeof *timing);
}

/** Returns the private data that the peer gave in its options, for as long as the connection exists, and its size. It never
 *  changes. NULL and 0: the peer sent none. Owned by the connection. */
SRDMA_API const void *srdma_conn_peer_private_data(const struct srdma_conn *conn, size_t *size);

/** Tells how the work of sealing and opening is shared on a connection with seal_threads: bytes of records by thread, of all
 *  connections that share these threads. The first number is for the connections' own threads. Fills up to `count` numbers.
 *  Thread-safe while the connection exists.
 *  Returns: how many numbers there are, the threads and 1; 0: no other threads take part. */
SRDMA_API unsigned srdma_conn_seal_bytes(const struct srdma_conn *conn, uint64_t *bytes, unsigned count);

/* -- the verbs objects of a connection -- */

/** Return the raw verbs objects; the completion channel is that of both completion queues. The connection owns all of them.
 *  What you make in its protection domain must be gone before srdma_conn_free(): free your memory windows and queue pairs first, then the
 *  memory regions that windows were bound to, shared receive queues and address handles, and last your own completion queues. Else the
 *  device cannot free the protection domain, and the library logs an error. On a connection that is not raw, leave the
 *  queues alone: the library uses them, and replaces the queue pair at a renewal. */
SRDMA_API struct ibv_qp *srdma_conn_qp(struct srdma_conn *conn);
SRDMA_API struct ibv_pd *srdma_conn_pd(struct srdma_conn *conn);
SRDMA_API struct ibv_cq *srdma_conn_send_cq(struct srdma_conn *conn);
SRDMA_API struct ibv_cq *srdma_conn_recv_cq(struct srdma_conn *conn);
SRDMA_API struct ibv_comp_channel *srdma_conn_comp_channel(struct srdma_conn *conn);

/** Asks the device (ibv_query_qp(3)) for the queue pair's state and for both PSNs as they stand now: `*rq_psn` is the next
 *  one expected from the peer, `*sq_psn` the next one to be used. Any of the pointers may be NULL.
 *  Errors:
 *    SRDMA_EVERBS   The device did not answer. */
SRDMA_API int srdma_conn_query_qp(struct srdma_conn *conn, enum ibv_qp_state *state, uint32_t *rq_psn, uint32_t *sq_psn);

/** Tells where the peer's region is, for your own work requests: remote address, rkey and size. The rkey changes with each
 *  renewal.
 *  Errors:
 *    -ENXIO   The peer offers no region, or a sealed one, which has no rkey. */
SRDMA_API int srdma_conn_peer_region(struct srdma_conn *conn, uint64_t *address, uint32_t *rkey, size_t *size);

/* -- the region that this end offers -- */

/** Returns the own region, which the peer writes to and reads from; NULL when none is offered. Owned by the connection. The
 *  peer may change its contents at any time: copy before you check. */
SRDMA_API void *srdma_conn_region(struct srdma_conn *conn);

/** Takes the own region back from the peer, at once and for good. After this returns, the peer can no longer access the
 *  memory, which stays the connection's. The peer is told. Its later writes and reads fail at its own end with -ENXIO; those
 *  that are under way now end the connection.
 *  Errors:
 *    -ENXIO         No region is offered, or it was taken back before.
 *    SRDMA_EVERBS   The device did not do it. This error, and every other one, ends the connection. */
SRDMA_API int srdma_conn_withdraw_region(struct srdma_conn *conn);

/* -- draw new PSNs and replace the queue pair now -- */

/** Asks for new PSNs and a fresh queue pair. It returns at once. The renewal takes place while this program and the peer's
 *  are in calls of this library, and loses nothing. Thread-safe; async-signal-safe.
 *  Errors:
 *    -EOPNOTSUPP   The two ends did not agree on epochs, or the connection is raw. */
SRDMA_API int srdma_conn_renew(struct srdma_conn *conn);

/* ---- messages -------------------------------------------------------------------------------------------------- */

/* -- send and receive messages -- */

/** What the echo service of `securdma serve`, and of a server without handlers, adds to a message: its reply is the client's id
 *  (8 bytes, big-endian), then the message. A message for it can be message_size - SRDMA_ECHO_OVERHEAD long. */
#define SRDMA_ECHO_OVERHEAD 8

/** Sends a message of 0 to message_size bytes. It waits for a credit of the peer. `data` may be used again when it returns.
 *  Errors:
 *    -EMSGSIZE             The message is longer than message_size.
 *    -ETIMEDOUT, -EAGAIN   The peer has not taken earlier messages.
 *    -EOPNOTSUPP           The connection is raw.
 *    SRDMA_ECLOSED         The connection was disconnected.
 *    SRDMA_ELOST           The peer went away. This error and those below end the connection.
 *    SRDMA_ETLS            The TLS channel failed.
 *    SRDMA_EVERBS          The device failed.
 *    SRDMA_EPROTOCOL       The peer broke the protocol.
 *    SRDMA_ESEAL           A sealed record did not authenticate. */
SRDMA_API int srdma_conn_send(struct srdma_conn *conn, const void *data, size_t length, int timeout_ms);

/** Receives one message into `buffer`; `*length` becomes its length. Messages that the peer sent before it disconnected come
 *  first, then SRDMA_ECLOSED.
 *  Errors:
 *    -EMSGSIZE             `size` is too small. `*length` is the size needed; the message stays.
 *    -ETIMEDOUT, -EAGAIN   No message came.
 *    -ENOMSG               A notice is next, which only a peer with named_regions can send: srdma_conn_recv_notice().
 *    -EOPNOTSUPP           The connection is raw.
 *    SRDMA_ECLOSED         The connection was disconnected, and all messages were received.
 *    SRDMA_ELOST           The peer went away. This error and those below end the connection.
 *    SRDMA_ETLS            The TLS channel failed.
 *    SRDMA_EVERBS          The device failed.
 *    SRDMA_EPROTOCOL       The peer broke the protocol.
 *    SRDMA_ESEAL           A sealed record did not authenticate. */
SRDMA_API int srdma_conn_recv(struct srdma_conn *conn, void *buffer, size_t size, size_t *length, int timeout_ms);

/* -- send and receive control messages over the TLS channel -- */

/** Sends a control message of 0 to SRDMA_CONTROL_MESSAGE_MAX bytes over the TLS channel, which encrypts it whether the connection is
 *  sealed or not. Raw connections have control messages too: they are the way to tell the peer an rkey, or that a buffer is free.
 *  They come in order, but in no order with the messages, writes and reads on the queue pair. They are not for bulk data.
 *  Both ends must set control_messages. `data` may be used again when it returns. A loss of the connection loses those on their way.
 *  Errors:
 *    -EOPNOTSUPP           The two ends did not agree on control messages.
 *    -EMSGSIZE             The message is too long.
 *    -ETIMEDOUT, -EAGAIN   The peer's program has not taken the last SRDMA_CONTROL_DEPTH messages.
 *    SRDMA_ECLOSED         The connection was disconnected.
 *    SRDMA_ELOST           The peer went away. This error and those below end the connection.
 *    SRDMA_ETLS            The TLS channel failed.
 *    SRDMA_EPROTOCOL       The peer broke the protocol. */
SRDMA_API int srdma_conn_control_send(struct srdma_conn *conn, const void *data, size_t length, int timeout_ms);

/** Receives one control message into `buffer`; `*length` becomes its length. Messages that the peer sent before it disconnected
 *  come first, then SRDMA_ECLOSED.
 *  Errors:
 *    -EMSGSIZE             `size` is too small. `*length` is the size needed; the message stays.
 *    -ETIMEDOUT, -EAGAIN   No control message came.
 *    -EOPNOTSUPP           The two ends did not agree on control messages. Other errors are those of srdma_conn_control_send(). */
SRDMA_API int srdma_conn_control_recv(struct srdma_conn *conn, void *buffer, size_t size, size_t *length, int timeout_ms);

/* -- wait for a connection -- */

/** Returns a file descriptor for poll(2), select(2) or epoll(7), the same one for the connection's life, owned by the connection. After
 *  a call has returned -EAGAIN, the descriptor is readable when that call is worth repeating: a call that returns -EAGAIN arms the
 *  completion queues, and a timer for what is due by the clock, such as new PSNs or more bytes of max_bytes_per_second. So repeat
 *  the call until it returns -EAGAIN again, and only then wait. The descriptor may be readable for nothing.
 *
 *  On a raw connection it tells of control messages, regions with names, and the end, but not of completions of your own work requests: those
 *  come by the descriptor of srdma_conn_comp_channel(). Make that one non-blocking, arm the completion queues (ibv_req_notify_cq(3)), and
 *  wait for both. */
SRDMA_API int srdma_conn_fd(struct srdma_conn *conn);

/** Waits until there is something for srdma_conn_recv(), srdma_conn_recv_notice(), srdma_conn_control_recv() or srdma_conn_complete(), or
 *  the peer has gone, or another thread calls srdma_conn_wake(). On a raw connection it waits for a control message or the end.
 *  Errors:
 *    -ETIMEDOUT, -EAGAIN   Nothing came in time (-EAGAIN with timeout_ms 0).
 *    -EINTR                Another thread called srdma_conn_wake().
 *    SRDMA_ECLOSED         The peer has disconnected, and all its messages were received. Other errors are those that ended
 *                          the connection. */
SRDMA_API int srdma_conn_wait(struct srdma_conn *conn, int timeout_ms);

/** Ends the wait of srdma_conn_wait(), the present one or the next, in another thread. Thread-safe; async-signal-safe. */
SRDMA_API void srdma_conn_wake(struct srdma_conn *conn);

/* ---- one-sided access to the peer's region --------------------------------------------------------------------- */

/* -- write to and read from the peer's region -- */

/** Writes `length` bytes to `offset` of the peer's region by RDMA. It returns when the peer has them. Whatever it returns,
 *  neither the library nor the device uses `data` afterwards.
 *  Errors:
 *    -ENXIO         The peer offers no region.
 *    -ERANGE        The bytes are outside of the region.
 *    -EACCES        The region does not allow writes. This error and those above are found before anything is posted.
 *    -EINVAL        timeout_ms is 0: use srdma_conn_post_write().
 *    -EOPNOTSUPP    The connection is raw.
 *    -ETIMEDOUT     It was not done in time. This error ends the connection, so that the device lets go of the memory, unless
 *                   earlier requests or a renewal left no room to post it.
 *    SRDMA_EVERBS   The device failed. This error, and the others of srdma_conn_send(), end the connection. */
SRDMA_API int srdma_conn_write(struct srdma_conn *conn, const void *data, size_t length, uint64_t offset, int timeout_ms);
/** Reads `length` bytes at `offset` of the peer's region by RDMA. It returns 0 when `data` has
 *  every one of them and, on a sealed connection, all are authentic. After an error the contents of `data` are undefined.
 *
 *  A read is no snapshot of the region, sealed or not, if the peer's program or a write changes the bytes meanwhile: each byte is the old or
 *  the new one. The device reads a plain region packet by packet, and promises nothing within a packet. The peer's library seals the bytes in
 *  pieces of up to 256 KiB, counted from the beginning of the read, one after the other. A piece is authentic as it was sealed: what
 *  this end's completed writes have put there is in all of them, and what the peer changes meanwhile may be in some, and in a part of one. Have
 *  the peer say in a message that the bytes are complete, or put a number before and behind them that changes with them.
 *  Errors: those of srdma_conn_write(). */
SRDMA_API int srdma_conn_read(struct srdma_conn *conn, void *data, size_t length, uint64_t offset, int timeout_ms);

/* -- write and read with several requests in flight -- */

/** Memory registered in the connection's protection domain, without remote access, so that writes and reads need no copy. */
struct srdma_buffer;

/** Makes a buffer of `size` bytes (page-aligned, zeroed, wiped when freed); or registers the caller's `memory` when that is
 *  not NULL. It serves writes and reads of this connection alone. It may be freed before or after the connection: when the
 *  connection is freed, the device lets go of the memory.
 *  Errors:
 *    -EINVAL        `size` is 0 or too large.
 *    -ENOMEM        Memory, or the limit on locked memory, does not suffice.
 *    SRDMA_EVERBS   The device did not register the memory. */
SRDMA_API int srdma_buffer_new(struct srdma_conn *conn, void *memory, size_t size, struct srdma_buffer **out);
/** Deregisters and frees the buffer. After this returns, nothing reads or writes the memory. To free a buffer while a write or
 *  a read is under way in it is a mistake of the program, and ends the connection with -EINVAL. */
SRDMA_API void srdma_buffer_free(struct srdma_buffer **buffer);
/** Returns the buffer's memory. */
SRDMA_API void *srdma_buffer_data(struct srdma_buffer *buffer);

/** Post a write or a read between a buffer and the peer's region, and return at once. The operation ends with one
 *  completion that carries `cookie`. Before that, do not free the buffer, change it (write) or use it (read). When the
 *  connection ends, there is no completion: free the buffer before you use its memory for something else.
 *  Errors:
 *    -EAGAIN       rdma_depth operations are in flight, those included whose completion was not collected, or the queue pair is
 *                  being renewed.
 *    -ERANGE       The bytes are outside of the buffer or of the region.
 *    -EINVAL       The buffer is of another connection.
 *    -EMSGSIZE     The device, or an epoch, does not take so many bytes in one request.
 *    -ENXIO        The peer offers no region. Other errors are those of srdma_conn_write(). */
SRDMA_API int srdma_conn_post_write(struct srdma_conn *conn, struct srdma_buffer *buffer, size_t buffer_offset,
				    size_t length, uint64_t offset, uint64_t cookie);
SRDMA_API int srdma_conn_post_read(struct srdma_conn *conn, struct srdma_buffer *buffer, size_t buffer_offset,
				   size_t length, uint64_t offset, uint64_t cookie);
/** Collects completions of posted writes and reads, in the order of posting. It waits for the first one.
 *  Returns: how many completions it put into `cookies`, up to `max`; 0 when none is under way, at once or, while a renewal of
 *  the queue pair keeps any from being posted, at the end of that; or a negative error.
 *  Errors:
 *    -EINVAL               `max` is less than 1.
 *    -EOPNOTSUPP           The connection is raw.
 *    -ETIMEDOUT, -EAGAIN   None completed in time.
 *    SRDMA_ELOST           The peer went away. This error, and the others of srdma_conn_send(), end the connection. */
SRDMA_API int srdma_conn_complete(struct srdma_conn *conn, uint64_t *cookies, int max, int timeout_ms);

#ifdef __cplusplus
}
#endif
#endif
