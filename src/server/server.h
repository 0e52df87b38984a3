/* SPDX-License-Identifier: Apache-2.0 */
/* What server.c (start, stop), acceptor.c (the listener thread), setup_thread.c (clients being set up), worker.c (the threads of
 * connected clients), client.c (what they do for one), operate.c (status, limits, drain) and echo.c (the built-in service) share. */
#ifndef SRDMA_SERVER_H
#define SRDMA_SERVER_H

#include "accept.h"
#include "histogram.h"
#include "net.h"
#include "slots.h"

struct srdma_client;

/* A thread that sets clients up, many at a time. */
struct srdma_setup_thread {
	struct srdma_server *server;
	pthread_t thread;
	int epoll_fd;
	int wake_fd; /* wake.h: arrivals, or stopping, or pressed */
	pthread_mutex_t mutex;          /* guards arrivals */
	struct srdma_client *arrivals;  /* latest first */
	struct srdma_client *first, *last; /* in set-up, oldest first; its thread's alone */
};

#define SRDMA_HOT_MAX 8

/* What a connected client is just now. Its worker counts the clients that have each mark. */
enum srdma_mark {
	SRDMA_MARK_ENDING,
	SRDMA_MARK_BLOCKED,   /* the program did not take the oldest message */
	SRDMA_MARK_CHANGING,  /* gets new PSNs, or does not read its TLS channel: it has a deadline */
	SRDMA_MARK_THROTTLED, /* has had its bytes for now */
	SRDMA_MARKS
};

/* A thread that serves connected clients. */
struct srdma_worker {
	struct srdma_server *server;
	pthread_t thread;
	struct srdma_notifier notifier; /* its thread's, but for the channel */
	int epoll_fd; /* the channel, wake_fd, the clients' TLS channels */
	int wake_fd;  /* wake.h: arrivals, or stopping, or a client was woken */
	int number;   /* from 0 */
	unsigned load; /* clients placed here, those in set-up included; guarded by server->mutex */
	pthread_mutex_t mutex;         /* guards arrivals and over */
	struct srdma_client *arrivals; /* latest first */
	bool over;                     /* no client will come any more */

	/* Its thread's alone: */
	struct srdma_client *clients;
	struct srdma_client *hot[SRDMA_HOT_MAX]; /* polled for a while instead of armed */
	unsigned hot_count;
	unsigned marked[SRDMA_MARKS]; /* clients that have each mark */
};

#define SRDMA_SETUP_FAILURES (SRDMA_SETUP_OTHER + 1)
#define SRDMA_CLIENT_ENDS    (SRDMA_END_OTHER + 1)
#define SRDMA_SETUP_PHASES   (SRDMA_PHASE_TOTAL + 1)
#define SRDMA_REJECT_REASONS 16
#define SRDMA_WC_STATUSES    32

/* What a server counts, as in struct srdma_server_metrics. */
struct srdma_totals {
	uint64_t accepted;
	uint64_t rejected[SRDMA_REJECT_REASONS];
	uint64_t failed[SRDMA_SETUP_FAILURES];
	struct srdma_buckets setup_time[SRDMA_SETUP_PHASES];
	uint64_t ended[SRDMA_CLIENT_ENDS];
	uint64_t completion_errors[SRDMA_WC_STATUSES];
	uint64_t messages_received, messages_sent, bytes_received, bytes_sent, rdma_bytes_written, rdma_bytes_read;
	uint64_t epochs, recoveries;
};

struct srdma_server {
	struct srdma_server_options options; /* strings in it and its limits are NULL: `limits` are those in force */
	struct srdma_conn_settings conn;     /* of every client, what options.conn points to */
	struct srdma_tls_context *context; /* guarded by mutex: it can be replaced */
	struct srdma_device *device;
	struct srdma_listener **listeners;
	unsigned listener_count;
	struct srdma_networks proxies; /* balancers, whose connections begin with a PROXY header */
	struct srdma_slots slots; /* its mutex also guards each client's conn and info, and `gone` */
	struct srdma_totals gone; /* metrics.c; the traffic of clients that have gone */
	pthread_t listener_thread;
	struct srdma_setup_thread *setup_threads;
	unsigned setup_thread_count;
	int stop_fd;  /* wake.h, readable from srdma_server_stop on: ends the listener */
	int room_fd;  /* wake.h: a set-up has ended */
	int event_fd; /* wake.h: the program should look at the status */
	atomic_bool stopping;
	atomic_bool cancelled; /* the drain is over */
	atomic_bool pressed;   /* connections wait for a place to be set up in */
	atomic_bool device_failed;
	atomic_bool draining; /* the slot table is closed, drain_deadline set */
	atomic_bool drained;  /* and the last client has gone, or the deadline passed */
	_Atomic uint64_t drain_deadline;
	_Atomic uint64_t handshake_us; /* how long clients take to authenticate, on average */
	_Atomic uint64_t setups_until; /* set before `stopping`: set-ups that are not over are given up then */

	/* Taken after slots.mutex when both are needed. */
	pthread_mutex_t mutex; /* guards what follows */
	pthread_cond_t ended;  /* a client has gone */
	unsigned pending;      /* clients in set-up */
	unsigned authenticated;      /* of these, those that are authenticated and were not turned away */
	unsigned clients;      /* given to workers and not yet gone */
	struct srdma_worker **workers;
	unsigned worker_count;
	struct srdma_server_limits limits; /* own copy, its identities sorted; replaced with slots.mutex held as well */
	struct srdma_totals totals; /* metrics.c; without traffic */
	uint64_t lost;         /* clients that did not end in order */
	unsigned unclean;      /* of these, while stopping */
};

/* A client, from TCP accept to the end. */
struct srdma_client {
	struct srdma_server *server;
	struct srdma_client *next, *previous; /* in its set-up thread's or worker's list */
	struct srdma_slot slot;
	char address[64];   /* the client's own, once its balancer has told it */
	union ibv_gid peer; /* address, in its IPv6 form */
	char proxy[64];     /* that balancer's address; "": none */

	/* Set-up. */
	struct srdma_newcomer newcomer; /* the socket: until the set-up takes it */
	bool check; /* a balancer's, which looked whether the server is there */
	bool proved;        /* who it is */
	bool authenticated, turned_away; /* see server->authenticated */
	const char *limit; /* "identity", "address": that its like are too many of; "denied", "unlisted": its name; NULL */
	uint64_t arrived;
	unsigned alike; /* while its set-up thread makes room: how many unknown ones are of its network */
	struct srdma_accept *accept;
	short events; /* that its set-up thread or worker waits for at its socket */

	/* Service. */
	struct srdma_worker *worker;
	struct srdma_conn *conn;       /* set and cleared under slots.mutex */
	struct srdma_conn_info info;   /* as of the set-up */
	int64_t connected_at;          /* seconds since the epoch */
	void *arg;                     /* the program's */
	bool marks[SRDMA_MARKS];       /* srdma_client_mark */
	bool wants_room;               /* BLOCKED, and there was no room to send in */
	bool hot;
	uint64_t hot_until;
	atomic_bool kicked;            /* set under slots.mutex, after kick_reason */
	char kick_reason[SRDMA_REASON_MAX + 1];
	const char *kick_limit;        /* as `limit`; likewise */
	uint64_t deadline;             /* of the end, or for the program to take a message */
	int status;                    /* why it ends, when that is not for the peer to say */
	char reason[SRDMA_REASON_MAX + 1]; /* for the peer; "": none */
};

/* acceptor.c */
#define SRDMA_LISTENERS_MAX 64U
/* The listener thread; its argument is the server. */
void *srdma_acceptor_main(void *arg);
/* Something ended that the listener thread waits for: a set-up, or, in a drain, a client. */
void srdma_server_nudge(struct srdma_server *server);

/* operate.c */
/* A connected client whose name may not come any more is kicked. slots.mutex is held. */
void srdma_server_recheck(struct srdma_client *client);

/* setup_thread.c */
int srdma_setup_thread_start(struct srdma_setup_thread *thread, struct srdma_server *server);
void srdma_setup_thread_give(struct srdma_setup_thread *thread, struct srdma_client *client);
void srdma_setup_thread_wake(struct srdma_setup_thread *thread);
/* The server is stopping: waits until the clients in set-up have been told or given up, and ends the thread. */
void srdma_setup_thread_stop(struct srdma_setup_thread *thread);

static inline void srdma_client_mark(struct srdma_client *client, enum srdma_mark mark, bool on)
{
	client->worker->marked[mark] += (unsigned)on - (unsigned)client->marks[mark];
	client->marks[mark] = on;
}

/* client.c: of a connected client, by its worker's thread alone. */
/* Does what there is to do for a client, which may be gone after it. */
void srdma_client_run(struct srdma_client *client);
/* Whether a run of this client would get anywhere. */
bool srdma_client_has_work(const struct srdma_client *client);
/* Completions; with `control` also frames of the TLS channel. Hands nothing over. */
void srdma_client_progress(struct srdma_client *client, bool control);
/* There is nothing to do now: waits for the next event, or, when it has just been busy, is polled for a while. */
void srdma_client_rest(struct srdma_client *client, bool was_busy);
/* The same for one that is being disconnected: its completions have to be heard of. The client may be gone after it. */
void srdma_client_rest_ending(struct srdma_client *client);
/* Is no longer polled. */
void srdma_client_cool(struct srdma_client *client);
/* `operation`: of epoll_ctl, at its TLS channel. */
void srdma_client_watch(struct srdma_client *client, int operation);
/* Begins the disconnect. `status` 0: the peer, or a stop of the server, ends it. `reason`: for the peer. */
void srdma_client_end(struct srdma_client *client, int status, const char *reason);
/* Tells the program, counts and frees. `status`: 0 for an end in order, else the thread's last error tells more. */
void srdma_client_finish(struct srdma_client *client, int status, bool lost);

/* worker.c */
/* The workers that options.workers asks for from the start. */
int srdma_workers_start(struct srdma_server *server);
/* Places one more client: on the worker with the fewest. -EAGAIN: no thread or descriptor for another one. */
int srdma_worker_choose(struct srdma_server *server, struct srdma_worker **out);
/* A client that was placed does not come, or has gone. */
void srdma_worker_leave(struct srdma_worker *worker);
/* Its connection is up. */
void srdma_worker_give(struct srdma_worker *worker, struct srdma_client *client);
void srdma_worker_wake(struct srdma_worker *worker);
void srdma_workers_wake(struct srdma_server *server);
/* No client is left, and none will come. */
void srdma_workers_stop(struct srdma_server *server);

/* The functions of the built-in service. */
void srdma_echo_use(struct srdma_server_options *options);

#endif
