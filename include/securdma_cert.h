/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Certificates: makes them, reads them, checks them before a peer comes, and shows the one that a peer has shown. A program that
 * gives its connections files that exist does not need this header.
 */
#ifndef SECURDMA_CERT_H
#define SECURDMA_CERT_H

#include "securdma.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- certificates ---------------------------------------------------------------------------------------------- */

/* -- make and read certificates -- */

enum srdma_cert_kind {
	SRDMA_CERT_CA,
	SRDMA_CERT_SERVER,
	SRDMA_CERT_CLIENT,
	SRDMA_CERT_SELF_SIGNED, /**< a server's, which clients pin */
	SRDMA_CERT_PEER,        /**< for both ends, issued by a CA: of a program that accepts and connects */
};

/** What to put into a new certificate (ECDSA P-256, SHA-256). */
struct srdma_cert_request {
	size_t size;               /**< set by srdma_cert_request_init() */
	enum srdma_cert_kind kind;
	const char *common_name;   /**< subject CN, 1 to 64 bytes of printable ASCII */
	const char *const *names;  /**< subject alternative names: DNS names or IP addresses; server, peer and self-signed only */
	size_t name_count;
	unsigned days;             /**< valid from five minutes ago for this many days, 1 to 36500 */
	int64_t not_after;         /**< end of validity, seconds since the epoch, instead of days; 0: use days */
	const char *ca_cert_file;  /**< certificate of the issuer; server, client and peer only. If it is not a root, it and those above
					it in the same file go into cert_file, too: a peer that trusts the root needs them */
	const char *ca_key_file;   /**< the issuer's private key */
	const char *cert_file;     /**< where the certificate goes, mode 0644 */
	const char *key_file;      /**< where the new private key goes, mode 0600 */
	bool overwrite;            /**< replace existing files; else -EEXIST and nothing is written. An own key that its group may
				      read keeps group and right, for a server that runs as a member of it */
};
/** Fills `request` with the defaults: a CA, all else NULL, 0 and false. Thread-safe. */
SRDMA_API void srdma_cert_request_init_sized(struct srdma_cert_request *request, size_t size);
SRDMA_INLINE void srdma_cert_request_init(struct srdma_cert_request *request)
{
	srdma_cert_request_init_sized(request, sizeof *request);
}
/** Makes a private key and a certificate. Either both files are written whole or neither is. Thread-safe.
 *  Errors:
 *    -EEXIST          A file exists, and overwrite is false.
 *    -EINVAL          A field of the request is out of range, or it is not initialised; the text says which.
 *    -ENOENT          A file of the issuer, or the folder of a new file, does not exist.
 *    -EACCES          The process may not read or write a file.
 *    SRDMA_ECONFIG    The issuer is not a CA, or its certificate and key differ.
 *    SRDMA_ERANDOM    The random generator failed. */
SRDMA_API int srdma_cert_make(const struct srdma_cert_request *request);

/** What a certificate says. */
struct srdma_cert_info {
	size_t size;               /**< how much of it the library filled; see SRDMA_HAS_FIELD() */
	char subject[256];         /**< RFC 2253 */
	char issuer[256];          /**< RFC 2253 */
	char common_name[128];
	char names[1024];          /**< subject alternative names, "DNS:a, IP:1.2.3.4"; "" when there are none */
	char serial[64];           /**< hexadecimal */
	char key[64];              /**< type and size of the key, "EC prime256v1" */
	char key_problem[128];     /**< why TLS 1.3, as this library speaks it, cannot use the key: its kind, curve or size, or, of a
					certificate that is not a CA's, its key usage; "": it can */
	char pin[SRDMA_PIN_TEXT_SIZE]; /**< of the public key, "sha256:HEX" */
	int64_t not_before;        /**< seconds since the epoch */
	int64_t not_after;         /**< seconds since the epoch */
	bool is_ca;
	bool self_signed;
	bool server_auth;          /**< usable as a server's certificate */
	bool client_auth;          /**< usable as a client's certificate */
};
/** Reads the first certificate of a PEM file. Thread-safe.
 *  Errors:
 *    -ENOENT, -EACCES   The file does not exist, or the process may not read it.
 *    SRDMA_ECONFIG      The file has no certificate in it.
 *    -EINVAL            An argument is NULL.
 *    -ENOMEM            Memory ran out. */
SRDMA_API int srdma_cert_read_sized(const char *cert_file, struct srdma_cert_info *info, size_t size);
SRDMA_INLINE int srdma_cert_read(const char *cert_file, struct srdma_cert_info *info)
{
	return srdma_cert_read_sized(cert_file, info, sizeof *info);
}

/* -- check credentials before a peer comes -- */

/** How a check went. */
enum srdma_check_result {
	SRDMA_CHECK_OK,
	SRDMA_CHECK_WARN, /**< it works, but not for all, not for long, or not as safely as it could */
	SRDMA_CHECK_FAIL, /**< it cannot work */
};

/** What a check found out about one thing. Each thing is reported once, with the worst that was found. */
struct srdma_check {
	size_t size;        /**< how much of it the library filled */
	enum srdma_check_result result;
	const char *what;   /**< "certificate", "memory" */
	const char *text;   /**< what was found, in a sentence */
	const char *advice; /**< what to do about it; NULL: nothing */
	int error;          /**< of a failure: the error that using it would return */
};
/** Receives one finding. It and its texts are valid until the function returns. */
typedef void srdma_check_fn(const struct srdma_check *check, void *arg);

/** Check the credentials of a server or of a client before a peer comes: that the files can be read, that certificate and key
 *  belong together, are made for this end and are valid today, that the CAs are CAs and can verify a peer, and that no
 *  revocation list has expired. The last step is srdma_tls_server_new() or srdma_tls_client_new() itself, which alone do not
 *  look at dates and purposes. `fn` may be NULL. Thread-safe.
 *  Errors: those of srdma_tls_server_new(); they return the first failure. */
SRDMA_API int srdma_tls_server_check(const struct srdma_tls_server_options *options, srdma_check_fn *fn, void *arg);
SRDMA_API int srdma_tls_client_check(const struct srdma_tls_client_options *options, srdma_check_fn *fn, void *arg);

/** Checks a certificate and its key alone, for a server (SRDMA_CERT_SERVER) or a client (SRDMA_CERT_CLIENT). With `ca_file`
 *  (NULL: none) it also checks that a peer that trusts this file accepts the certificate with the chain in its file.
 *  Errors: those of srdma_tls_server_check(). */
SRDMA_API int srdma_cert_check(enum srdma_cert_kind kind, const char *cert_file, const char *key_file, const char *ca_file,
			       srdma_check_fn *fn, void *arg);

/* -- the certificate that a peer has shown -- */

/** What a certificate calls its bearer: the common name of the subject, the alternative names, and the pin of the key, which
 *  needs no name. */
enum srdma_name_kind { SRDMA_NAME_CN, SRDMA_NAME_URI, SRDMA_NAME_EMAIL, SRDMA_NAME_DNS, SRDMA_NAME_PIN, SRDMA_NAME_IP };
/** Returns a word for each kind, "cn", "uri", "email", "dns", "pin" or "ip"; NULL for any other number. Static. Thread-safe. */
SRDMA_API const char *srdma_name_kind_name(enum srdma_name_kind kind);

/** One name in a certificate. */
struct srdma_cert_name {
	size_t size;         /**< how much of it the library filled */
	enum srdma_name_kind kind;
	bool whole;          /**< text is the name as the certificate has it, converted to UTF-8 */
	const char *text;    /**< UTF-8 that can be shown: bytes of control, bidirectional and invisible characters, NULs among them, and
				  bytes that are not valid are '?' */
};

/** The certificate that a peer has proved to own, and that was verified. */
struct srdma_peer_cert {
	size_t size;                         /**< how much of it the library filled */
	const uint8_t *der;                  /**< X.509, DER */
	size_t der_length;
	const struct srdma_cert_info *info;  /**< what it says, its pin included */
	const struct srdma_cert_name *const *names; /**< pointers to the common names, then to the alternative names, each in
					     the certificate's order */
	size_t name_count;
	char identity[SRDMA_NAME_SIZE];      /**< the name that the peer goes by, as srdma_conn_info.peer_name */
};

/** Makes a copy of the peer's certificate, which outlives the connection. Free it with srdma_peer_cert_free().
 *  Errors:
 *    -ENOENT   The peer showed no certificate.
 *    -ENOMEM   Memory ran out. */
SRDMA_API int srdma_conn_peer_cert(struct srdma_conn *conn, struct srdma_peer_cert **out);
/** Frees the copy. */
SRDMA_API void srdma_peer_cert_free(struct srdma_peer_cert **cert);

#ifdef __cplusplus
}
#endif
#endif
