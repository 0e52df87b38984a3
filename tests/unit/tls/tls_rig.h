/* SPDX-License-Identifier: Apache-2.0 */
/* Both ends of a TLS channel over TCP on loopback: the server's in a thread of its own, the client's in the main one. Include it after
 * cmocka.h. */
#ifndef TLS_RIG_H
#define TLS_RIG_H

#include "loopback.h"

#include "tls.h"

#include <semaphore.h>

struct end {
	struct srdma_tls *tls;
	sem_t judged; /* result and text are there */
	int result;   /* of the handshake */
	char text[768];
};

struct session {
	struct srdma_tls_context *server_context, *client_context;
	struct end server, client;
};

/* Makes all certificates and keys in a folder of its own, and goes there; the group fixtures of a test program. */
int tls_rig_make_files(void **state);
int tls_rig_remove_files(void **state);
/* The ordinary case; each test changes what it is about. */
struct srdma_tls_server_options server_options(void);
struct srdma_tls_client_options client_options(void);
struct srdma_tls_client_options client_with(const char *cert, const char *key);
/* Fails the test when there is none. */
struct srdma_tls_context *server_context(struct srdma_tls_server_options o);
struct srdma_tls_context *client_context(struct srdma_tls_client_options o);
/* The error of making such a context, which is freed again. */
int try_server(struct srdma_tls_server_options o);
int try_client(struct srdma_tls_client_options o);
/* Static. */
const char *pin_of(const char *cert_file);
void assert_error_says(const char *words);
/* Reads until the peer has closed, for a while. */
void tls_rig_linger(struct srdma_tls *tls);
/* Waits for bytes from the peer: their number, or why there won't be any. */
int tls_rig_read_some(struct srdma_tls *tls, void *data, size_t size);
int tls_rig_first_read(struct srdma_tls *tls);
/* Runs both handshakes. With TLS 1.3 the client's is over before the server has judged its certificate: the client then
 * learns of it in its first read, which is done here while the server lingers; its outcome is the client's result. */
struct session tls_rig_meet(struct srdma_tls_server_options so, struct srdma_tls_client_options co, const char *host);
void tls_rig_part(struct session *s);
void assert_meets(struct srdma_tls_server_options so, struct srdma_tls_client_options co, const char *host);
/* Neither end may take the other for good. 0 for an error: any. */
void assert_refused(struct srdma_tls_server_options so, struct srdma_tls_client_options co, const char *host, int client_error, const char *client_words, int server_error, const char *server_words);

#endif
