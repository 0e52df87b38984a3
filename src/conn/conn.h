/* SPDX-License-Identifier: Apache-2.0 */
/* A connection, and the functions that the files of this folder share; each file has its section below. */
#ifndef SRDMA_CONN_H
#define SRDMA_CONN_H

#include "sealed_rdma.h"
#include "queues.h"
#include "yield.h"
#include "control.h"
#include "control_queue.h"
#include "epoch.h"
#include "net.h"
#include "notifier.h"
#include "rate.h"
#include "regions.h"
#include "region.h"
#include "watch.h"

#include <stdatomic.h>

/* The progress of the orderly disconnect. Each flag is set once and never cleared. */
struct srdma_closing {
	bool requested;        /* we sent DISCONNECT */
	bool acknowledged;     /* the peer sent DISCONNECT_ACK */
	bool peer_requested;   /* the peer sent DISCONNECT */
	bool peer_answered;    /* we sent DISCONNECT_ACK */
	bool finished;         /* FINISH was sent or came, or the channel closed after the answers */
	uint64_t peer_total;   /* number of messages that the peer reports as sent */
	uint64_t peer_close_deadline; /* for the peer to close, after our FINISH */
};

/* Complete options of a connection, with the queue pair options and the private data that they point to. */
struct srdma_conn_settings {
	struct srdma_conn_options options;
	struct srdma_qp_options qp;
	uint8_t private_data[SRDMA_PRIVATE_DATA_MAX];
};

/* The private data of one end. */
struct srdma_private_data {
	size_t size;
	uint8_t bytes[SRDMA_PRIVATE_DATA_MAX];
};

struct srdma_conn {
	struct srdma_device *device;
	struct srdma_tls *tls;
	struct srdma_conn_options options; /* its qp points to: */
	struct srdma_qp_options qp_options;
	struct srdma_networks networks; /* options.gid_networks */
	struct sockaddr_storage peer_address;  /* of the TCP connection, or as reported by the balancer */
	struct sockaddr_storage proxy_address; /* the balancer's; ss_family AF_UNSPEC: there is no balancer */

	struct ibv_pd *pd;
	struct srdma_notifier *notifier; /* a worker's: `comp` is then its completion channel; NULL: `comp` is the connection's own */
	struct srdma_conn *next_noted;   /* in the notifier's list, while `noted` */
	void *owner;                     /* the worker's client */
	struct ibv_comp_channel *comp;
	struct ibv_cq *send_cq, *recv_cq;
	unsigned unacked_send, unacked_recv; /* CQ events taken, to be acknowledged before the CQ goes */
	struct srdma_qp qp;
	struct srdma_region region;   /* offered to the peer */
	struct srdma_queues queues; /* zeroed when raw */
	struct srdma_sealed_rdma sealed_rdma;       /* zeroed unless sealed */
	struct srdma_buffer *buffers; /* the program's, in a list */
	struct srdma_lease *leases;   /* of memory of the program's, in a list */
	struct srdma_regions *regions; /* NULL: the ends did not agree on regions with names */
	atomic_bool memory_due;       /* the program has released memory that has a lease */
	struct srdma_seal_pool *seal_pool; /* the server's, or the process's; NULL: none */
	bool shares_seal_pool;             /* the process's: srdma_seal_pool_leave */
	struct srdma_epoch epoch;
	struct srdma_rate rate;       /* limits the bytes taken from the peer */
	bool sealed;
	bool region_withdrawn;        /* the peer withdrew its region */
	enum srdma_cipher cipher;     /* while sealed */
	unsigned rounds;              /* calls of progress; only some of them look at the TLS channel */
	uint32_t waited_length;       /* of the write or read that is to be posted */
	uint32_t waited_jobs;         /* sealed: how many it takes; of srdma_conn_post */
	bool waits_for_credit;        /* likewise */
	struct srdma_hello own, peer; /* as exchanged */
	struct srdma_private_data *own_data, *peer_data; /* NULL: none */
	struct srdma_control_queue *control; /* NULL: no control messages */
	struct srdma_stream *stream;         /* the program's (src/stream); NULL: none */
	void (*stream_let_go)(struct srdma_stream *stream); /* the connection is about to be freed */
	bool had_stream;
	uint8_t gid_index;
	enum ibv_mtu mtu; /* agreed */
	uint64_t client_id;
	struct srdma_peer_names names; /* of the peer */
	struct srdma_conn_timing timing;

	struct srdma_inbox inbox;
	struct srdma_outbox outbox;
	bool control_more;   /* OpenSSL may hold more frames, which its descriptor does not announce */
	short control_watch; /* the events of the TLS channel that `watch` waits for */
	uint64_t control_deadline; /* for the peer to read the frames sent to it; 0: it has read them */
	struct srdma_watch watch; /* comp, tls, wake, and what is due by the clock; not with a notifier */
	int wake_fd;  /* -1 with a notifier */
	uint64_t waited_before; /* queues.waited_done when the running blocking write or read was posted */
	bool (*declined)(const struct srdma_conn *conn); /* what the last call that returned -EAGAIN would have to wait for */
	struct srdma_yield yield; /* of the waits that poll */
	bool armed;   /* both CQs will raise an event */
	bool noted;
	bool woken;
	uint64_t waited_us; /* with a notifier: by the running function of the program, so far */
	int wait_fd;     /* wake.h: ends that wait while other threads take the events; -1: there is none */
	atomic_bool *shared_request; /* wake_fd is a duplicate of another object's, which has this flag; NULL: it is not */
	atomic_bool wake_requested;
	atomic_int device_event;    /* IBV_EVENT_* that ends the connection, and 1 more; 0: none */
	atomic_bool cancelled; /* another thread wants every wait to end */

	struct srdma_closing closing;
	uint64_t leave_deadline; /* of srdma_conn_disconnect_start; 0: it was not called */
	int leave_ms;
	char leave_reason[SRDMA_REASON_MAX + 1];
	char close_reason[SRDMA_REASON_MAX + 32];
	int status; /* 0 while up; else the error that ended it */
	char status_text[512];
};

/* conn.c */
/* Takes a program's options; gid_networks stays the program's. Errors: -EINVAL. */
int srdma_conn_settings_take(const struct srdma_conn_options *options, struct srdma_conn_settings *out);
/* Copies complete options with what they point to, but for gid_networks. */
void srdma_conn_settings_copy(const struct srdma_conn_options *options, struct srdma_conn_settings *out);
/* This function and the next take complete options. */
int srdma_conn_options_check(const struct srdma_conn_options *options);
/* Makes a connection that owns nothing yet except its references. */
int srdma_conn_new(struct srdma_device *device, const struct srdma_conn_options *options, struct srdma_conn **out);
/* Makes `*data` a copy of `bytes`. */
int srdma_conn_set_private_data(struct srdma_private_data **data, const void *bytes, size_t size);

/* The counters of srdma_conn_info alone; any thread may ask while the connection lives. */
void srdma_conn_read_counters(const struct srdma_conn *conn, struct srdma_conn_info *info);
/* Frees everything on the device. The TLS channel stays open until srdma_conn_free, so that its close tells the peer that this
 * end has freed everything. */
void srdma_conn_release_verbs(struct srdma_conn *conn);

/* Logs a security event of this connection (securdma-serve(1)): the thread's last error and its consequence. */
/* -EOPNOTSUPP: the two ends did not agree on `what`, because one of them has not set `option`. */
int srdma_conn_fail_unagreed(const struct srdma_conn *conn, uint32_t feature, const char *what, const char *option);
void srdma_conn_log_security(const struct srdma_conn *conn, const char *event, const char *consequence);

/* progress.c */
/* Does the work that needs no waiting: takes completions; with `control` also frames of the TLS channel. */
void srdma_conn_progress(struct srdma_conn *conn, bool control);
/* Takes only the frames of the TLS channel, and does the work that is due by the clock. */
void srdma_conn_progress_control(struct srdma_conn *conn);
/* Takes only the messages that have come: a latency-bound waiter repeats this call. */
void srdma_conn_progress_receives(struct srdma_conn *conn);
/* Takes only completions, and does what is due for the regions that this end offers. */
void srdma_conn_progress_binds(struct srdma_conn *conn);
/* Only sends queued sealed writes and reads, as far as they can be sent now. */
void srdma_conn_push(struct srdma_conn *conn);
int srdma_conn_send_empty(struct srdma_conn *conn, enum srdma_frame_type type);
/* The events of the TLS channel to give to poll(2). 0: do not poll it any more, since its descriptor may stay readable for ever. */
short srdma_conn_control_events(const struct srdma_conn *conn);
/* Whether the peer has not read its TLS channel yet, so that a deadline for reading it runs. */
bool srdma_conn_control_is_stalled(const struct srdma_conn *conn);

/* waiting.c */
/* Sets up the descriptors to wait on; TLS and completion channel exist. */
int srdma_conn_prepare_waiting(struct srdma_conn *conn);
/* From now on a wake-up (wake.h) that is sent to `fd` wakes the connection, too, if `requested` is set before. Both stay the caller's. */
int srdma_conn_share_wake(struct srdma_conn *conn, int fd, atomic_bool *requested);
/* From now on the connection waits for the events of srdma_conn_control_events. */
void srdma_conn_watch_control(struct srdma_conn *conn);
/* Makes both completion queues raise an event. A completion that came before raises none, so the caller must look again. */
void srdma_conn_arm(struct srdma_conn *conn);
/* Takes the next event of a completion channel and returns its connection. NULL: there is none. */
struct srdma_conn *srdma_conn_take_cq_event(struct ibv_comp_channel *channel);
/* The time that a call may wait in all, even when it waits several times. */
struct srdma_patience {
	int ms;            /* 0: not at all */
	uint64_t deadline; /* 0: the call has not waited yet */
};
/* The patience of a call with this timeout_ms. */
struct srdma_patience srdma_conn_patience(const struct srdma_conn *conn, int timeout_ms);
/* Waits until `ready` is true: 0, -EAGAIN, -ETIMEDOUT, -ECANCELED, or the connection's error. The error's text names `what` the
 * call waits for ("a message"), a static string. */
int srdma_conn_wait_until(struct srdma_conn *conn, bool (*ready)(const struct srdma_conn *conn), const char *what,
			  struct srdma_patience *patience);
/* The device has reported an error of the connection's queues; the connection's own thread will end it. Thread-safe while the
 * connection exists. */
void srdma_conn_fail_later(struct srdma_conn *conn, enum ibv_event_type event);
/* Ends the current wait and all later ones with -ECANCELED. Thread-safe while the connection exists. */
void srdma_conn_cancel(struct srdma_conn *conn);
/* Makes the connection's thread check for due work; unlike srdma_conn_wake it ends no wait. Thread-safe, async-signal-safe. */
void srdma_conn_nudge(struct srdma_conn *conn);

/* messages.c */
/* The oldest message that is not consumed. Does not wait. 1; 0: there is none; or the error that has ended the connection. */
int srdma_conn_peek(struct srdma_conn *conn, const void **data, uint32_t *length);
/* What the oldest arrival, a notice, says. Does not wait. 0, or the error that has ended the connection. */
int srdma_conn_peek_notice(struct srdma_conn *conn, struct srdma_notice *notice);

/* close.c */
/* Ends the connection with an error whose text is the thread's last one. Returns `error`. */
int srdma_conn_end(struct srdma_conn *conn, int error);
/* 0 while the connection is up; SRDMA_ECLOSED when either end has disconnected; else the error that ended it, again. */
int srdma_conn_check(struct srdma_conn *conn);
/* Whether either end has sent DISCONNECT_ACK: the ends owe each other nothing more, and the peer may vanish at any time. */
bool srdma_conn_has_parted(const struct srdma_conn *conn);
/* Takes a frame of type DISCONNECT, DISCONNECT_ACK or FINISH, and refuses any other. */
int srdma_conn_take_close_frame(struct srdma_conn *conn);
/* The peer has closed its side of the TLS channel, as `error` says. */
int srdma_conn_take_channel_end(struct srdma_conn *conn, int error);
/* Answers the peer's DISCONNECT once nothing is under way. */
int srdma_conn_answer_disconnect(struct srdma_conn *conn);
/* Takes a disconnect as far as it goes without waiting: 0: it is over, as srdma_conn_disconnect says; -EAGAIN: call again when
 * something has happened. `reason`: for the peer, or NULL. */
int srdma_conn_go_on_leaving(struct srdma_conn *conn, const char *reason);

/* withdraw.c */
/* Takes the peer's WITHDRAW, after which the peer offers no region any more. */
int srdma_conn_take_withdrawal(struct srdma_conn *conn);

/* rdma.c */
/* Whether a write or read of `length` bytes can be posted now. */
bool srdma_conn_can_post(const struct srdma_conn *conn, size_t length);
/* Makes a buffer of memory that is only read, for writes; it need not be writable. */
int srdma_buffer_lend(struct srdma_conn *conn, const void *memory, size_t size, struct srdma_buffer **out);
/* Deregisters the memory of the program's buffers and detaches them from the connection; the program still deletes them. */
void srdma_conn_let_buffers_go(struct srdma_conn *conn);

/* Whether the length of a plain request is one that the device and an epoch take. */
int srdma_conn_check_length(const struct srdma_conn *conn, uint64_t length);

/* setup.c */
/* Takes the queue pair from INIT to RTS by `own` and `peer`, and binds the region's window. */
int srdma_conn_connect_queue_pair(struct srdma_conn *conn);

#endif
