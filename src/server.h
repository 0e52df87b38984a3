/* SPDX-License-Identifier: Apache-2.0 */
/* What server.c (start, listener thread, stop), worker.c (a client's thread) and echo.c (the built-in service) share. */
#ifndef SRDMA_SERVER_H
#define SRDMA_SERVER_H

#include "conn.h"
#include "slots.h"
#include "tls.h"

struct srdma_server {
	struct srdma_server_options options; /* strings in it are NULL */
	struct srdma_tls_context *context;
	struct srdma_device *device;
	struct srdma_listener *listener;
	struct srdma_slots slots; /* its mutex also guards each client's conn and info */
	pthread_t listener_thread;
	int stop_fd;  /* eventfd, readable from srdma_server_stop on: ends every set-up */
	int reap_fd;  /* eventfd: a client's thread has ended */
	int event_fd; /* eventfd: the program should look at the status */
	atomic_bool stopping;
	atomic_bool device_failed;

	/* Taken after slots.mutex when both are needed. */
	pthread_mutex_t mutex; /* guards what follows */
	pthread_cond_t ended;  /* a thread has ended */
	unsigned pending;      /* threads in set-up */
	unsigned threads;      /* threads that have not been joined */
	struct srdma_client *finished; /* threads to be joined */
	struct srdma_server_status counts; /* accepted, rejected, failed, lost */
	unsigned unclean;      /* clients that did not end in order while stopping */
};

/* A connection and its thread, from TCP accept to the end. */
struct srdma_client {
	struct srdma_server *server;
	struct srdma_client *next; /* in server->finished */
	pthread_t thread;
	int socket;                    /* until the set-up takes it */
	uint64_t id;                   /* 0: has no slot */
	struct srdma_conn *conn;       /* NULL while in set-up; set and cleared under slots.mutex */
	struct srdma_conn_info info;   /* as of the set-up */
	bool lost;                     /* was connected, and went without a disconnect by either side */
	char address[64];
};

/* The body of a client's thread. */
void *srdma_worker_main(void *client);

extern const struct srdma_server_handlers srdma_echo_handlers;

#endif
