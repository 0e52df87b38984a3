/* SPDX-License-Identifier: Apache-2.0 */
/* One copy of a client with a server: a thread serves it, and waits for disks. The client's worker never waits. It shows the thread what has
 * come, where it lies in the stream's ring, and moves what the thread has to say from a ring between them to the stream. */
#ifndef CLI_COPY_SESSION_H
#define CLI_COPY_SESSION_H

#include "files/host.h"
#include "files/ring.h"
#include "securdma_stream.h"

#include <pthread.h>

/* Bytes of the stream that the thread may read. Counted since the start: shown and given back to the stream up to `start`, read up to `read`,
 * there up to `end`. */
struct copy_window {
	const uint8_t *at; /* of byte `start` */
	size_t start, read, end;
	bool is_copied;    /* at this moment, by the thread, which does not hold the mutex meanwhile */
	bool is_due;       /* the worker was woken, to give back what was read and to show more */
};

struct copy_session {
	struct copy_session *next; /* its owner's */
	char name[SRDMA_NAME_SIZE];
	uint64_t client_id;
	bool is_sealed;
	uint8_t key[FILES_KEY_SIZE];
	struct files_area area;
	void (*forget)(struct copy_session *session, void *arg);
	void *arg;
	struct srdma_stream *stream; /* the worker's */
	bool shut_down;              /* likewise */

	pthread_mutex_t mutex;       /* guards all below */
	pthread_cond_t changed;      /* for the thread */
	unsigned refs;               /* worker, thread */
	struct srdma_conn *conn;     /* NULL: it has gone */
	struct copy_window in;       /* to the thread */
	struct files_ring out;       /* to the client */
	bool out_waits;              /* the worker is to be woken when there is something in `out` */
	bool ended;                  /* the client has sent its last byte */
	bool finished;               /* the thread writes no more */
};

/* For a client that has just connected. `forget` is called in the thread when the copy is over. Errors: -ENOMEM, those of
 * srdma_stream_new(). */
int copy_session_new(struct srdma_conn *conn, const uint8_t key[FILES_KEY_SIZE], const struct files_area *area,
		     void (*forget)(struct copy_session *session, void *arg), void *arg, struct copy_session **out);
/* Starts the thread. A failure forgets and frees the session. */
int copy_session_start(struct copy_session *session);

/* The worker's calls: the functions of struct service. */
int copy_session_stream(void *client, struct srdma_stream *stream, char *reason);
int copy_session_wake(void *client, char *reason);
void copy_session_disconnect(void *client);

#endif
