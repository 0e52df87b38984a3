/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of a server share; each has its section below. */
#ifndef SRDMA_SERVER_H
#define SRDMA_SERVER_H

#include "accept.h"
#include "histogram.h"
#include "net.h"
#include "slots.h"
#include "turn.h"

struct srdma_client;

/* Clients of one thread, oldest first. */
struct srdma_client_list {
	struct srdma_client *first, *last;
};

/* Clients on their way to a thread, latest first. Any thread may add one, and the receiving thread takes them all. */
typedef _Atomic(struct srdma_client *) srdma_arrivals;

/* A thread that sets clients up, many at a time. */
struct srdma_setup_thread {
	struct srdma_server *server;
	pthread_t thread;
	int epoll_fd;
	int wake_fd; /* wake.h: arrivals, or stopping, or pressed */
	srdma_arrivals arrivals;
	struct srdma_client_list clients; /* only this thread uses it */
};

#define SRDMA_HOT_MAX 8

/* The present states of a connected client. Its worker counts the clients in each. */
enum srdma_mark {
	SRDMA_MARK_ENDING,
	SRDMA_MARK_BLOCKED,   /* the program did not take the oldest message */
	SRDMA_MARK_CHANGING,  /* gets new PSNs, or does not read its TLS channel, and so has a deadline */
	SRDMA_MARK_THROTTLED, /* has used up its bytes for now */
	SRDMA_MARKS
};

/* A thread that serves connected clients, and others in its place while it waits in a function of the program. */
struct srdma_worker {
	struct srdma_server *server;
	struct srdma_turn turn; /* its mutex guards the notifier, and the members at the end */
	struct srdma_notifier notifier;
	int epoll_fd; /* the channel, wake_fd, the clients' TLS channels */
	int wake_fd;  /* wake.h: arrivals, or stopping, or a client was woken */
	int number;   /* from 0 */
	unsigned load; /* clients placed here, those in set-up included; guarded by server->mutex */
	srdma_arrivals arrivals;
	atomic_bool over; /* no client will arrive any more */

	/* turn.mutex is held. */
	struct srdma_client *arrived; /* clients that have come and are not yet taken, by `next` */
	struct srdma_client *served;  /* whose function of the program runs */
	struct srdma_client_list clients;
	struct srdma_client *hot[SRDMA_HOT_MAX]; /* clients that the worker polls for a while instead of arming them */
	unsigned hot_count;
	struct srdma_yield yield; /* while it polls */
	unsigned marked[SRDMA_MARKS]; /* clients that have each mark */
	uint64_t due;         /* when a client's epoch may be over; SRDMA_NEVER: none has a time limit */
	uint64_t sweeps_seen; /* of the device's */
};

#define SRDMA_SETUP_FAILURES (SRDMA_SETUP_OTHER + 1)
#define SRDMA_CLIENT_ENDS    (SRDMA_END_OTHER + 1)
#define SRDMA_SETUP_PHASES   (SRDMA_PHASE_TOTAL + 1)
#define SRDMA_REJECT_REASONS 16
#define SRDMA_WC_STATUSES    32

/* The counts of a server, as in struct srdma_server_metrics. */
struct srdma_totals {
	uint64_t accepted;
	uint64_t rejected[SRDMA_REJECT_REASONS];
	uint64_t failed[SRDMA_SETUP_FAILURES];
	struct srdma_buckets setup_time[SRDMA_SETUP_PHASES];
	uint64_t ended[SRDMA_CLIENT_ENDS];
	uint64_t completion_errors[SRDMA_WC_STATUSES];
};

struct srdma_traffic {
	uint64_t messages_received, messages_sent, bytes_received, bytes_sent, rdma_bytes_written, rdma_bytes_read;
	uint64_t epochs, recoveries;
};

struct srdma_server {
	struct srdma_server_options options; /* its strings and its limits are NULL; `limits` has those in force */
	struct srdma_conn_settings conn;     /* of every client; options.conn points into it */
	struct srdma_tls_context *context; /* guarded by mutex: it can be replaced */
	struct srdma_device *device;
	struct srdma_listener **listeners;
	unsigned listener_count;
	struct srdma_networks proxies; /* the balancers: their connections begin with a PROXY header */
	struct srdma_seal_pool *seal_pool; /* of all clients; NULL: none */
	struct srdma_slots slots; /* its mutex also guards each client's conn and info, and `gone` */
	struct srdma_traffic gone; /* metrics.c; of clients that have gone */
	pthread_t listener_thread;
	struct srdma_setup_thread *setup_threads;
	unsigned setup_thread_count;
	int stop_fd;  /* wake.h, readable from srdma_server_stop on: ends the listener */
	int room_fd;  /* wake.h: a set-up has ended */
	int event_fd; /* wake.h: the program should look at the status */
	atomic_bool stopping;
	atomic_bool cancelled; /* the drain is over */
	atomic_bool pressed;   /* connections wait for a place in set-up */
	atomic_bool device_failed;
	atomic_bool draining; /* the slot table is closed, drain_deadline set */
	atomic_bool drained;  /* and the last client has gone, or the deadline passed */
	_Atomic uint64_t sweeps; /* that the device has shown, as the acceptor last told the workers */
	_Atomic uint64_t drain_deadline;
	_Atomic uint64_t handshake_us; /* how long clients take to authenticate, on average */
	_Atomic uint64_t setups_until; /* set before `stopping`: at this time the server gives up the set-ups that are not over */

	/* A thread that needs both mutexes locks slots.mutex first. */
	pthread_mutex_t mutex; /* guards the members below */
	pthread_cond_t ended;  /* a client has gone */
	unsigned pending;      /* clients in set-up */
	unsigned authenticated;      /* of these, those that are authenticated and were not turned away */
	unsigned clients;      /* given to workers and not yet gone */
	struct srdma_worker **workers;
	unsigned worker_count;
	struct srdma_server_limits limits; /* own copy, its identities sorted; replaced with slots.mutex held as well */
	struct srdma_totals totals; /* metrics.c */
	uint64_t lost;         /* clients that did not end in order */
	unsigned unclean;      /* of these, while stopping */
};

/* Whether a function of the program has put something off, by returning -EAGAIN. */
struct srdma_put_off {
	bool is;
	bool (*until)(const struct srdma_conn *conn); /* it is called again when this is true; NULL: when the client is woken */
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
	bool check; /* a balancer's health check */
	bool proved;        /* its identity */
	bool authenticated, turned_away; /* see server->authenticated */
	const char *limit; /* the limit it exceeds ("identity", "address") or the state of its name ("denied", "unlisted"); NULL */
	uint64_t arrived;
	unsigned alike; /* number of unauthenticated clients in its network, while its set-up thread makes room */
	struct srdma_accept *accept;
	short events; /* which its set-up thread or worker waits for at its socket */

	/* Service. */
	struct srdma_worker *worker;
	struct srdma_conn *conn;       /* set and cleared under slots.mutex */
	struct srdma_conn_info info;   /* as of the set-up */
	int64_t connected_at;          /* seconds since the epoch */
	void *arg;                     /* the program's */
	bool marks[SRDMA_MARKS];       /* srdma_client_mark */
	struct srdma_put_off message;  /* on_message; also BLOCKED then */
	struct srdma_put_off control, wake; /* on_control, on_wake */
	struct srdma_put_off complete; /* on_complete, for `cookie` */
	uint64_t cookie;
	uint64_t sent;                 /* messages, when it was BLOCKED last */
	bool hot;
	uint64_t hot_until;
	bool waits; /* a thread waits in a function of the program for this client, which no other thread may touch */
	struct srdma_client *waits_for; /* while a thread waits for this client's connection: whose function it is in */
	atomic_bool kicked;            /* set under slots.mutex, after kick_reason */
	char kick_reason[SRDMA_REASON_MAX + 1];
	const char *kick_limit;        /* as `limit`; also set before `kicked` */
	uint64_t deadline;             /* for the disconnect, or for the program to take a message */
	int status;                    /* why it ends; 0: the peer, or a stop of the server, ends it */
	char reason[SRDMA_REASON_MAX + 1]; /* for the peer; "": none */
};

/* acceptor.c */
#define SRDMA_LISTENERS_MAX 64U
/* The listener thread; its argument is the server. */
void *srdma_acceptor_main(void *arg);
/* Wakes the listener thread, because a set-up or, during a drain, a client has ended. */
void srdma_server_nudge(struct srdma_server *server);

/* admission.c */
/* Notes the client's address, which the log, the limits and the evictions use, once its balancer has reported it; else NULL. */
void srdma_admission_note_address(struct srdma_client *client, const struct sockaddr *proxied);
/* The client has authenticated, and its HELLO is still to come. A client that will be refused must not hold a place meanwhile. */
void srdma_admission_note_identity(struct srdma_client *client);
/* Decides about a client after its HELLO (srdma_accept_admit_fn); `arg`: the client. */
int srdma_admission_decide(struct srdma_conn *conn, struct srdma_reject *reject, void *arg);
/* Frees the client's place among the authenticated clients in set-up; it gets no other. */
void srdma_admission_turn_away(struct srdma_client *client);

/* clients.c */
void srdma_clients_append(struct srdma_client_list *list, struct srdma_client *client);
void srdma_clients_remove(struct srdma_client_list *list, struct srdma_client *client);
/* Adds a client to those on their way; the caller then wakes the thread. */
void srdma_arrivals_add(srdma_arrivals *arrivals, struct srdma_client *client);
/* Takes all of them: the first in the order of arrival, and from there by `next`. NULL: there are none. */
struct srdma_client *srdma_arrivals_take(srdma_arrivals *arrivals);

/* operate.c */
/* Kicks a connected client if the limits do not admit its name any more. slots.mutex is held. */
void srdma_server_recheck(struct srdma_client *client);

/* setup_thread.c */
int srdma_setup_thread_start(struct srdma_setup_thread *thread, struct srdma_server *server);
void srdma_setup_thread_give(struct srdma_setup_thread *thread, struct srdma_client *client);
void srdma_setup_thread_wake(struct srdma_setup_thread *thread);
/* For a stop of the server: waits until the clients in set-up were told or given up, and ends the thread. */
void srdma_setup_thread_stop(struct srdma_setup_thread *thread);

static inline void srdma_client_mark(struct srdma_client *client, enum srdma_mark mark, bool on)
{
	client->worker->marked[mark] += (unsigned)on - (unsigned)client->marks[mark];
	client->marks[mark] = on;
}

/* client.c: for connected clients. Only the client's worker may call these. */
/* Does the work that is due for a client. The call may free the client. */
void srdma_client_run(struct srdma_client *client);
/* Whether srdma_client_run has anything to do for this client. */
bool srdma_client_has_work(const struct srdma_client *client);
/* Takes completions; with `control` also frames of the TLS channel. Hands no message to the program. */
void srdma_client_progress(struct srdma_client *client, bool control);
/* For a client without work: arms it for the next event or, if it has just been busy, polls it for a while. */
void srdma_client_rest(struct srdma_client *client, bool was_busy);
/* The same for a client that is being disconnected, which must hear of its completions. The call may free the client. */
void srdma_client_rest_ending(struct srdma_client *client);
/* The client was woken: the program may now take what it has put off. */
void srdma_client_retry(struct srdma_client *client);
/* Stops polling the client. */
void srdma_client_cool(struct srdma_client *client);
/* Applies an epoll_ctl operation to the client's TLS channel. */
void srdma_client_watch(struct srdma_client *client, int operation);
/* Begins the disconnect. `status` 0: the peer, or a stop of the server, ends it. `reason`: for the peer. */
void srdma_client_end(struct srdma_client *client, int status, const char *reason);
/* Tells the program, counts the end and frees the client. `status`: 0 for an orderly end, else the thread's last error has the
 * details. */
void srdma_client_finish(struct srdma_client *client, int status, bool lost);

/* worker.c */
/* Starts as many workers as options.workers asks for at the start. */
int srdma_workers_start(struct srdma_server *server);
/* Places one more client on the worker with the fewest. -EAGAIN: no thread or descriptor for another worker. */
int srdma_worker_choose(struct srdma_server *server, struct srdma_worker **out);
/* Frees the place of a client that does not come, or has gone. */
void srdma_worker_leave(struct srdma_worker *worker);
/* Hands a client to its worker once the connection is up. */
void srdma_worker_give(struct srdma_worker *worker, struct srdma_client *client);
void srdma_worker_wake(struct srdma_worker *worker);
void srdma_workers_wake(struct srdma_server *server);
/* Ends the workers. No client may be left, and none may come. */
void srdma_workers_stop(struct srdma_server *server);

/* The functions of the built-in service. */
void srdma_echo_use(struct srdma_server_options *options);

#endif
