/* SPDX-License-Identifier: Apache-2.0 */
#include "cert.h"
#include "credential.h"
#include "log.h"
#include "server_name.h"
#include "sized.h"
#include "tls.h"
#include "parameters.h"
#include "trust.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Bytes of CA names that a server sends to each client; it sends none if there are more. The names are a hint: only the chain counts. */
#define CA_NAMES_MAX 4096

struct srdma_tls_context {
	atomic_uint references;
	SSL_CTX *ssl;
	bool server;
	struct srdma_trust trust;
	bool has_server_name; /* false: expects the host connected to */
	struct srdma_server_name server_name;
	struct srdma_name_order name_order;
	unsigned char alpn[SRDMA_ALPN_MAX + 1]; /* the protocol as ALPN has it: its length, then the name */
};

SRDMA_DEFAULTS(srdma_tls_client_options)

SRDMA_DEFAULTS(srdma_tls_server_options)

static int select_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_length, const unsigned char *in,
		       unsigned in_length, void *arg)
{
	const struct srdma_tls_context *context = arg;
	unsigned char *chosen;

	(void)ssl;
	if (SSL_select_next_proto(&chosen, out_length, context->alpn, context->alpn[0] + 1u, in, in_length) != OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	*out = chosen;
	return SSL_TLSEXT_ERR_OK;
}

/* Hands out a context that is configured, or, with `ret` not 0, frees it. Returns `ret`. */
static int finish(int ret, struct srdma_tls_context *context, struct srdma_tls_context **out)
{
	if (ret == 0)
		*out = context;
	else
		srdma_tls_context_unref(&context);
	return ret;
}

int srdma_tls_context_set_alpn(struct srdma_tls_context *context, const char *protocol)
{
	size_t length = strlen(protocol);

	if (length == 0 || length > SRDMA_ALPN_MAX)
		return srdma_fail(-EINVAL, "the ALPN name of a protocol has 1 to %d bytes", SRDMA_ALPN_MAX);
	context->alpn[0] = (unsigned char)length;
	memcpy(context->alpn + 1, protocol, length);
	if (!context->server && SSL_CTX_set_alpn_protos(context->ssl, context->alpn, (unsigned)length + 1) != 0)
		return srdma_fail_openssl(-ENOMEM, "cannot configure TLS");
	return 0;
}

const char *srdma_tls_context_alpn(const struct srdma_tls_context *context, unsigned *length)
{
	*length = context->alpn[0];
	return (const char *)context->alpn + 1;
}

void srdma_tls_context_set_wrong_name(struct srdma_tls_context *context, const char *text)
{
	context->trust.wrong_name = text;
}

void srdma_tls_context_set_name_order(struct srdma_tls_context *context, const struct srdma_name_order *order)
{
	context->name_order = *order;
}

int srdma_tls_context_own_names(const struct srdma_tls_context *context, struct srdma_peer_names *out)
{
	X509 *cert = SSL_CTX_get0_certificate(context->ssl);

	*out = (struct srdma_peer_names){.identity = ""};
	return cert ? srdma_peer_names_read(cert, &context->name_order, out) : 0;
}

static int context_new(bool server, bool allow_tls12, struct srdma_tls_context **out)
{
	struct srdma_tls_context *context = calloc(1, sizeof *context);
	int ret;

	if (!context)
		return srdma_fail(-ENOMEM, "out of memory");
	atomic_init(&context->references, 1);
	context->server = server;
	context->ssl = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
	if (!context->ssl) {
		free(context);
		return srdma_fail_openssl(-ENOMEM, "cannot make a TLS context");
	}
	srdma_name_order_parse(NULL, &context->name_order);
	SSL_CTX_set_mode(context->ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
	/* Without this mode, a read returns after a record without data, so that the caller limits how many of those it takes. */
	SSL_CTX_clear_mode(context->ssl, SSL_MODE_AUTO_RETRY);
	if (server)
		SSL_CTX_set_alpn_select_cb(context->ssl, select_alpn, context);
	ret = srdma_tls_context_set_alpn(context, SRDMA_ALPN);
	if (ret == 0)
		ret = srdma_tls_set_parameters(context->ssl, server, allow_tls12);
	return finish(ret, context, out);
}

static int configure_client(struct srdma_tls_context *context, const struct srdma_tls_client_options *options)
{
	int ret = 0;

	if (!options->ca_file && !options->pin)
		return srdma_fail(SRDMA_ECONFIG,
				  "the server cannot be verified: give its CA's certificate (--ca) or the pin of its key "
				  "(--pin)");
	if (options->crl_file && !options->ca_file)
		return srdma_fail(SRDMA_ECONFIG, "a revocation list (--crl) needs the certificate of the CA that made it (--ca)");
	if (options->ca_file)
		ret = srdma_trust_load(&context->trust, context->ssl, options->ca_file, options->crl_file);
	context->trust.require_all_lists = options->crl_require_all;
	if (ret == 0 && options->pin) {
		context->trust.has_pin = true;
		ret = srdma_pin_parse(options->pin, context->trust.pin);
	}
	if (ret == 0 && (options->cert_file || options->key_file))
		ret = srdma_credential_load(context->ssl, options->cert_file, options->key_file);
	context->has_server_name = options->server_name != NULL;
	if (ret == 0 && options->server_name)
		ret = srdma_server_name_parse(options->server_name, &context->server_name);
	if (ret != 0)
		return ret;
	SSL_CTX_set_verify(context->ssl, SSL_VERIFY_PEER, NULL);
	srdma_trust_enforce(&context->trust, context->ssl);
	return 0;
}

int srdma_tls_client_new(const struct srdma_tls_client_options *given, struct srdma_tls_context **out)
{
	struct srdma_tls_context *context = NULL;
	struct srdma_tls_client_options options;
	int ret = SRDMA_SIZED_TAKE(srdma_tls_client_options, allow_tls12, given, &options);

	if (ret == 0)
		ret = context_new(false, options.allow_tls12, &context);
	if (ret == 0)
		ret = configure_client(context, &options);
	return finish(ret, context, out);
}

/* Sends the CAs' names, so that a client with several certificates can choose. */
static void tell_ca_names(SSL_CTX *ssl, const char *ca_file)
{
	STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(ca_file);
	int length = 0;

	for (int i = 0; i < sk_X509_NAME_num(names); i++)
		length += 2 + i2d_X509_NAME(sk_X509_NAME_value(names, i), NULL);
	if (length <= CA_NAMES_MAX)
		SSL_CTX_set_client_CA_list(ssl, names);
	else
		sk_X509_NAME_pop_free(names, X509_NAME_free);
	ERR_clear_error();
}

static int configure_server(struct srdma_tls_context *context, const struct srdma_tls_server_options *options)
{
	static const unsigned char session_id[] = "securdma";
	int mode = SSL_VERIFY_PEER, ret = 0;

	if (!options->cert_file && !options->key_file)
		return srdma_fail(SRDMA_ECONFIG, "a server needs a certificate (--cert) and its key (--key)");
	if (!options->client_ca_file && options->client_crl_file)
		return srdma_fail(SRDMA_ECONFIG, "a revocation list (--client-crl) needs the certificate of the CA that made it (--client-ca)");
	if (!options->client_ca_file && !options->insecure_anonymous_clients)
		return srdma_fail(SRDMA_ECONFIG,
				  "clients cannot be verified: give the CA that issues their certificates (--client-ca), or "
				  "serve anyone (--insecure-anonymous-clients)");
	if (options->client_ca_file) {
		ret = srdma_trust_load(&context->trust, context->ssl, options->client_ca_file, options->client_crl_file);
		tell_ca_names(context->ssl, options->client_ca_file);
	}
	context->trust.require_all_lists = options->crl_require_all;
	if (ret == 0)
		ret = srdma_name_order_parse(options->identity_from, &context->name_order);
	if (ret == 0)
		ret = srdma_credential_load(context->ssl, options->cert_file, options->key_file);
	if (ret != 0)
		return ret;
	if (!options->insecure_anonymous_clients)
		mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
	SSL_CTX_set_verify(context->ssl, mode, NULL);
	srdma_trust_enforce(&context->trust, context->ssl);
	SSL_CTX_set_session_id_context(context->ssl, session_id, sizeof session_id - 1);
	return 0;
}

int srdma_tls_server_new(const struct srdma_tls_server_options *given, struct srdma_tls_context **out)
{
	struct srdma_tls_context *context = NULL;
	struct srdma_tls_server_options options;
	int ret = SRDMA_SIZED_TAKE(srdma_tls_server_options, allow_tls12, given, &options);

	if (ret == 0)
		ret = context_new(true, options.allow_tls12, &context);
	if (ret == 0)
		ret = configure_server(context, &options);
	return finish(ret, context, out);
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
	srdma_trust_clear(&context->trust);
	free(context);
}

const struct srdma_name_order *srdma_tls_context_name_order(const struct srdma_tls_context *context)
{
	return &context->name_order;
}

int srdma_tls_context_check(const struct srdma_tls_context *context, bool is_server)
{
	if (context && context->server == is_server)
		return 0;
	return srdma_fail(-EINVAL, "a %s needs a TLS context of srdma_tls_%s_new", is_server ? "server" : "client", is_server ? "server" : "client");
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

/* Sets the name or address that the server's certificate must bear; a name also goes to the server as SNI. */
static int expect_name(SSL *ssl, const struct srdma_server_name *name)
{
	X509_VERIFY_PARAM *param = SSL_get0_param(ssl);

	X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	if (name->address_length > 0)
		return X509_VERIFY_PARAM_set1_ip(param, name->address, name->address_length);
	return SSL_set_tlsext_host_name(ssl, name->dns) == 1 && X509_VERIFY_PARAM_set1_host(param, name->dns, 0) == 1;
}

static int prepare_client(const struct srdma_tls_context *context, SSL *ssl, const char *host)
{
	struct srdma_server_name name = context->server_name;
	int ret = context->has_server_name ? 0 : srdma_server_name_parse(host, &name);

	if (ret != 0)
		return ret;
	SSL_set_connect_state(ssl);
	return expect_name(ssl, &name) == 1 ? 0 : srdma_fail_openssl(-ENOMEM, "cannot make a TLS channel");
}

int srdma_tls_context_ssl(struct srdma_tls_context *context, const char *host, SSL **out)
{
	SSL *ssl = SSL_new(context->ssl);
	int ret = 0;

	if (!ssl)
		return srdma_fail_openssl(-ENOMEM, "cannot make a TLS channel");
	if (context->server)
		SSL_set_accept_state(ssl);
	else
		ret = prepare_client(context, ssl, host);
	if (ret != 0) {
		SSL_free(ssl);
		return ret;
	}
	*out = ssl;
	return 0;
}
