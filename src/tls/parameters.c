/* SPDX-License-Identifier: Apache-2.0 */
#include "parameters.h"

#include "array.h"
#include "log.h"
#include "peer_chain.h"
#include "tls.h"

#include <openssl/err.h>
#include <string.h>

/* Options since OpenSSL 3.2; older versions do not compress. A short compressed certificate can expand to a very long one. */
#ifndef SSL_OP_NO_TX_CERTIFICATE_COMPRESSION
#define SSL_OP_NO_TX_CERTIFICATE_COMPRESSION SSL_OP_BIT(32)
#define SSL_OP_NO_RX_CERTIFICATE_COMPRESSION SSL_OP_BIT(33)
#endif
#define COMPRESSED_CERTIFICATE 25 /* RFC 8879 */

/* The first list that the library accepts. None has finite-field groups: a ClientHello with ffdhe8192 costs 120 ms, with X25519 0.2 ms.
 * The hybrid group comes first, where OpenSSL has it (3.5): an attacker who records the exchange must break both parts. The client sends
 * a share of each group with "*", so that a server with an older OpenSSL need not ask for another; that syntax is as old as the hybrid
 * group. */
static const char *const groups[] = {
	"*X25519MLKEM768/*X25519:P-256:P-384",
	"X25519:P-256:P-384",
	"P-256:P-384", /* a provider without X25519 */
};

#define ECDSA	 "ecdsa_secp256r1_sha256:ecdsa_secp384r1_sha384:ecdsa_secp521r1_sha512"
#define EDWARDS	 ":ed25519:ed448"
#define ML_DSA	 ":mldsa65:mldsa87:mldsa44"
#define RSA_PSS	 ":rsa_pss_pss_sha256:rsa_pss_pss_sha384:rsa_pss_pss_sha512:rsa_pss_rsae_sha256:rsa_pss_rsae_sha384:rsa_pss_rsae_sha512"
#define RSA_OLD	 ":rsa_pkcs1_sha256:rsa_pkcs1_sha384:rsa_pkcs1_sha512" /* in TLS 1.3 only by a CA in a certificate */
static const char *const signatures[] = {
	ECDSA EDWARDS ML_DSA RSA_PSS RSA_OLD,
	ECDSA EDWARDS RSA_PSS RSA_OLD,
	ECDSA RSA_PSS RSA_OLD,
};

static const char suites13[] = "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256";
/* Ephemeral key exchange and an AEAD, as in TLS 1.3. */
static const char suites12[] =
	"ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:"
	"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256";

/* OpenSSL calls this after it has read the ClientHello, and before it processes any of it. */
static int judge_client_hello(SSL *ssl, int *alert, void *arg)
{
	const unsigned char *list;
	size_t length;

	(void)arg;
	if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_supported_groups, &list, &length) == 1 && length > 2 + 2 * SRDMA_CLIENT_GROUPS) {
		srdma_tls_refuse(ssl, SRDMA_EPROTOCOL, "the client's ClientHello names more than 64 groups");
		*alert = SSL_AD_ILLEGAL_PARAMETER;
		return SSL_CLIENT_HELLO_ERROR;
	}
	srdma_tls_allow(ssl, SRDMA_HANDSHAKE_BYTES);
	return SSL_CLIENT_HELLO_SUCCESS;
}

/* Sees each handshake message when it is whole and, in TLS 1.3, decrypted, before OpenSSL decodes it. OpenSSL has no other hook at this
 * point, and this one cannot refuse a message, so it corrupts a message that OpenSSL must not decode. */
static void watch_message(int sent, int version, int type, const void *data, size_t length, SSL *ssl, void *arg)
{
	uint8_t *message = (uint8_t *)(uintptr_t)data;
	const char *problem;

	(void)version;
	(void)arg;
	if (sent || type != SSL3_RT_HANDSHAKE || length < SSL3_HM_HEADER_LENGTH)
		return;
	srdma_tls_note_handshake_message(ssl);
	if (message[0] == SSL3_MT_CERTIFICATE)
		problem = srdma_chain_problem(message + SSL3_HM_HEADER_LENGTH, length - SSL3_HM_HEADER_LENGTH,
					      SSL_version(ssl) == TLS1_3_VERSION);
	else
		problem = message[0] == COMPRESSED_CERTIFICATE ? "it is compressed" : NULL;
	if (!problem)
		return;
	srdma_tls_refuse(ssl, SRDMA_ECERT, "the peer's certificate is not acceptable: %s", problem);
	memset(message + SSL3_HM_HEADER_LENGTH, 0xff, length - SSL3_HM_HEADER_LENGTH);
}

static int set_first(SSL_CTX *context, int (*set)(SSL_CTX *, const char *), const char *const *lists, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		ERR_clear_error();
		if (set(context, lists[i]) == 1)
			return 1;
	}
	return 0;
}

static int set_groups(SSL_CTX *context, const char *list)
{
	return (int)SSL_CTX_set1_groups_list(context, (char *)(uintptr_t)list);
}

static int set_signatures(SSL_CTX *context, const char *list)
{
	return (int)SSL_CTX_set1_sigalgs_list(context, (char *)(uintptr_t)list);
}

int srdma_tls_set_parameters(SSL_CTX *context, bool server, bool allow_tls12)
{
	/* No tickets, no resumption, no early data: a resumed session could be replayed, and a connection is set up only once. */
	SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET |
					     SSL_OP_NO_TX_CERTIFICATE_COMPRESSION | SSL_OP_NO_RX_CERTIFICATE_COMPRESSION);
	SSL_CTX_clear_options(context, SSL_OP_ALLOW_UNSAFE_LEGACY_RENEGOTIATION | SSL_OP_LEGACY_SERVER_CONNECT);
	SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_max_early_data(context, 0);
	SSL_CTX_set_max_cert_list(context, SRDMA_CHAIN_BYTES);
	SSL_CTX_set_verify_depth(context, SRDMA_CHAIN_CERTS);
	SSL_CTX_set_msg_callback(context, watch_message);
	if (server)
		SSL_CTX_set_client_hello_cb(context, judge_client_hello, NULL);
	/* Level 2 is 112 bits of security: no SHA-1 in a certificate, no RSA key below 2048 bits. */
	SSL_CTX_set_security_level(context, 2);
	if (SSL_CTX_set_max_proto_version(context, 0) != 1 ||
	    SSL_CTX_set_min_proto_version(context, allow_tls12 ? TLS1_2_VERSION : TLS1_3_VERSION) != 1 ||
	    set_first(context, set_groups, groups, SRDMA_COUNT(groups)) != 1 ||
	    set_first(context, set_signatures, signatures, SRDMA_COUNT(signatures)) != 1 || SSL_CTX_set_ciphersuites(context, suites13) != 1 ||
	    SSL_CTX_set_cipher_list(context, suites12) != 1 || (server && SSL_CTX_set_num_tickets(context, 0) != 1))
		return srdma_fail_openssl(SRDMA_ETLS, "cannot configure TLS");
	return 0;
}
