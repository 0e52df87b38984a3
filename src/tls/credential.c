/* SPDX-License-Identifier: Apache-2.0 */
#include "credential.h"

#include "cert.h"
#include "log.h"
#include "peer_chain.h"
#include "parameters.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>

#define REHEARSAL_STEPS 10

static int check_key(const char *cert_file)
{
	struct srdma_cert_info info;
	int ret = srdma_cert_read(cert_file, &info);

	/* The function that loads the file reports why it cannot be read. */
	if (ret == 0 && info.key_problem[0])
		return srdma_fail(SRDMA_ECONFIG, "%s cannot be used for TLS: %s (its key: %s); `securdma cert` makes one that can", cert_file,
				  info.key_problem, info.key);
	return 0;
}

/* Checks the chain that a peer is going to decode and verify. */
static int check_chain(SSL_CTX *context, const char *cert_file)
{
	STACK_OF(X509) *chain = NULL;
	const char *problem = NULL;

	SSL_CTX_get_extra_chain_certs(context, &chain);
	for (int i = 0; !problem && i < sk_X509_num(chain); i++)
		problem = srdma_cert_key_problem(sk_X509_value(chain, i));
	if (problem)
		return srdma_fail(SRDMA_ECONFIG, "the chain of %s cannot be used for TLS: %s", cert_file, problem);
	if (sk_X509_num(chain) + 1 > (int)SRDMA_CHAIN_CERTS)
		return srdma_fail(SRDMA_ECONFIG, "the chain of %s has %d certificates; peers accept at most %u", cert_file, sk_X509_num(chain) + 1,
				  SRDMA_CHAIN_CERTS);
	return 0;
}

/* Builds the chain once; by default OpenSSL does so for each handshake. The chain has no root: a peer that trusts it has it. */
static void complete_chain(SSL_CTX *context)
{
	STACK_OF(X509) *chain = NULL;

	SSL_CTX_set_mode(context, SSL_MODE_NO_AUTO_CHAIN);
	SSL_CTX_get_extra_chain_certs(context, &chain);
	if (sk_X509_num(chain) <= 0)
		SSL_CTX_build_cert_chain(context, SSL_BUILD_CHAIN_FLAG_NO_ROOT | SSL_BUILD_CHAIN_FLAG_IGNORE_ERROR |
							  SSL_BUILD_CHAIN_FLAG_CLEAR_ERROR);
	ERR_clear_error();
}

static int accept_any(X509_STORE_CTX *store, void *arg)
{
	(void)store, (void)arg;
	return 1;
}

static SSL *new_actor(SSL_CTX *own, bool server)
{
	SSL_CTX *context = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
	SSL *ssl = NULL;

	if (context && srdma_tls_set_parameters(context, server, false) == 0 &&
	    SSL_CTX_use_certificate(context, SSL_CTX_get0_certificate(own)) == 1 &&
	    SSL_CTX_use_PrivateKey(context, SSL_CTX_get0_privatekey(own)) == 1) {
		SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
		SSL_CTX_set_cert_verify_callback(context, accept_any, NULL);
		ssl = SSL_new(context);
	}
	SSL_CTX_free(context);
	if (ssl && server)
		SSL_set_accept_state(ssl);
	else if (ssl)
		SSL_set_connect_state(ssl);
	return ssl;
}

static bool shake_hands(SSL *client, SSL *server)
{
	bool client_done = false, server_done = false;

	for (int i = 0; i < REHEARSAL_STEPS && !(client_done && server_done); i++) {
		SSL *actor = i % 2 ? server : client;
		int ret;

		ERR_clear_error();
		ret = SSL_do_handshake(actor);
		if (ret != 1 && SSL_get_error(actor, ret) != SSL_ERROR_WANT_READ)
			return false;
		*(i % 2 ? &server_done : &client_done) = ret == 1;
	}
	return client_done && server_done;
}

/* Tests whether the key makes the signatures of TLS 1.3, by a handshake in memory between two ends that accept any certificate. */
static int rehearse(SSL_CTX *context, const char *cert_file)
{
	SSL *client = new_actor(context, false), *server = new_actor(context, true);
	BIO *client_bio = NULL, *server_bio = NULL;
	int ret = 0;

	if (!client || !server || BIO_new_bio_pair(&client_bio, SRDMA_HANDSHAKE_BYTES, &server_bio, SRDMA_HANDSHAKE_BYTES) != 1) {
		ret = srdma_fail_openssl(-ENOMEM, "cannot try the certificate %s", cert_file);
	} else {
		SSL_set_bio(client, client_bio, client_bio);
		SSL_set_bio(server, server_bio, server_bio);
		if (!shake_hands(client, server))
			ret = srdma_fail_openssl(SRDMA_ECONFIG, "a TLS 1.3 handshake fails with %s and its key; `securdma cert` makes others",
						 cert_file);
	}
	SSL_free(client);
	SSL_free(server);
	ERR_clear_error();
	return ret;
}

int srdma_credential_load(SSL_CTX *context, const char *cert_file, const char *key_file)
{
	int ret;

	if (!cert_file || !key_file)
		return srdma_fail(SRDMA_ECONFIG, "a certificate needs its private key and a key its certificate: give both");
	ret = srdma_cert_check_readable("certificate", cert_file);
	if (ret == 0)
		ret = srdma_cert_check_readable("private key", key_file);
	if (ret == 0)
		ret = check_key(cert_file);
	if (ret != 0)
		return ret;
	SSL_CTX_set_default_passwd_cb(context, srdma_cert_no_password);
	if (SSL_CTX_use_certificate_chain_file(context, cert_file) != 1)
		return srdma_fail_openssl(SRDMA_ECONFIG, "%s holds no usable PEM certificate", cert_file);
	if (SSL_CTX_use_PrivateKey_file(context, key_file, SSL_FILETYPE_PEM) != 1 || SSL_CTX_check_private_key(context) != 1)
		return srdma_fail_openssl(SRDMA_ECONFIG, "%s is not the unencrypted PEM private key of %s", key_file, cert_file);
	complete_chain(context);
	ret = check_chain(context, cert_file);
	return ret == 0 ? rehearse(context, cert_file) : ret;
}
