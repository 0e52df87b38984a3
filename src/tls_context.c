/* SPDX-License-Identifier: Apache-2.0 */
#include "cert.h"
#include "hello.h"
#include "log.h"
#include "tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct srdma_tls_context {
	atomic_uint references;
	SSL_CTX *ssl;
	bool server;
	bool has_ca;
	bool has_pin;
	unsigned char pin[SRDMA_PIN_SIZE];
	char *server_name; /* NULL: the host connected to */
};

void srdma_tls_client_options_init(struct srdma_tls_client_options *options)
{
	*options = (struct srdma_tls_client_options){0};
}

void srdma_tls_server_options_init(struct srdma_tls_server_options *options)
{
	*options = (struct srdma_tls_server_options){0};
}

/* An encrypted key would make OpenSSL ask on the terminal: refuse it instead. */
static int no_password(char *buffer, int size, int writing, void *arg)
{
	(void)buffer;
	(void)size;
	(void)writing;
	(void)arg;
	return -1;
}

static int check_readable(const char *what, const char *file)
{
	if (access(file, R_OK) == 0)
		return 0;
	return srdma_fail(errno == ENOENT ? -ENOENT : errno == EACCES ? -EACCES : SRDMA_ECONFIG,
			  "cannot read the %s %s: %s; `securdma cert --help` tells how to make one", what, file,
			  strerror(errno));
}

static int load_own(SSL_CTX *ssl, const char *cert_file, const char *key_file)
{
	int ret;

	if (!cert_file || !key_file)
		return srdma_fail(SRDMA_ECONFIG, "a certificate and its private key belong together: give both (--cert, --key)");
	ret = check_readable("certificate", cert_file);
	if (ret == 0)
		ret = check_readable("private key", key_file);
	if (ret != 0)
		return ret;
	if (SSL_CTX_use_certificate_chain_file(ssl, cert_file) != 1)
		return srdma_fail_openssl(SRDMA_ECONFIG, "%s holds no usable PEM certificate", cert_file);
	if (SSL_CTX_use_PrivateKey_file(ssl, key_file, SSL_FILETYPE_PEM) != 1 || SSL_CTX_check_private_key(ssl) != 1)
		return srdma_fail_openssl(SRDMA_ECONFIG, "%s is not the unencrypted PEM private key of %s", key_file,
					  cert_file);
	return 0;
}

static int load_ca(SSL_CTX *ssl, const char *ca_file)
{
	int ret = check_readable("CA file", ca_file);

	if (ret != 0)
		return ret;
	if (SSL_CTX_load_verify_file(ssl, ca_file) != 1)
		return srdma_fail_openssl(SRDMA_ECONFIG, "%s holds no usable PEM CA certificate", ca_file);
	return 0;
}

/* Every leaf certificate must then be on the list of its issuer as not revoked; a list that is missing or has expired is no
 * list. */
static int load_crls(SSL_CTX *ssl, const char *crl_file)
{
	X509_STORE *store = SSL_CTX_get_cert_store(ssl);
	int ret = check_readable("revocation list", crl_file), count = 0;
	X509_CRL *crl;
	BIO *file;

	if (ret != 0)
		return ret;
	file = BIO_new_file(crl_file, "r");
	while (file && (crl = PEM_read_bio_X509_CRL(file, NULL, NULL, NULL)) != NULL) {
		count += X509_STORE_add_crl(store, crl) == 1;
		X509_CRL_free(crl);
	}
	/* The end of the file is an error to the reader; what else went wrong is one to us. */
	unsigned long error = ERR_peek_last_error();
	bool whole = file && ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
	BIO_free(file);
	if (count == 0 || !whole)
		return srdma_fail_openssl(SRDMA_ECONFIG, "%s is not a PEM file with certificate revocation lists", crl_file);
	ERR_clear_error();
	X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK);
	return 0;
}

/* ---- verification of the server by the client ------------------------------------------------------------------ */

/* A pinned key stands instead of a CA's word about the name; validity in time still counts. */
static int verify_pin(X509_STORE_CTX *store, const struct srdma_tls_context *context)
{
	X509 *cert = X509_STORE_CTX_get0_cert(store);
	unsigned char pin[SRDMA_PIN_SIZE];

	if (!cert || srdma_cert_pin(cert, pin) != 0 || CRYPTO_memcmp(pin, context->pin, sizeof pin) != 0) {
		X509_STORE_CTX_set_error(store, X509_V_ERR_APPLICATION_VERIFICATION);
		return 0;
	}
	if (X509_cmp_current_time(X509_get0_notBefore(cert)) >= 0) {
		X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_NOT_YET_VALID);
		return 0;
	}
	if (X509_cmp_current_time(X509_get0_notAfter(cert)) <= 0) {
		X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_HAS_EXPIRED);
		return 0;
	}
	X509_STORE_CTX_set_error(store, X509_V_OK);
	return 1;
}

static int verify_server(X509_STORE_CTX *store, void *arg)
{
	const struct srdma_tls_context *context = arg;

	if (context->has_ca && X509_verify_cert(store) != 1)
		return 0;
	return context->has_pin ? verify_pin(store, context) : 1;
}

/* ---- ALPN ------------------------------------------------------------------------------------------------------ */

static const unsigned char alpn_list[] = {sizeof SRDMA_ALPN - 1, 's', 'e', 'c', 'u', 'r', 'd', 'm', 'a', '/', '1'};

static int select_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_length, const unsigned char *in,
		       unsigned in_length, void *arg)
{
	unsigned char *chosen;

	(void)ssl;
	(void)arg;
	if (SSL_select_next_proto(&chosen, out_length, alpn_list, sizeof alpn_list, in, in_length) !=
	    OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	*out = chosen;
	return SSL_TLSEXT_ERR_OK;
}

/* ---- construction ---------------------------------------------------------------------------------------------- */

static int context_new(bool server, bool allow_tls12, struct srdma_tls_context **out)
{
	struct srdma_tls_context *context = calloc(1, sizeof *context);

	if (!context)
		return srdma_fail(-ENOMEM, "out of memory");
	atomic_init(&context->references, 1);
	context->server = server;
	context->ssl = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
	if (!context->ssl) {
		free(context);
		return srdma_fail_openssl(-ENOMEM, "cannot make a TLS context");
	}
	SSL_CTX *ssl = context->ssl;
	/* No tickets, no resumption, no early data: what can be resumed can be replayed, and a connection is set up once. */
	SSL_CTX_set_options(ssl, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET);
	SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_max_early_data(ssl, 0);
	SSL_CTX_set_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
				      SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_default_passwd_cb(ssl, no_password);
	if (SSL_CTX_set_min_proto_version(ssl, allow_tls12 ? TLS1_2_VERSION : TLS1_3_VERSION) != 1 ||
	    SSL_CTX_set_cipher_list(ssl, "ECDHE+AESGCM:ECDHE+CHACHA20") != 1 ||
	    (server && SSL_CTX_set_num_tickets(ssl, 0) != 1)) {
		srdma_tls_context_unref(&context);
		return srdma_fail_openssl(SRDMA_ETLS, "cannot configure TLS");
	}
	if (server)
		SSL_CTX_set_alpn_select_cb(ssl, select_alpn, NULL);
	*out = context;
	return 0;
}

static int configure_client(struct srdma_tls_context *context, const struct srdma_tls_client_options *options)
{
	int ret = 0;

	if (!options->ca_file && !options->pin)
		return srdma_fail(SRDMA_ECONFIG,
				  "the server cannot be verified: give its CA's certificate (--ca) or the pin of its key "
				  "(--pin)");
	if (options->ca_file)
		ret = load_ca(context->ssl, options->ca_file);
	context->has_ca = options->ca_file != NULL;
	if (ret == 0 && options->crl_file)
		ret = options->ca_file ? load_crls(context->ssl, options->crl_file)
				       : srdma_fail(SRDMA_ECONFIG, "a revocation list (--crl) needs the certificate of the CA that made it (--ca)");
	if (ret == 0 && options->pin) {
		context->has_pin = true;
		ret = srdma_pin_parse(options->pin, context->pin);
	}
	if (ret == 0 && (options->cert_file || options->key_file))
		ret = load_own(context->ssl, options->cert_file, options->key_file);
	if (ret != 0)
		return ret;
	if (options->server_name && !(context->server_name = strdup(options->server_name)))
		return srdma_fail(-ENOMEM, "out of memory");
	SSL_CTX_set_verify(context->ssl, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_cert_verify_callback(context->ssl, verify_server, context);
	if (SSL_CTX_set_alpn_protos(context->ssl, alpn_list, sizeof alpn_list) != 0)
		return srdma_fail_openssl(-ENOMEM, "cannot configure TLS");
	return 0;
}

int srdma_tls_client_new(const struct srdma_tls_client_options *options, struct srdma_tls_context **out)
{
	struct srdma_tls_context *context = NULL;
	int ret = context_new(false, options->allow_tls12, &context);

	if (ret != 0)
		return ret;
	ret = configure_client(context, options);
	if (ret != 0) {
		srdma_tls_context_unref(&context);
		return ret;
	}
	*out = context;
	return 0;
}

static int configure_server(struct srdma_tls_context *context, const struct srdma_tls_server_options *options)
{
	static const unsigned char session_id[] = "securdma";
	int mode = SSL_VERIFY_PEER, ret;

	if (!options->cert_file && !options->key_file)
		return srdma_fail(SRDMA_ECONFIG, "a server needs a certificate (--cert) and its key (--key)");
	ret = load_own(context->ssl, options->cert_file, options->key_file);
	if (ret != 0)
		return ret;
	if (options->client_ca_file) {
		ret = load_ca(context->ssl, options->client_ca_file);
		if (ret != 0)
			return ret;
		SSL_CTX_set_client_CA_list(context->ssl, SSL_load_client_CA_file(options->client_ca_file));
		ERR_clear_error();
		if (options->client_crl_file)
			ret = load_crls(context->ssl, options->client_crl_file);
		if (ret != 0)
			return ret;
	} else if (options->client_crl_file) {
		return srdma_fail(SRDMA_ECONFIG, "a revocation list (--client-crl) needs the certificate of the CA that made it (--client-ca)");
	} else if (!options->insecure_anonymous_clients) {
		return srdma_fail(SRDMA_ECONFIG,
				  "clients cannot be verified: give the CA that issues their certificates (--client-ca), or "
				  "serve anyone (--insecure-anonymous-clients)");
	}
	if (!options->insecure_anonymous_clients)
		mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
	SSL_CTX_set_verify(context->ssl, mode, NULL);
	SSL_CTX_set_session_id_context(context->ssl, session_id, sizeof session_id - 1);
	return 0;
}

int srdma_tls_server_new(const struct srdma_tls_server_options *options, struct srdma_tls_context **out)
{
	struct srdma_tls_context *context = NULL;
	int ret = context_new(true, options->allow_tls12, &context);

	if (ret != 0)
		return ret;
	ret = configure_server(context, options);
	if (ret != 0) {
		srdma_tls_context_unref(&context);
		return ret;
	}
	*out = context;
	return 0;
}

struct srdma_tls_context *srdma_tls_context_ref(struct srdma_tls_context *context)
{
	atomic_fetch_add(&context->references, 1);
	return context;
}

void srdma_tls_context_unref(struct srdma_tls_context **out)
{
	struct srdma_tls_context *context = *out;

	*out = NULL;
	if (!context || atomic_fetch_sub(&context->references, 1) != 1)
		return;
	SSL_CTX_free(context->ssl);
	free(context->server_name);
	free(context);
}

bool srdma_tls_context_is_server(const struct srdma_tls_context *context)
{
	return context->server;
}

int64_t srdma_tls_context_not_after(const struct srdma_tls_context *context)
{
	const X509 *cert = SSL_CTX_get0_certificate(context->ssl);
	struct tm utc;

	return cert && ASN1_TIME_to_tm(X509_get0_notAfter(cert), &utc) == 1 ? (int64_t)timegm(&utc) : 0;
}

/* The name or address that the server's certificate must bear. */
static int expect_name(SSL *ssl, const char *name)
{
	unsigned char address[16];
	X509_VERIFY_PARAM *param = SSL_get0_param(ssl);

	X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	if (inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1)
		return X509_VERIFY_PARAM_set1_ip_asc(param, name) == 1 ? 0 : -EINVAL;
	if (SSL_set_tlsext_host_name(ssl, name) != 1)
		return -EINVAL;
	return X509_VERIFY_PARAM_set1_host(param, name, 0) == 1 ? 0 : -EINVAL;
}

int srdma_tls_context_ssl(struct srdma_tls_context *context, const char *host, SSL **out)
{
	SSL *ssl = SSL_new(context->ssl);
	const char *name = context->server_name ? context->server_name : host;

	if (!ssl)
		return srdma_fail_openssl(-ENOMEM, "cannot make a TLS channel");
	if (context->server) {
		SSL_set_accept_state(ssl);
	} else {
		SSL_set_connect_state(ssl);
		if (!name || !*name || expect_name(ssl, name) != 0) {
			SSL_free(ssl);
			return srdma_fail_openssl(-EINVAL, "'%s' cannot be the name in a certificate; give a DNS name or an IP address (--server-name)", name ? name : "");
		}
	}
	*out = ssl;
	return 0;
}
