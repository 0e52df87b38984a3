/* SPDX-License-Identifier: Apache-2.0 */
#include "tls.h"

#include "clock.h"
#include "hello.h"
#include "log.h"
#include "net.h"
#include "verify_text.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct srdma_tls {
	SSL *ssl;
	int fd;
	short events;
	bool ended;  /* our side, by srdma_tls_linger */
	bool broken; /* after a fatal error OpenSSL must not be asked for a close_notify */
	struct srdma_tls_context *context;
};

/* ---- a socket BIO that raises no SIGPIPE ----------------------------------------------------------------------- */
/* OpenSSL's own uses write(2): a peer that is gone would end a program that has not thought of the signal. */

static int bio_write(BIO *bio, const char *data, int length)
{
	ssize_t n = send((int)(intptr_t)BIO_get_data(bio), data, (size_t)length, MSG_NOSIGNAL);

	BIO_clear_retry_flags(bio);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		BIO_set_retry_write(bio);
	return (int)n;
}

static int bio_read(BIO *bio, char *data, int size)
{
	ssize_t n = recv((int)(intptr_t)BIO_get_data(bio), data, (size_t)size, 0);

	BIO_clear_retry_flags(bio);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		BIO_set_retry_read(bio);
	if (n == 0)
		BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
	return (int)n;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
	(void)number;
	(void)pointer;
	if (command == BIO_CTRL_EOF)
		return BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0;
	return command == BIO_CTRL_FLUSH;
}

static BIO_METHOD *bio_method;
static pthread_once_t bio_method_once = PTHREAD_ONCE_INIT;

static void free_bio_method(void)
{
	BIO_meth_free(bio_method);
}

static void make_bio_method(void)
{
	bio_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "securdma socket");
	if (!bio_method)
		return;
	BIO_meth_set_write(bio_method, bio_write);
	BIO_meth_set_read(bio_method, bio_read);
	BIO_meth_set_ctrl(bio_method, bio_ctrl);
	OPENSSL_atexit(free_bio_method);
}

static int attach_socket(SSL *ssl, int fd)
{
	BIO *bio;

	pthread_once(&bio_method_once, make_bio_method);
	bio = bio_method ? BIO_new(bio_method) : NULL;
	if (!bio)
		return srdma_fail_openssl(-ENOMEM, "cannot make a TLS channel");
	BIO_set_data(bio, (void *)(intptr_t)fd);
	BIO_set_init(bio, 1);
	SSL_set_bio(ssl, bio, bio);
	return 0;
}

/* ---- life ------------------------------------------------------------------------------------------------------ */

int srdma_tls_new(struct srdma_tls_context *context, int fd, const char *host, struct srdma_tls **out)
{
	struct srdma_tls *tls = calloc(1, sizeof *tls);
	int ret;

	if (!tls) {
		close(fd);
		return srdma_fail(-ENOMEM, "out of memory");
	}
	tls->fd = fd;
	tls->events = srdma_tls_context_is_server(context) ? POLLIN : POLLOUT;
	ret = srdma_tls_context_ssl(context, host, &tls->ssl);
	if (ret == 0)
		ret = attach_socket(tls->ssl, fd);
	if (ret != 0) {
		SSL_free(tls->ssl);
		close(fd);
		free(tls);
		return ret;
	}
	tls->context = srdma_tls_context_ref(context);
	*out = tls;
	return 0;
}

void srdma_tls_delete(struct srdma_tls **out)
{
	struct srdma_tls *tls = *out;

	*out = NULL;
	if (!tls)
		return;
	if (!tls->broken && SSL_is_init_finished(tls->ssl))
		SSL_shutdown(tls->ssl);
	SSL_free(tls->ssl);
	ERR_clear_error();
	close(tls->fd);
	srdma_tls_context_unref(&tls->context);
	free(tls);
}

int srdma_tls_fd(const struct srdma_tls *tls)
{
	return tls->fd;
}

short srdma_tls_events(const struct srdma_tls *tls)
{
	return tls->events;
}

/* ---- errors ---------------------------------------------------------------------------------------------------- */

static int fail_verification(struct srdma_tls *tls)
{
	long result = SSL_get_verify_result(tls->ssl);

	ERR_clear_error();
	if (result == X509_V_ERR_APPLICATION_VERIFICATION)
		return srdma_fail(SRDMA_ECERT, "the server's public key does not match the pin; if the server has a new key, get "
					       "its pin with 'securdma cert pin', over a way that you trust");
	if (result == X509_V_ERR_HOSTNAME_MISMATCH || result == X509_V_ERR_IP_ADDRESS_MISMATCH)
		return srdma_fail(SRDMA_ECERT, "the server's certificate is not for this name or address; connect to a name in the "
					       "certificate, or give one with --server-name");
	return srdma_fail(SRDMA_ECERT, "the peer's certificate is not acceptable: %s", srdma_verify_text(result));
}

static int fail_ssl(struct srdma_tls *tls, const char *doing)
{
	int reason = ERR_GET_REASON(ERR_peek_error());

	tls->broken = true;
	if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED)
		return fail_verification(tls);
	if (srdma_alert_text(reason)) {
		ERR_clear_error();
		return srdma_fail(SRDMA_ECERT, "the peer does not accept our certificate: %s", srdma_alert_text(reason));
	}
	if (reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE) {
		ERR_clear_error();
		return srdma_fail(SRDMA_ECERT, "the client showed no certificate");
	}
	if (reason == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
		ERR_clear_error();
		return srdma_fail(SRDMA_ELOST, "the peer closed the connection without giving a reason (%s)", doing);
	}
	return srdma_fail_openssl(SRDMA_ETLS, "TLS failed (%s)", doing);
}

/* Turns the outcome of an SSL call that did not succeed into -EAGAIN or an error. */
static int translate(struct srdma_tls *tls, int ret, const char *doing)
{
	int saved = errno;

	switch (SSL_get_error(tls->ssl, ret)) {
	case SSL_ERROR_WANT_READ: tls->events = POLLIN; return -EAGAIN;
	case SSL_ERROR_WANT_WRITE: tls->events = POLLOUT; return -EAGAIN;
	case SSL_ERROR_ZERO_RETURN: return srdma_fail(SRDMA_ECLOSED, "the peer closed the TLS channel (%s)", doing);
	case SSL_ERROR_SYSCALL:
		tls->broken = true;
		ERR_clear_error();
		return srdma_fail(SRDMA_ELOST, "the TLS channel broke (%s): %s", doing,
				  saved ? strerror(saved) : "end of stream");
	default: return fail_ssl(tls, doing);
	}
}

/* ---- steps ----------------------------------------------------------------------------------------------------- */

int srdma_tls_handshake(struct srdma_tls *tls)
{
	const unsigned char *alpn = NULL;
	unsigned length = 0;

	ERR_clear_error();
	int ret = SSL_do_handshake(tls->ssl);
	if (ret != 1)
		return translate(tls, ret, "handshake");
	SSL_get0_alpn_selected(tls->ssl, &alpn, &length);
	if (length != strlen(SRDMA_ALPN) || memcmp(alpn, SRDMA_ALPN, length) != 0)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer does not speak %s: it is no securdma, or another version (ALPN)", SRDMA_ALPN);
	return 0;
}

bool srdma_tls_has_received(const struct srdma_tls *tls)
{
	return BIO_number_read(SSL_get_rbio(tls->ssl)) > 0;
}

int srdma_tls_read(struct srdma_tls *tls, void *data, size_t size)
{
	size_t n = 0;

	ERR_clear_error();
	int ret = SSL_read_ex(tls->ssl, data, size, &n);
	return ret == 1 ? (int)n : translate(tls, ret, "reading");
}

int srdma_tls_write(struct srdma_tls *tls, const void *data, size_t length)
{
	size_t n = 0;

	ERR_clear_error();
	int ret = SSL_write_ex(tls->ssl, data, length, &n);
	return ret == 1 ? (int)n : translate(tls, ret, "writing");
}

int srdma_tls_linger(struct srdma_tls *tls)
{
	char sink[512];
	ssize_t n;

	if (!tls->broken && SSL_is_init_finished(tls->ssl))
		SSL_shutdown(tls->ssl);
	ERR_clear_error();
	tls->broken = true;
	tls->events = POLLIN;
	if (!tls->ended && shutdown(tls->fd, SHUT_WR) != 0)
		return 0;
	tls->ended = true;
	n = recv(tls->fd, sink, sizeof sink, 0);
	/* One that goes on sending is cut off when the caller has had enough. */
	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)) ? -EAGAIN : 0;
}

/* ---- facts ----------------------------------------------------------------------------------------------------- */

bool srdma_tls_is_server(const struct srdma_tls *tls)
{
	return SSL_is_server(tls->ssl) == 1;
}

int srdma_tls_export(const struct srdma_tls *tls, const char *label, const void *context, size_t context_length, uint8_t *out,
		     size_t length)
{
	if (SSL_export_keying_material(tls->ssl, out, length, label, strlen(label), context, context_length, 1) != 1)
		return srdma_fail_openssl(SRDMA_ETLS, "cannot derive keys from the TLS session");
	return 0;
}

const char *srdma_tls_version(const struct srdma_tls *tls)
{
	return SSL_get_version(tls->ssl);
}

const char *srdma_tls_cipher(const struct srdma_tls *tls)
{
	return SSL_get_cipher_name(tls->ssl);
}

/* Its bytes, a NUL among them too. False: not all of them are in `out` as they are. */
static bool copy_name(const ASN1_STRING *name, char *out, size_t size)
{
	unsigned char *text = NULL;
	int length = ASN1_STRING_to_UTF8(&text, name);
	size_t used = length > 0 ? (size_t)length : 0;
	bool exact = used > 0 && used < size;

	if (used >= size)
		used = size - 1;
	for (size_t i = 0; i < used; i++)
		exact = exact && text[i] >= 0x20 && text[i] < 0x7f;
	if (used > 0)
		memcpy(out, text, used);
	out[used] = '\0';
	srdma_make_printable(out, used);
	OPENSSL_free(text);
	return exact;
}

bool srdma_tls_peer_name(const struct srdma_tls *tls, char *out, size_t size)
{
	X509 *cert = SSL_get1_peer_certificate(tls->ssl);
	const X509_NAME *subject = cert ? X509_get_subject_name(cert) : NULL;
	int at = subject ? X509_NAME_get_index_by_NID(subject, NID_commonName, -1) : -1;
	bool exact = false;

	out[0] = '\0';
	if (at >= 0)
		exact = copy_name(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)), out, size) &&
			X509_NAME_get_index_by_NID(subject, NID_commonName, at) < 0;
	X509_free(cert);
	return exact;
}
