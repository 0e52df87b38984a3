/* SPDX-License-Identifier: Apache-2.0 */
/**
 * securdma: reliable-connected RDMA queue pairs brought up with pure InfiniBand verbs over an authenticated TLS channel.
 *
 * One side listens (srdma_server_*, or srdma_listener_* for programs that bring their own threads), the other connects
 * (srdma_conn_connect). Both draw a random 24-bit starting PSN, exchange it with the queue-pair parameters inside TLS,
 * and take the queue pair through RESET, INIT, RTR and RTS. What comes out is a connection: messages both ways, RDMA
 * write to and RDMA read from the region that the peer offered; or only the raw verbs objects.
 *
 * Conventions
 *  - Functions return 0 or a count on success, else a negative error: an errno (-ETIMEDOUT) or a SRDMA_E* of this header.
 *    srdma_error_text() then says what failed, on what, and what to do about it.
 *  - Constructors set *out on success only. Destructors take the address of the pointer, accept NULL, and set it to NULL.
 *  - Sizes are bytes. Times are microseconds, unless the name ends in _ms. A timeout_ms of 0 never blocks
 *    (-EAGAIN), a negative one means the connection's default (srdma_conn_options.timeout_ms); nothing waits for ever.
 *  - Options structures are filled by their _init function first, so that fields added later have their defaults.
 *    Strings in them are copied by the function that takes the structure.
 *  - Thread safety: an object is used by one thread at a time, unless its description says otherwise. Different objects
 *    may be used by different threads at once.
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

/* ---- version, errors, log -------------------------------------------------------------------------------------- */

#define SRDMA_VERSION_MAJOR 0
#define SRDMA_VERSION_MINOR 1
#define SRDMA_VERSION_PATCH 0

/** Port of the TLS channel unless another is given. */
#define SRDMA_DEFAULT_PORT "4433"

/** Version of the library that is running, "MAJOR.MINOR.PATCH". Static. */
SRDMA_API const char *srdma_version(void);

/** Errors that errno has no word for. All are negative, and none equals a negative errno. */
enum srdma_error {
	SRDMA_ERANDOM = -10001,   /**< the random generator failed; nothing was sent */
	SRDMA_ETLS = -10002,      /**< the TLS handshake or channel failed */
	SRDMA_ECERT = -10003,     /**< the peer's certificate is not acceptable, or the peer did not accept ours */
	SRDMA_EPROTOCOL = -10004, /**< the peer sent something that docs/PROTOCOL.md does not allow */
	SRDMA_EREJECTED = -10005, /**< the server said REJECT; srdma_reject_last() has the reason */
	SRDMA_EVERBS = -10006,    /**< a verbs call or a work request failed on the device */
	SRDMA_ELOST = -10007,     /**< the peer went away without a disconnect */
	SRDMA_ECLOSED = -10008,   /**< the connection was disconnected in order, by either side */
	SRDMA_ECONFIG = -10009,   /**< certificates, keys or settings that do not fit together */
	SRDMA_ESEAL = -10011,     /**< a sealed record did not authenticate: it was changed, replayed, or comes from somebody else */
	SRDMA_ERECONNECTED = -10010, /**< no failure: a link's connection was lost and there is a new one; srdma_link_loss() */
};

/** A short name for any error that this library returns. Static. */
SRDMA_API const char *srdma_strerror(int error);

/** The calling thread's last error, in a sentence: what failed, on which object, what to do. Valid until the thread's
 *  next srdma call; "" when there was none. */
SRDMA_API const char *srdma_error_text(void);

enum srdma_log_level { SRDMA_LOG_ERROR, SRDMA_LOG_WARN, SRDMA_LOG_INFO, SRDMA_LOG_DEBUG };

/** Receives one log line (no newline). May be called from any thread, several at once. */
typedef void srdma_log_fn(enum srdma_log_level level, const char *line, void *arg);

/** Sends log lines up to `level` to `fn`; fn NULL: to standard error (the default, at SRDMA_LOG_WARN).
 *  Call it before other threads use the library. */
SRDMA_API void srdma_log_set(enum srdma_log_level level, srdma_log_fn *fn, void *arg);

/** The event of a record that has no name of its own. */
#define SRDMA_LOG_PLAIN "log"

/** One fact of a log record. */
struct srdma_log_field {
	const char *name; /**< stable; lower case and '_' */
	const char *text; /**< printable ASCII; NULL: it is a number */
	int64_t number;
};

/** A log line with what it says in a form for programs. securdma-serve(1), "LOG", lists the server's events and their fields. */
struct srdma_log_record {
	enum srdma_log_level level;
	const char *event; /**< stable name such as "client.connected"; SRDMA_LOG_PLAIN for a line that has only text */
	bool security;     /**< somebody did what they may not, or who serves them may want to know who it was */
	const struct srdma_log_field *fields;
	size_t field_count;
	const char *text;  /**< the line, as srdma_log_fn gets it */
};

/** Receives one record; it and all that it points to are valid until return. May be called from any thread, several at
 *  once. */
typedef void srdma_log_record_fn(const struct srdma_log_record *record, void *arg);

/** Sends records up to `level` to `fn`, instead of what srdma_log_set said. Call it before other threads use the library. */
SRDMA_API void srdma_log_set_records(enum srdma_log_level level, srdma_log_record_fn *fn, void *arg);

/* ---- psn ------------------------------------------------------------------------------------------------------- */

/** Draws a packet sequence number: 24 uniform bits from OpenSSL's RAND_bytes. Thread-safe.
 *  Errors: SRDMA_ERANDOM when the generator fails; *psn is then untouched (it fails closed). */
SRDMA_API int srdma_psn_generate(uint32_t *psn);

/* ---- device ---------------------------------------------------------------------------------------------------- */

/** One port of one RDMA device. */
struct srdma_port_info {
	char device[64];               /**< name, as ibv_devices lists it */
	uint8_t port;                  /**< port number, from 1 */
	enum ibv_port_state state;     /**< IBV_PORT_ACTIVE when usable */
	uint8_t link_layer;            /**< IBV_LINK_LAYER_INFINIBAND or IBV_LINK_LAYER_ETHERNET */
	uint32_t active_mtu;           /**< bytes */
	uint16_t lid;                  /**< local identifier, 0 on Ethernet */
	int gid_count;                 /**< entries in the GID table that are not zero */
	char error[160];               /**< why the device could not be opened or queried; "" when it could */
};

/** Lists the ports of all RDMA devices. *list is freed with srdma_device_list_free. No device: 0 and *count == 0.
 *  Errors: -ENOMEM; -ENOSYS when the kernel has no RDMA support. */
SRDMA_API int srdma_device_list(struct srdma_port_info **list, size_t *count);
SRDMA_API void srdma_device_list_free(struct srdma_port_info **list);

struct srdma_device_options {
	const char *name; /**< device name; NULL: the first that has an active port */
	uint8_t port;     /**< port number; 0: the first active one */
	int gid_index;    /**< index in the port's GID table; -1: chosen per connection from the peer's address */
};
SRDMA_API void srdma_device_options_init(struct srdma_device_options *options);

/** A device context, opened once and shared by all connections of a process. Thread-safe; reference-counted. */
struct srdma_device;

/** Opens a device. Errors: -ENODEV no device, no such device, or no active port (the text says how to get one);
 *  -EACCES; -EINVAL no such port or GID index; SRDMA_EVERBS. */
SRDMA_API int srdma_device_open(const struct srdma_device_options *options, struct srdma_device **out);
SRDMA_API struct srdma_device *srdma_device_ref(struct srdma_device *device);
SRDMA_API void srdma_device_unref(struct srdma_device **device);

SRDMA_API const char *srdma_device_name(const struct srdma_device *device);
SRDMA_API uint8_t srdma_device_port(const struct srdma_device *device);
/** The shared verbs context; owned by the device. */
SRDMA_API struct ibv_context *srdma_device_context(const struct srdma_device *device);
/** Capabilities as read at open; owned by the device. */
SRDMA_API const struct ibv_device_attr *srdma_device_attr(const struct srdma_device *device);
/** Port attributes as read at open; owned by the device. */
SRDMA_API const struct ibv_port_attr *srdma_device_port_attr(const struct srdma_device *device);

/** Chooses the source GID for a connection whose TCP socket has these addresses: the fixed index when the device was
 *  opened with one; else the RoCE v2 GID equal to `local`; else the first RoCE v2 GID of `peer`'s family
 *  (IPv4-mapped for IPv4), link-local ones last. On InfiniBand: index 0. Errors: -EADDRNOTAVAIL when there is none. */
SRDMA_API int srdma_device_choose_gid(const struct srdma_device *device, const struct sockaddr *local,
				      const struct sockaddr *peer, uint8_t *gid_index, union ibv_gid *gid);

/* ---- tls ------------------------------------------------------------------------------------------------------- */

/** SHA-256 of a certificate's public key (SubjectPublicKeyInfo, DER), in bytes. */
#define SRDMA_PIN_SIZE 32
/** "sha256:" and 64 hexadecimal digits, with the terminating NUL. */
#define SRDMA_PIN_TEXT_SIZE 72

/** What a client checks its server against, and with what it identifies itself. There is no way to turn checking off:
 *  ca_file or pin must be given. */
struct srdma_tls_client_options {
	const char *ca_file;     /**< PEM file with the CA certificates to trust */
	const char *crl_file;    /**< PEM file with their revocation lists, one for each CA that issued a server's certificate;
				      NULL: none is consulted. With ca_file only */
	const char *pin;         /**< the server's public key, "sha256:HEX", for a self-signed one; instead of ca_file */
	const char *server_name; /**< name or IP address that the certificate must bear; NULL: the host connected to */
	const char *cert_file;   /**< own certificate (PEM, leaf first); NULL: anonymous */
	const char *key_file;    /**< its private key (PEM) */
	bool allow_tls12;        /**< accept TLS 1.2 as well as 1.3 */
};
struct srdma_tls_server_options {
	const char *cert_file;       /**< certificate (PEM, leaf first) */
	const char *key_file;        /**< its private key (PEM) */
	const char *client_ca_file;  /**< CA certificates that client certificates must come from */
	const char *client_crl_file; /**< PEM file with their revocation lists, one for each CA that issued a client's certificate;
					  NULL: none is consulted. One that has expired lets nobody in */
	bool insecure_anonymous_clients; /**< serve clients that show no certificate; one that is shown must still verify */
	bool allow_tls12;            /**< accept TLS 1.2 as well as 1.3 */
};
SRDMA_API void srdma_tls_client_options_init(struct srdma_tls_client_options *options);
SRDMA_API void srdma_tls_server_options_init(struct srdma_tls_server_options *options);

/** A TLS client's or server's credentials and rules; many connections use one. Thread-safe; reference-counted. */
struct srdma_tls_context;

/** Errors: SRDMA_ECONFIG a file is missing, unreadable, malformed, or key and certificate don't belong together;
 *  -EACCES, -ENOENT for files; -EINVAL a pin that is none; -ENOMEM. */
SRDMA_API int srdma_tls_client_new(const struct srdma_tls_client_options *options, struct srdma_tls_context **out);
SRDMA_API int srdma_tls_server_new(const struct srdma_tls_server_options *options, struct srdma_tls_context **out);
SRDMA_API void srdma_tls_context_unref(struct srdma_tls_context **context);

/* ---- cert ------------------------------------------------------------------------------------------------------ */

enum srdma_cert_kind { SRDMA_CERT_CA, SRDMA_CERT_SERVER, SRDMA_CERT_CLIENT, SRDMA_CERT_SELF_SIGNED };

/** What to put into a new certificate (ECDSA P-256, SHA-256). */
struct srdma_cert_request {
	enum srdma_cert_kind kind;
	const char *common_name;   /**< subject CN, 1 to 64 bytes */
	const char *const *names;  /**< subject alternative names: DNS names or IP addresses; server and self-signed */
	size_t name_count;
	unsigned days;             /**< valid from five minutes ago for this many days, 1 to 36500 */
	int64_t not_after;         /**< end of validity, seconds since the epoch, instead of days; 0: use days */
	const char *ca_cert_file;  /**< issuer; server and client */
	const char *ca_key_file;
	const char *cert_file;     /**< where the certificate goes, mode 0644 */
	const char *key_file;      /**< where the new private key goes, mode 0600 */
	bool overwrite;            /**< replace existing files; else -EEXIST and nothing is written */
};
/** Makes a key and a certificate. Either both files are written whole or neither is.
 *  Errors: -EEXIST, -EINVAL, -ENOENT, -EACCES, SRDMA_ECONFIG (the issuer is no CA, or key and certificate differ),
 *  SRDMA_ERANDOM. */
SRDMA_API int srdma_cert_make(const struct srdma_cert_request *request);

struct srdma_cert_info {
	char subject[256];         /**< RFC 2253 */
	char issuer[256];
	char common_name[128];
	char names[1024];          /**< subject alternative names, "DNS:a, IP:1.2.3.4"; "" when none */
	char serial[64];           /**< hexadecimal */
	char key[64];              /**< key type and size, "EC prime256v1" */
	char pin[SRDMA_PIN_TEXT_SIZE];
	int64_t not_before;        /**< seconds since the epoch */
	int64_t not_after;
	bool is_ca;
	bool self_signed;
	bool server_auth;          /**< usable as a server's certificate */
	bool client_auth;          /**< usable as a client's certificate */
};
/** Reads the first certificate of a PEM file. Errors: -ENOENT, -EACCES, SRDMA_ECONFIG. */
SRDMA_API int srdma_cert_read(const char *cert_file, struct srdma_cert_info *info);

/** Room for the name in a certificate, with the terminating NUL. */
#define SRDMA_NAME_SIZE 256

/* ---- conn ------------------------------------------------------------------------------------------------------ */

/** Attributes of the queue pair that the verbs specification leaves to each end. */
struct srdma_qp_options {
	uint32_t path_mtu;      /**< upper bound, bytes: 256 to 4096; 0: the port's; the lower of both ends is used */
	uint8_t timeout;        /**< local ACK timeout 4.096 us * 2^timeout, 0 to 31, 0 = never; default 14 (67 ms) */
	uint8_t retry_count;    /**< 0 to 7; default 7 */
	uint8_t rnr_retry;      /**< 0 to 7, 7 = for ever; default 6 (credits keep RNR away) */
	uint8_t min_rnr_timer;  /**< code 0 to 31 of the specification's table; default 12 (0.64 ms) */
	uint8_t max_rd_atomic;  /**< outstanding RDMA reads, 1 to the device's limit; default 16 or the device's limit */
	uint8_t service_level;  /**< 0 to 15; default 0 */
	uint8_t traffic_class;  /**< of the GRH or IP header; default 0 */
	uint8_t hop_limit;      /**< default 64 */
};

/** Whether what runs on the queue pair is encrypted and authenticated. */
enum srdma_seal {
	SRDMA_SEAL_OFF,      /**< plain RDMA packets: who sees them can read and forge them */
	SRDMA_SEAL_REQUIRED, /**< all messages, writes and reads are sealed with keys from the TLS session. Both ends require it, or
				  neither does: else there is no connection */
};

/** PSNs that a direction may consume before both ends draw new ones; the default, and the most. */
#define SRDMA_EPOCH_PSNS (1u << 23)
#define SRDMA_EPOCH_PSNS_MIN 16384u

struct srdma_conn_options {
	struct srdma_qp_options qp;
	bool raw;                /**< only the secure bring-up: no rings, no receives are posted; you use the verbs objects */
	uint32_t raw_send_depth; /**< raw: send queue depth; default 64 */
	uint32_t raw_recv_depth; /**< raw: receive queue depth; default 64 */
	uint32_t message_size;   /**< longest message, 64 to 1 MiB; default 4096; the lower of both ends is used */
	uint32_t depth;          /**< messages in flight per direction, 1 to 4096; default 16; the lower of both ends */
	uint32_t rdma_depth;     /**< RDMA writes and reads in flight, 1 to 4096; default 16 */
	size_t region_size;      /**< bytes of the region offered to the peer, zeroed; 0: none. Default 0 for clients,
				      65536 for servers */
	unsigned region_access;  /**< IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ (default both); what the peer may do */
	int setup_timeout_ms;    /**< for TCP, TLS, exchange and QP together; default 10000 */
	int busy_retry_ms;       /**< connecting: how long to try again, after growing random pauses, while the server answers
				      SRDMA_REJECT_BUSY; each try is logged (info); default 10000; 0: not at all */
	int timeout_ms;          /**< default of blocking calls; default 30000 */
	enum srdma_seal seal;    /**< default SRDMA_SEAL_OFF. Not for raw connections. A sealed write or read of the peer's region needs the
				      peer's program to be in a call of this library, or its server's worker */
	uint32_t epoch_psns;     /**< PSNs that a direction may consume before both ends draw new ones and renew the queue pair, without
				      loss of anything: SRDMA_EPOCH_PSNS_MIN to SRDMA_EPOCH_PSNS (default); 0: never: no epochs at all, no
				      recovery either. Both ends must want epochs, else there are none */
	int epoch_ms;            /**< the same after so many milliseconds, with a fresh queue pair, so that no sweep of the PSNs ever ends: 5000
				      is half of what a fast NIC needs for one; at least 100; default 0: not by time */
	unsigned recoveries;     /**< how often in a minute a queue pair that has failed is replaced, without loss or duplication of messages;
				      one failure more ends the connection; default 8; 0: the first one does */
	uint64_t max_bytes_per_second; /**< what is taken from the peer: messages, and, sealed, its writes and reads; more wait at the peer.
				      Plain writes and reads are the device's, and go past it. Default 0: any number */
	int spin;                /**< microseconds to poll the completion queues before sleeping; default 50; -1: always poll. Unless it is 0,
				      1.5 ms at most after a chunk of a sealed write or read */
	const char *gid_networks;/**< comma-separated CIDR list: GIDs a peer may use besides its own TCP address.
				      Server: default none. Client: NULL trusts the authenticated server's word */
};
SRDMA_API void srdma_conn_options_init(struct srdma_conn_options *options);

/** A connected queue pair and all that belongs to it: own protection domain, completion queues, memory, TLS channel. */
struct srdma_conn;

/** Connects to `host` (name or address) and `port` (number or service).
 *  `context` comes from srdma_tls_client_new. device and context are referenced, not owned.
 *  Errors: -ETIMEDOUT, -ECONNREFUSED and others of connect(2); -EHOSTUNREACH when the name does not resolve;
 *  SRDMA_ETLS, SRDMA_ECERT, SRDMA_EPROTOCOL, SRDMA_EREJECTED, SRDMA_ERANDOM, SRDMA_EVERBS, -EADDRNOTAVAIL, -ENOMEM. */
SRDMA_API int srdma_conn_connect(const char *host, const char *port, struct srdma_tls_context *context,
				 struct srdma_device *device, const struct srdma_conn_options *options,
				 struct srdma_conn **out);

/** Reason codes of REJECT. */
enum srdma_reject_reason {
	SRDMA_REJECT_NONE = 0,
	SRDMA_REJECT_VERSION = 1,   /**< protocol version not supported */
	SRDMA_REJECT_MALFORMED = 2, /**< a field is out of range */
	SRDMA_REJECT_FULL = 3,      /**< max_clients reached */
	SRDMA_REJECT_ADDRESS = 4,   /**< the GID is not the client's to use */
	SRDMA_REJECT_FEATURE = 5,   /**< the ends' link layers or modes don't fit together */
	SRDMA_REJECT_RESOURCES = 6, /**< the server could not make the queue pair */
	SRDMA_REJECT_DRAINING = 7,  /**< the server is shutting down */
	SRDMA_REJECT_REFUSED = 8,   /**< not this client: the server's limits (denied, or not listed) or its program say so */
	SRDMA_REJECT_BUSY = 9,      /**< too many connections are being set up; try again after retry_after_ms */
};
struct srdma_reject {
	enum srdma_reject_reason reason;
	uint32_t retry_after_ms; /**< 0: retrying does not help by itself */
	char text[256];
};
/** A word for a reason, "full"; "unknown" for what is none. Static. */
SRDMA_API const char *srdma_reject_reason_name(enum srdma_reject_reason reason);

/** The REJECT behind the calling thread's last SRDMA_EREJECTED. */
SRDMA_API void srdma_reject_last(struct srdma_reject *reject);

/** A listening TLS port, for programs with their own threads. srdma_server_* is built on it. */
struct srdma_listener;

/** Listens on `address` (NULL: all) and `port` ("0": any free one).
 *  Errors: -EADDRINUSE, -EACCES, -EADDRNOTAVAIL, -EINVAL. */
SRDMA_API int srdma_listener_new(const char *address, const char *port, struct srdma_listener **out);
/** The same on a socket that already listens, as systemd hands it over. It is duplicated: `fd` stays the caller's; the socket
 *  is made non-blocking. Errors: -EINVAL no listening TCP socket; -EMFILE; -ENOMEM. */
SRDMA_API int srdma_listener_new_fd(int fd, struct srdma_listener **out);
SRDMA_API void srdma_listener_delete(struct srdma_listener **listener);
SRDMA_API int srdma_listener_fd(const struct srdma_listener *listener); /**< pollable; readable when a client waits */
SRDMA_API uint16_t srdma_listener_port(const struct srdma_listener *listener);

/** Accepts a TCP connection only: returns its socket (close-on-exec, non-blocking; the caller's to close or to pass on),
 *  or -EAGAIN when none came within timeout_ms, or the error of accept4(2). */
SRDMA_API int srdma_listener_accept(struct srdma_listener *listener, int timeout_ms);

/** Decides about a client that is authenticated and whose HELLO is valid, before anything is made for it.
 *  Returns 0 to accept, with *client_id set; else fills *reject and returns SRDMA_EREJECTED. */
typedef int srdma_admit_fn(const char *peer_name, const struct sockaddr *peer, uint64_t *client_id,
			   struct srdma_reject *reject, void *arg);

/** Serves one accepted TCP socket up to a connected queue pair: TLS, HELLO, `admit` (NULL: all, with id 0), QP, WELCOME,
 *  READY. The socket is the library's from here on, also when it fails. Blocks up to options->setup_timeout_ms.
 *  Errors: as srdma_conn_connect. */
SRDMA_API int srdma_conn_accept(int socket, struct srdma_tls_context *context, struct srdma_device *device,
				const struct srdma_conn_options *options, srdma_admit_fn *admit, void *admit_arg,
				struct srdma_conn **out);

/** Ends a connection in order (request, acknowledge, finish): waits until own outstanding work has completed and the peer
 *  has every message; `reason` (NULL or up to 127 bytes) is for the peer's log. Returns 0, -ETIMEDOUT or SRDMA_ELOST; the
 *  connection is then over in any case and only srdma_conn_delete is useful. Messages of the peer that were not yet
 *  received can still be read with srdma_conn_recv. */
SRDMA_API int srdma_conn_disconnect(struct srdma_conn *conn, const char *reason, int timeout_ms);

/** Frees the connection and all its objects, without a word to the peer if it was not disconnected. Memory is wiped. */
SRDMA_API void srdma_conn_delete(struct srdma_conn **conn);

/** Phases of the set-up, microseconds. On the accepting side tcp is 0, or waiting for a balancer's PROXY header. */
struct srdma_conn_timing {
	uint64_t tcp;      /**< name resolution and TCP connect */
	uint64_t tls;      /**< TLS handshake */
	uint64_t exchange; /**< HELLO, WELCOME, READY: waiting for the peer included, own QP work excluded */
	uint64_t qp;       /**< PD, CQs, QP, memory registration and state transitions */
	uint64_t psn;      /**< of that, drawing the PSN */
	uint64_t total;
};

/** What was agreed and what happened so far. */
struct srdma_conn_info {
	uint64_t client_id;          /**< the server's number for this client; never used twice by one server */
	char peer_name[SRDMA_NAME_SIZE]; /**< subject CN of the peer's certificate, the first of several; "" when anonymous. Bytes other
				      than printable ASCII are '?', and what is too long is cut: see struct srdma_identity before
				      you decide by it */
	char peer_address[64];       /**< of the TCP connection, "10.0.0.1:4433" or "[fd00::1]:4433"; in a server with
					  proxy_networks, what the balancer said */
	char device[64];
	char tls_version[16];        /**< "TLSv1.3" */
	char tls_cipher[64];
	uint32_t qpn, peer_qpn;
	uint32_t psn, peer_psn;      /**< starting PSNs: a secret as long as the connection lives; don't log them */
	uint8_t gid_index;
	union ibv_gid gid, peer_gid;
	uint16_t lid, peer_lid;
	uint32_t path_mtu;           /**< bytes */
	uint32_t message_size;       /**< longest message either way; 0 when raw */
	uint32_t depth;              /**< messages in flight per direction */
	uint32_t rdma_depth;
	size_t region_size;          /**< own region, offered to the peer */
	size_t peer_region_size;     /**< the peer's region; 0: it offers none */
	unsigned peer_region_access; /**< IBV_ACCESS_REMOTE_* on it */
	uint64_t messages_sent, messages_received;
	uint64_t messages_acknowledged; /**< of those sent, the first so many: the peer's program has taken them from its queue,
					     and has told so, which it does now and then and when it disconnects */
	uint64_t bytes_sent, bytes_received; /**< payload of messages */
	uint64_t rdma_bytes_written, rdma_bytes_read; /**< by this side */
	uint32_t epoch;              /**< how often the PSNs were drawn anew; 0 at first. psn, peer_psn, qpn and peer_qpn are the present ones */
	uint32_t recoveries;         /**< of these, because the queue pair had failed */
	uint64_t epoch_psns;         /**< PSNs that this end has consumed in the present epoch */
	uint32_t pause_us;           /**< from the moment that nothing was posted any more until it was again, at the last renewal */
	uint32_t pause_max_us;       /**< the longest so far */
	char seal[32];               /**< "AES-256-GCM" or "ChaCha20-Poly1305"; "" when not sealed */
	char close_reason[160];      /**< why the connection ended, as the peer put it; "" while it is up */
	struct srdma_conn_timing timing;
	int64_t connected_at;        /**< seconds since the epoch; of srdma_server_each alone */
	int worker;                  /**< the worker that serves it, from 0; of srdma_server_each alone */
};
SRDMA_API void srdma_conn_info(const struct srdma_conn *conn, struct srdma_conn_info *info);

/** Asks the device (ibv_query_qp) for the queue pair's state and both PSNs as they stand now: `*rq_psn` is the next one
 *  expected from the peer, `*sq_psn` the next one to be used. Any pointer may be NULL. */
SRDMA_API int srdma_conn_query_qp(struct srdma_conn *conn, enum ibv_qp_state *state, uint32_t *rq_psn,
				  uint32_t *sq_psn);

/** The raw verbs objects. All are owned by the connection; what you make in its PD must be gone before
 *  srdma_conn_delete. On a connection that is not raw, leave the queues alone: the library uses them, and replaces the queue
 *  pair at a renewal. */
SRDMA_API struct ibv_qp *srdma_conn_qp(struct srdma_conn *conn);
SRDMA_API struct ibv_pd *srdma_conn_pd(struct srdma_conn *conn);
SRDMA_API struct ibv_cq *srdma_conn_send_cq(struct srdma_conn *conn);
SRDMA_API struct ibv_cq *srdma_conn_recv_cq(struct srdma_conn *conn);
SRDMA_API struct ibv_comp_channel *srdma_conn_comp_channel(struct srdma_conn *conn); /**< of both CQs */

/** The peer's region for your own work requests: remote address and rkey; the rkey is another one after each renewal. -ENXIO when
 *  it offers none, or one that is sealed. */
SRDMA_API int srdma_conn_peer_region(struct srdma_conn *conn, uint64_t *address, uint32_t *rkey, size_t *size);

/** The own region that the peer writes to and reads from; NULL when none is offered. Owned by the connection. The peer may
 *  change it at any time: copy before you check. */
SRDMA_API void *srdma_conn_region(struct srdma_conn *conn);

/** Takes the own region back from the peer, at once and for good: from return on no request of its reaches the memory, which
 *  stays the connection's. The peer is told; what it tries to write or read later fails there with -ENXIO, and what it had under
 *  way ends the connection. Errors: -ENXIO none is offered, or it was taken back before; SRDMA_EVERBS and others end the
 *  connection. */
SRDMA_API int srdma_conn_withdraw_region(struct srdma_conn *conn);

/** Asks for new PSNs and a fresh queue pair now. Returns at once; it happens while this and the peer's program are in calls of
 *  this library, and nothing is lost by it. Thread-safe, async-signal-safe. Errors: -EOPNOTSUPP the ends did not agree on
 *  epochs, or the connection is raw. */
SRDMA_API int srdma_conn_renew(struct srdma_conn *conn);

/* ---- messages -------------------------------------------------------------------------------------------------- */

/** Sends a message of 0 to message_size bytes. `data` may be reused at once. Waits for a credit of the peer.
 *  Errors: -EMSGSIZE; -ETIMEDOUT, -EAGAIN the peer has not taken earlier messages; SRDMA_ECLOSED, SRDMA_ELOST,
 *  SRDMA_EVERBS, SRDMA_EPROTOCOL end the connection. -EOPNOTSUPP when raw. */
SRDMA_API int srdma_conn_send(struct srdma_conn *conn, const void *data, size_t length, int timeout_ms);

/** Receives one message into `buffer`; *length becomes its length. Messages that the peer sent before it disconnected are
 *  delivered first, then SRDMA_ECLOSED, when the peer has been answered. Errors: -EMSGSIZE `size` is too small (*length is
 *  what is needed; the message stays); -ETIMEDOUT, -EAGAIN; SRDMA_ECLOSED, SRDMA_ELOST, SRDMA_EVERBS, SRDMA_EPROTOCOL; -EOPNOTSUPP when raw. */
SRDMA_API int srdma_conn_recv(struct srdma_conn *conn, void *buffer, size_t size, size_t *length, int timeout_ms);

/** A file descriptor for poll(2), select(2) or epoll(7), owned by the connection: readable when, after a call returned
 *  -EAGAIN, that call is worth repeating. (A call that returns -EAGAIN arms the completion queues.) */
SRDMA_API int srdma_conn_fd(struct srdma_conn *conn);

/** Waits until there is something for srdma_conn_recv or srdma_conn_complete, or the peer went away, or another thread
 *  called srdma_conn_wake. Returns 0, -ETIMEDOUT, -EAGAIN (timeout_ms 0), -EINTR (woken), SRDMA_ECLOSED when the peer has
 *  disconnected and all its messages were received, or the connection's error. On a raw connection it waits for the end. */
SRDMA_API int srdma_conn_wait(struct srdma_conn *conn, int timeout_ms);

/** Ends the wait of srdma_conn_wait, the running one or the next, in another thread. Thread-safe, async-signal-safe. */
SRDMA_API void srdma_conn_wake(struct srdma_conn *conn);

/* ---- one-sided access to the peer's region --------------------------------------------------------------------- */

/** Memory registered in the connection's PD, without remote access, so that writes and reads go without a copy. */
struct srdma_buffer;

/** Makes a buffer of `size` bytes (page-aligned, zeroed, wiped when deleted), or registers `memory` of the caller's when
 *  that is not NULL. It serves writes and reads of this connection alone, and may be deleted before or after it: when the connection is
 *  deleted, the device lets go of the memory. Errors: -ENOMEM (also the memlock limit), SRDMA_EVERBS. */
SRDMA_API int srdma_buffer_new(struct srdma_conn *conn, void *memory, size_t size, struct srdma_buffer **out);
/** From its return on nothing reads or writes the memory. A write or read that is still under way in it is a mistake of the program's,
 *  and ends the connection with -EINVAL. */
SRDMA_API void srdma_buffer_delete(struct srdma_buffer **buffer);
SRDMA_API void *srdma_buffer_data(struct srdma_buffer *buffer);

/** RDMA write of `length` bytes to `offset` of the peer's region; back when the peer has them.
 *  Errors: -ENXIO the peer offers no region; -ERANGE outside of it; -EACCES it does not allow that (all three are found
 *  before anything is posted); -ETIMEDOUT, SRDMA_EVERBS and the others of srdma_conn_send end the connection. Whatever it returns:
 *  neither the library nor the device uses `data` after it has returned. */
SRDMA_API int srdma_conn_write(struct srdma_conn *conn, const void *data, size_t length, uint64_t offset,
			       int timeout_ms);
/** RDMA read, likewise: 0 when every byte of `data` has come, and, sealed, is authentic. After an error nothing is known of `data`. */
SRDMA_API int srdma_conn_read(struct srdma_conn *conn, void *data, size_t length, uint64_t offset, int timeout_ms);

/** Posts a write or read between a buffer and the peer's region, and returns at once; it ends with one completion that
 *  carries `cookie`. Errors: as srdma_conn_write, and -EAGAIN when rdma_depth are in flight or the queue pair is being renewed; -ERANGE also when outside of
 *  the buffer; -EINVAL the buffer is another connection's. The buffer must not be deleted, or changed (write) or used (read), before the
 *  completion. When the connection ends there is none: then delete the buffer before its memory is put to another use. */
SRDMA_API int srdma_conn_post_write(struct srdma_conn *conn, struct srdma_buffer *buffer, size_t buffer_offset,
				    size_t length, uint64_t offset, uint64_t cookie);
SRDMA_API int srdma_conn_post_read(struct srdma_conn *conn, struct srdma_buffer *buffer, size_t buffer_offset,
				   size_t length, uint64_t offset, uint64_t cookie);
/** Collects completions of posted writes and reads, in the order of posting: returns how many (up to `max`), or an error.
 *  Waits for the first one. 0: none was under way, and the renewal of the queue pair that kept any from being posted is over. */
SRDMA_API int srdma_conn_complete(struct srdma_conn *conn, uint64_t *cookies, int max, int timeout_ms);

/* ---- link ------------------------------------------------------------------------------------------------------ */

/** A connecting end that outlives its connections. After a loss it connects again, to the same server or another one, by the
 *  policy of its options: new TLS session, new PSNs, new keys, a new queue pair. No message is delivered twice, because the link
 *  never sends one again by itself: it numbers them, tells which ones the peer's program has taken, and leaves it to its own
 *  program what to do about the others. One thread at a time uses it, but for srdma_link_wake. */
struct srdma_link;

/** A server to connect to. */
struct srdma_endpoint {
	const char *host; /**< name or address */
	const char *port; /**< number or service; NULL: SRDMA_DEFAULT_PORT */
};

struct srdma_link_options {
	struct srdma_conn_options conn;        /**< of each connection; not raw */
	const struct srdma_endpoint *endpoints; /**< tried one after the other, beginning with the one that was connected last */
	size_t endpoint_count;
	int connect_ms;   /**< the first connection: how long to go on trying; default 0: each endpoint once */
	int reconnect_ms; /**< after a loss: how long to go on trying; default 60000; 0: a loss is final */
	int pause_min_ms; /**< between rounds of all endpoints, each pause twice as long as the one before and drawn at random from half
			       to one and a half of that, so that those who were lost together do not come back together; the
			       first is a random part of this. Default 100 */
	int pause_max_ms; /**< the longest pause; a connection that lasted less, and brought nothing, does not reset the pauses.
			       Default 5000 */
};
SRDMA_API void srdma_link_options_init(struct srdma_link_options *options);

/** Connects. context and device are referenced, not owned. Errors: those of srdma_conn_connect, of the last endpoint tried;
 *  -EINVAL no endpoints, or a raw connection; -EINTR woken. What a later try can't mend (a certificate, settings, a REJECT that is
 *  final) is not tried again. */
SRDMA_API int srdma_link_new(const struct srdma_link_options *options, struct srdma_tls_context *context,
			     struct srdma_device *device, struct srdma_link **out);

/** Sends a message as srdma_conn_send does; *number (may be NULL) becomes its number: 1 for the link's first message, one more
 *  for each, over all its connections.
 *  SRDMA_ERECONNECTED: the connection was lost before; there is a new one, and this message was not sent.
 *  Other errors: as srdma_conn_send. Those that end the connection are returned when the policy's time was used up or nothing
 *  can mend it: the next call tries again; and with timeout_ms 0, which never waits: call srdma_link_reconnect. */
SRDMA_API int srdma_link_send(struct srdma_link *link, const void *data, size_t length, int timeout_ms, uint64_t *number);

/** Receives a message as srdma_conn_recv does. What had come over a connection that was lost is delivered first, then
 *  SRDMA_ERECONNECTED once, unless another call has returned it already. Errors as for srdma_link_send. */
SRDMA_API int srdma_link_recv(struct srdma_link *link, void *buffer, size_t size, size_t *length, int timeout_ms);

/** As srdma_conn_wait. Errors as for srdma_link_send, and -EINTR (woken). */
SRDMA_API int srdma_link_wait(struct srdma_link *link, int timeout_ms);

/** Ends the wait of srdma_link_wait, or a pause between two tries, in another thread. Thread-safe, async-signal-safe. */
SRDMA_API void srdma_link_wake(struct srdma_link *link);

/** Makes a new connection, when a call on srdma_link_conn has ended the old one. Returns SRDMA_ERECONNECTED; 0 when the
 *  connection is up; else the error. */
SRDMA_API int srdma_link_reconnect(struct srdma_link *link);

/** The connection of the moment, for srdma_conn_info, for poll(2), for RDMA writes and reads (the region of a new connection is
 *  new, and zeroed). Owned by the link, and gone after any call that returns SRDMA_ERECONNECTED: all that its buffers are good for
 *  then is to be deleted. NULL: there is none. */
SRDMA_API struct srdma_conn *srdma_link_conn(struct srdma_link *link);

/** The last loss, and what it means for the messages. */
struct srdma_link_loss {
	int error;             /**< what ended the connection, SRDMA_ELOST, SRDMA_ECLOSED (the server disconnected) or another */
	char text[512];        /**< in a sentence */
	uint64_t acknowledged; /**< messages with numbers up to this one, those in doubt at earlier losses aside, were taken by the
				    peer's program */
	uint64_t sent;         /**< the last one that was sent. Those between are in doubt: taken or not, nobody knows */
	size_t kept;           /**< messages that came over the old connection and were not yet received: they come first */
	unsigned attempts;     /**< connections tried since; 0: none yet */
	uint64_t down_us;      /**< from the moment that the loss was noticed to the new connection, microseconds */
};
/** All zero when there was none. */
SRDMA_API void srdma_link_loss(const struct srdma_link *link, struct srdma_link_loss *loss);

struct srdma_link_info {
	unsigned connections;  /**< made so far; losses are one fewer while connected */
	bool connected;
	uint64_t sent;         /**< number of the last message sent */
	uint64_t acknowledged; /**< messages up to this one, those in doubt aside, were taken by the peer's program */
	uint64_t in_doubt;     /**< messages in doubt at all losses together */
	struct srdma_endpoint endpoint; /**< of the last connection; valid as long as the link */
};
SRDMA_API void srdma_link_info(const struct srdma_link *link, struct srdma_link_info *info);

/** Ends the connection in order, as srdma_conn_disconnect does. After it only srdma_link_delete is useful. Nothing to do, and
 *  0, when there is no connection. */
SRDMA_API int srdma_link_disconnect(struct srdma_link *link, const char *reason, int timeout_ms);

/** Frees the link, its connection and what was not received; without a word to the peer if it was not disconnected. */
SRDMA_API void srdma_link_delete(struct srdma_link **link);

/* ---- server ---------------------------------------------------------------------------------------------------- */

/** The calls that a program answers. A client's calls come one after the other, from one thread, whose stack is 1 MiB; calls
 *  of different clients come at the same time, unless they are on the same worker (srdma_server_options.workers). A call
 *  that blocks holds up the other clients of its worker. On the connection of a call, srdma_conn_fd is -1. Any may be
 *  NULL. */
struct srdma_server_handlers {
	/** A client is connected. *client_arg is handed to the other calls. Non-zero disconnects it. */
	int (*on_connect)(struct srdma_conn *conn, void **client_arg, void *arg);
	/** A message came; data is valid until return. -EAGAIN: not now, call again with it, when there is room to send
	 *  (srdma_conn_send with timeout_ms 0 said -EAGAIN) or srdma_conn_wake was called; at the latest after timeout_ms it
	 *  must be taken. Other non-zero values disconnect the client: fill `reason` (128 bytes) for it. */
	int (*on_message)(struct srdma_conn *conn, const void *data, size_t length, char *reason, void *client_arg,
			  void *arg);
	/** The client is gone, in order (status 0) or not (the error); the connection is freed after return. */
	void (*on_disconnect)(struct srdma_conn *conn, int status, void *client_arg, void *arg);
};

/** What clients with one certificate name may.
 *
 *  The name is the subject's common name (CN) as the certificate has it, compared byte for byte, whichever of the CAs in
 *  client_ca_file issued it: trust no CA there that does not keep names unique. A client with no certificate has no name, and
 *  cannot be listed. Nor can a certificate with several CNs, or with one that is empty, longer than SRDMA_NAME_SIZE - 1 or not of
 *  printable ASCII alone: its client is one that is not listed. (It is denied all the same when what
 *  srdma_conn_info.peer_name shows for it is.) */
struct srdma_identity {
	const char *name;      /**< 1 to SRDMA_NAME_SIZE - 1 characters of printable ASCII */
	bool denied;           /**< its clients are told SRDMA_REJECT_REFUSED; the rest means nothing then */
	unsigned max_clients;  /**< connected at once under this name; default 0: max_clients_per_identity */
	int64_t region_size;   /**< bytes of the region offered to each of its clients, 0: none; default -1: as for all */
	int region_access;     /**< what they may do to it: IBV_ACCESS_REMOTE_WRITE, IBV_ACCESS_REMOTE_READ, both, or 0: nothing;
				    default -1: as for all */
	uint32_t message_size; /**< longest message, 64 to 1 MiB; the client's is used when it is lower; default 0: as for all */
	uint64_t max_bytes_per_second; /**< as in srdma_conn_options; default 0: as for all */
};
SRDMA_API void srdma_identity_init(struct srdma_identity *identity);

/** Who may come, and how many. */
struct srdma_server_limits {
	unsigned max_clients;           /**< connected at once; default 10 */
	unsigned max_pending;           /**< clients in set-up at once that have proved who they are; more are told
					     SRDMA_REJECT_BUSY. As many again may be about to prove it, the rest wait to be
					     accepted; default 64 */
	unsigned max_clients_per_identity; /**< connected at once under one certificate name; default 0: max_clients */
	unsigned max_clients_per_address;  /**< connected at once from one IP address; default 0: max_clients */
	unsigned max_setups_per_second; /**< set-ups begun in a second; more wait to be accepted; default 0: any number */
	bool only_listed_identities;    /**< who has no entry in `identities` is told SRDMA_REJECT_REFUSED, clients without a
					     certificate among them; default false */
	const struct srdma_identity *identities; /**< in any order, each name once; thousands are fine. Copied */
	size_t identity_count;
};
SRDMA_API void srdma_server_limits_init(struct srdma_server_limits *limits);

#define SRDMA_WORKERS_AUTO 0
#define SRDMA_WORKERS_PER_CLIENT (-1)

struct srdma_server_options {
	const char *address;            /**< to listen on; NULL: all */
	const char *port;               /**< default "4433"; "0": any free one */
	int listen_fd;                  /**< a listening TCP socket instead of address and port, as for srdma_listener_new_fd;
					     default -1: none */
	struct srdma_server_limits limits; /**< may be replaced later with srdma_server_set_limits */
	int workers;                    /**< threads that serve clients, each client on the one with the fewest; SRDMA_WORKERS_AUTO:
					     as many as processors; SRDMA_WORKERS_PER_CLIENT (default): one for each client, used
					     again when its client has gone */
	const char *proxy_networks;     /**< comma-separated CIDR list of balancers. A TCP connection from there must begin with
					     a header of the PROXY protocol (version 1 or 2) that says who the client is; one from
					     anywhere else must not. All that goes by the client's address, the rule for its GID
					     included, then goes by what a balancer says: name no network that others are in.
					     Default: none */
	int drain_timeout_ms;           /**< for srdma_server_stop to end all clients in order; default 5000 */
	struct srdma_conn_options conn; /**< for every client */
	struct srdma_server_handlers handlers; /**< all NULL: the built-in echo service */
	void *arg;
};
SRDMA_API void srdma_server_options_init(struct srdma_server_options *options);

/** The built-in echo service's reply: the client's id (8 bytes, big-endian), then the message. A message for it can be
 *  message_size - SRDMA_ECHO_OVERHEAD long. */
#define SRDMA_ECHO_OVERHEAD 8

/** A thread that listens, a few that set clients up, and workers that serve them. */
struct srdma_server;

/** Starts a server; its threads run when this returns. `context` comes from srdma_tls_server_new.
 *  Errors: those of srdma_listener_new; -EINVAL; -ENOMEM; SRDMA_ECONFIG when max_clients need more than the
 *  device carries, more descriptors than the process may have, or, for rings and regions, more memory than the machine or the
 *  process's control group has. Locked memory (RLIMIT_MEMLOCK) is not checked: it depends on the device whether it counts. */
SRDMA_API int srdma_server_start(const struct srdma_server_options *options, struct srdma_tls_context *context,
				 struct srdma_device *device, struct srdma_server **out);

struct srdma_server_status {
	unsigned clients;     /**< connected now */
	unsigned pending;     /**< in set-up now */
	unsigned max_clients;
	uint64_t accepted;    /**< clients ever connected */
	uint64_t rejected;    /**< told REJECT */
	uint64_t failed;      /**< set-ups that failed otherwise */
	uint64_t lost;        /**< clients that went away without a disconnect */
	bool device_failed;   /**< the device is gone: stop the server */
	bool draining;        /**< srdma_server_drain was called: no new clients */
	bool drained;         /**< and the last client has gone, or the deadline has passed: stop the server */
};
/** Thread-safe. */
SRDMA_API void srdma_server_status(struct srdma_server *server, struct srdma_server_status *status);

/** Buckets of a histogram; the last one has no bound. */
#define SRDMA_HISTOGRAM_BUCKETS 17
/** How many times were how long. */
struct srdma_histogram {
	uint64_t counts[SRDMA_HISTOGRAM_BUCKETS]; /**< each bucket's own: above the bound of the one before, up to its own */
	uint64_t sum_us;
};
/** The bound of a bucket, microseconds; UINT64_MAX for the last one and beyond. Thread-safe. */
SRDMA_API uint64_t srdma_histogram_bound(unsigned bucket);

/** Why a set-up failed whose client was not told REJECT. */
enum srdma_setup_failure {
	SRDMA_SETUP_TLS,
	SRDMA_SETUP_CERTIFICATE, /**< not accepted, at either end, or none was shown */
	SRDMA_SETUP_PROTOCOL,
	SRDMA_SETUP_TIMEOUT,
	SRDMA_SETUP_LOST,        /**< the client went away */
	SRDMA_SETUP_VERBS,
	SRDMA_SETUP_EVICTED,     /**< others waited for its place, and it had not said who it is, or was to be refused */
	SRDMA_SETUP_OTHER,
	SRDMA_SETUP_FAILURES
};
/** How a connected client ended. */
enum srdma_client_end {
	SRDMA_END_IN_ORDER,
	SRDMA_END_SERVER,   /**< the server's program ended it, and it was told */
	SRDMA_END_LOST,     /**< it went away without a disconnect */
	SRDMA_END_TLS,
	SRDMA_END_PROTOCOL,
	SRDMA_END_SEAL,     /**< a record of its did not authenticate */
	SRDMA_END_TIMEOUT,
	SRDMA_END_VERBS,
	SRDMA_END_OTHER,
	SRDMA_CLIENT_ENDS
};
enum srdma_setup_phase { SRDMA_PHASE_TLS, SRDMA_PHASE_EXCHANGE, SRDMA_PHASE_QP, SRDMA_PHASE_TOTAL, SRDMA_SETUP_PHASES };
/** A word for each, "certificate", "in_order", "exchange"; NULL for what is none. Static. */
SRDMA_API const char *srdma_setup_failure_name(enum srdma_setup_failure failure);
SRDMA_API const char *srdma_client_end_name(enum srdma_client_end end);
SRDMA_API const char *srdma_setup_phase_name(enum srdma_setup_phase phase);

#define SRDMA_REJECT_REASONS 16
#define SRDMA_WC_STATUSES 32
#define SRDMA_METRICS_WORKERS 1024

/** What a server has done since its start. What counts only grows. */
struct srdma_server_metrics {
	unsigned clients;     /**< connected now */
	unsigned pending;     /**< in set-up now */
	unsigned max_clients;
	unsigned workers;     /**< threads that serve clients */
	unsigned worker_load[SRDMA_METRICS_WORKERS]; /**< clients of each, those in set-up included; of the first ones */

	uint64_t accepted;                       /**< clients ever connected */
	uint64_t rejected[SRDMA_REJECT_REASONS]; /**< told REJECT; by enum srdma_reject_reason */
	uint64_t failed[SRDMA_SETUP_FAILURES];   /**< set-ups that failed otherwise */
	struct srdma_histogram setup_time[SRDMA_SETUP_PHASES]; /**< of those accepted, as in struct srdma_conn_timing */

	uint64_t ended[SRDMA_CLIENT_ENDS];
	uint64_t completion_errors[SRDMA_WC_STATUSES]; /**< that ended a connection; by enum ibv_wc_status */

	/** Of all clients, those that have gone included. */
	uint64_t messages_received, messages_sent;
	uint64_t bytes_received, bytes_sent;          /**< payload of messages */
	uint64_t rdma_bytes_written, rdma_bytes_read; /**< by the server; what clients write and read, only their devices know */

	uint64_t epochs;     /**< times that a client and the server renewed their queue pairs, recoveries included */
	uint64_t recoveries; /**< of these, because a queue pair had failed */
	uint64_t sweeps;     /**< times that the device's counters showed somebody who tries PSNs */

	int64_t certificate_not_after; /**< end of the server's certificate, seconds since the epoch; 0: not known */
	bool device_failed;
};
/** Takes two locks, each for a moment, and reads the counters of each client. Thread-safe. */
SRDMA_API void srdma_server_metrics(struct srdma_server *server, struct srdma_server_metrics *metrics);

/** Port that the server listens on. Thread-safe. */
SRDMA_API uint16_t srdma_server_port(const struct srdma_server *server);
/** Replaces all limits while running, or, on an error, none. New clients meet the new ones. Of the connected, those that may not
 *  come any more (denied, or not listed while only_listed_identities) are disconnected in order, and told why; those beyond a
 *  lower number stay, and all keep their region. Thread-safe. Errors: -EINVAL; -ENOMEM; SRDMA_ECONFIG as srdma_server_start. */
SRDMA_API int srdma_server_set_limits(struct srdma_server *server, const struct srdma_server_limits *limits);
/** Clients that come from now on meet this context: other certificates, CAs, revocation lists. Those that are being set up keep
 *  the one that they began with, and those that are connected notice nothing. Thread-safe. Errors: -EINVAL it is a client's. */
SRDMA_API int srdma_server_set_tls(struct srdma_server *server, struct srdma_tls_context *context);
/** Calls `visit` for each connected client, with the slot table locked: keep it short. Thread-safe. */
SRDMA_API void srdma_server_each(struct srdma_server *server,
				 void (*visit)(const struct srdma_conn_info *info, void *arg), void *arg);
/** Readable when srdma_server_status changed in a way that needs the program (device_failed,
 *  drained). For poll(2). */
SRDMA_API int srdma_server_event_fd(const struct srdma_server *server);

/** Disconnects one client in order, with `reason` for it (up to 127 bytes; NULL: a general one); its on_disconnect has the
 *  status -ECONNABORTED. Returns at once: the client's worker does it, within drain_timeout_ms. A client that is already
 *  going goes on as it was; of two kicks the first reason counts. Thread-safe. Errors: -ENOENT no such client. */
SRDMA_API int srdma_server_kick(struct srdma_server *server, uint64_t client_id, const char *reason);

/** From now on no new clients: who comes is told SRDMA_REJECT_DRAINING, after its TLS handshake, so that it can tell a drain
 *  from a dead server. Who is connected stays. When the last has gone, or timeout_ms (0 or more) have passed,
 *  srdma_server_status has drained set and the event descriptor is readable: the program calls srdma_server_stop, which
 *  disconnects who is left. Called again it sets another deadline; there is no way back. Returns at once. Thread-safe.
 *  Errors: -EINVAL. */
SRDMA_API int srdma_server_drain(struct srdma_server *server, int timeout_ms);

/** Stops: no new clients, every client is disconnected in order within drain_timeout_ms, threads end, all is freed. Returns
 *  the number of clients that did not end in order. */
SRDMA_API int srdma_server_stop(struct srdma_server **server);

#ifdef __cplusplus
}
#endif
#endif
