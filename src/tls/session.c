/* SPDX-License-Identifier: Apache-2.0 */
#include "tls.h"

#include "clock.h"
#include "log.h"
#include "parameters.h"
#include "verify_text.h"

#include <errno.h>
#include <openssl/err.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MINUTE_US 60000000u
/* No peer needs a KeyUpdate, since the channel carries only a few hundred bytes an epoch. */
#define MESSAGES_A_MINUTE 8u

struct srdma_tls {
	SSL *ssl;
	int fd;
	short events;
	bool ended;  /* srdma_tls_linger has ended our side */
	bool broken; /* after a fatal error OpenSSL must not be asked for a close_notify */
	bool established;
	bool read_needs_room;
	uint64_t minute_began; /* start of the minute whose handshake messages are counted, once established */
	unsigned minute_messages;
	size_t allowed; /* bytes that the peer may have sent so far; SIZE_MAX once the handshake is over */
	size_t received;
	int refusal;    /* why this library fails the handshake; 0: it does not */
	char *refusal_text;
	struct srdma_tls_context *context;
};

/* OpenSSL's own BIO uses write(2): after the peer has gone, its SIGPIPE ends a program that does not handle the signal. */

static int bio_write(BIO *bio, const char *data, int length)
{
	const struct srdma_tls *tls = BIO_get_data(bio);
	ssize_t n = send(tls->fd, data, (size_t)length, MSG_NOSIGNAL);

	BIO_clear_retry_flags(bio);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		BIO_set_retry_write(bio);
	return (int)n;
}

static int bio_read(BIO *bio, char *data, int size)
{
	struct srdma_tls *tls = BIO_get_data(bio);
	size_t left = tls->allowed - tls->received;
	ssize_t n;

	BIO_clear_retry_flags(bio);
	if (left == 0 && size > 0) {
		srdma_tls_refuse(tls->ssl, SRDMA_EPROTOCOL, "the peer sent more than the %zu bytes that this part of the handshake may have",
				 tls->allowed);
		return -1;
	}
	n = recv(tls->fd, data, (size_t)size < left ? (size_t)size : left, 0);
	if (n > 0 && tls->allowed != SIZE_MAX)
		tls->received += (size_t)n;
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

static int attach_socket(struct srdma_tls *tls)
{
	BIO *bio;

	pthread_once(&bio_method_once, make_bio_method);
	bio = bio_method ? BIO_new(bio_method) : NULL;
	if (!bio)
		return srdma_fail_openssl(-ENOMEM, "cannot make a TLS channel");
	BIO_set_data(bio, tls);
	BIO_set_init(bio, 1);
	SSL_set_bio(tls->ssl, bio, bio);
	SSL_set_app_data(tls->ssl, tls);
	return 0;
}

void srdma_tls_note_handshake_message(const SSL *ssl)
{
	struct srdma_tls *tls = SSL_get_app_data(ssl);
	uint64_t now;

	if (!tls || !tls->established)
		return;
	now = srdma_clock_us();
	if (tls->minute_messages == 0 || now - tls->minute_began >= MINUTE_US) {
		tls->minute_began = now;
		tls->minute_messages = 0;
	}
	tls->minute_messages++;
}

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
	tls->allowed = srdma_tls_context_is_server(context) ? SRDMA_CLIENT_HELLO_BYTES : SRDMA_HANDSHAKE_BYTES;
	ret = srdma_tls_context_ssl(context, host, &tls->ssl);
	if (ret == 0)
		ret = attach_socket(tls);
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
	free(tls->refusal_text);
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

void srdma_tls_allow(SSL *ssl, size_t bytes)
{
	struct srdma_tls *tls = SSL_get_app_data(ssl);

	if (tls)
		tls->allowed = bytes;
}

void srdma_tls_refuse(SSL *ssl, int error, const char *format, ...)
{
	struct srdma_tls *tls = SSL_get_app_data(ssl);
	va_list args;

	if (!tls || tls->refusal)
		return;
	tls->refusal = error;
	va_start(args, format);
	if (vasprintf(&tls->refusal_text, format, args) < 0)
		tls->refusal_text = NULL;
	va_end(args);
}

static int fail_refused(struct srdma_tls *tls)
{
	tls->broken = true;
	ERR_clear_error();
	return srdma_fail(tls->refusal, "%s", tls->refusal_text ? tls->refusal_text : "the handshake was refused");
}

static int fail_ssl(struct srdma_tls *tls, const char *doing)
{
	int reason = ERR_GET_REASON(ERR_peek_error()), ret;

	tls->broken = true;
	if (srdma_alert_text(reason))
		ret = srdma_fail(SRDMA_ECERT, "the peer does not accept our certificate: %s", srdma_alert_text(reason));
	else if (reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE)
		ret = srdma_fail(SRDMA_ECERT, "the client showed no certificate");
	else if (reason == SSL_R_UNEXPECTED_EOF_WHILE_READING)
		ret = srdma_fail(SRDMA_ELOST, "the peer closed the connection without giving a reason (%s)", doing);
	else
		return srdma_fail_openssl(SRDMA_ETLS, "TLS failed (%s)", doing);
	ERR_clear_error();
	return ret;
}

/* Turns the outcome of an SSL call that did not succeed into -EAGAIN or an error. */
static int translate(struct srdma_tls *tls, int ret, const char *doing)
{
	int saved = errno;

	if (tls->refusal)
		return fail_refused(tls);
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

int srdma_tls_handshake(struct srdma_tls *tls)
{
	const unsigned char *alpn = NULL;
	unsigned length = 0, wanted_length;
	const char *wanted = srdma_tls_context_alpn(tls->context, &wanted_length);

	ERR_clear_error();
	int ret = SSL_do_handshake(tls->ssl);
	if (ret != 1)
		return translate(tls, ret, "handshake");
	srdma_tls_allow(tls->ssl, SIZE_MAX);
	SSL_get0_alpn_selected(tls->ssl, &alpn, &length);
	if (length != wanted_length || memcmp(alpn, wanted, length) != 0)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer does not speak %.*s (ALPN): it is not securdma, or another version",
				  (int)wanted_length, wanted);
	tls->established = true;
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
	int result = ret == 1 ? (int)n : translate(tls, ret, "reading");

	tls->read_needs_room = result == -EAGAIN && tls->events == POLLOUT;
	if (tls->minute_messages <= MESSAGES_A_MINUTE)
		return result;
	tls->broken = true;
	return srdma_fail(SRDMA_EPROTOCOL, "the peer changed its TLS keys more than %u times in a minute", MESSAGES_A_MINUTE);
}

bool srdma_tls_read_needs_room(const struct srdma_tls *tls)
{
	return tls->read_needs_room;
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
	/* The caller's deadline ends the wait for a peer that goes on sending. */
	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)) ? -EAGAIN : 0;
}

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

const char *srdma_tls_group(const struct srdma_tls *tls)
{
	const char *name = SSL_group_to_name(tls->ssl, (int)SSL_get_negotiated_group(tls->ssl));

	return name ? name : "";
}

X509 *srdma_tls_peer_cert(const struct srdma_tls *tls)
{
	return SSL_get1_peer_certificate(tls->ssl);
}

int srdma_tls_peer_names(const struct srdma_tls *tls, struct srdma_peer_names *out)
{
	X509 *cert = srdma_tls_peer_cert(tls);
	int ret = 0;

	*out = (struct srdma_peer_names){.identity = ""};
	if (cert)
		ret = srdma_peer_names_read(cert, srdma_tls_context_name_order(tls->context), out);
	X509_free(cert);
	return ret;
}
