/* SPDX-License-Identifier: Apache-2.0 */
/* A connection: what conn.c (the object), bringup.c (TLS, exchange, queue pair), progress.c (waiting, messages, disconnect),
 * epoch.c (new PSNs), rdma.c and sealed_rdma.c (RDMA write and read, plain and sealed) share. */
#ifndef SRDMA_CONN_H
#define SRDMA_CONN_H

#include "sealed_rdma.h"
#include "stream.h"
#include "control.h"
#include "epoch.h"
#include "net.h"
#include "notifier.h"
#include "rate.h"
#include "region.h"

#include <stdatomic.h>

/* Where the orderly disconnect stands. Each flag is set once. */
struct srdma_closing {
	bool requested;        /* we sent DISCONNECT */
	bool acknowledged;     /* the peer sent DISCONNECT_ACK */
	bool peer_requested;   /* the peer sent DISCONNECT */
	bool peer_answered;    /* we sent DISCONNECT_ACK */
	bool finished;         /* FINISH was sent or came, or the channel closed after the answers */
	uint64_t peer_total;   /* messages that the peer says it sent */
	uint64_t peer_close_deadline; /* for the peer to close, after our FINISH */
};

/* Options that are complete: those of a connection, and those of its queue pair that they point to. */
struct srdma_conn_settings {
	struct srdma_conn_options options;
	struct srdma_qp_options qp;
};

struct srdma_conn {
	struct srdma_device *device;
	struct srdma_tls *tls;
	struct srdma_conn_options options; /* its qp points to: */
	struct srdma_qp_options qp_options;
	struct srdma_networks networks; /* options.gid_networks */
	struct sockaddr_storage peer_address;  /* of the TCP connection, or as the balancer before it said */
	struct sockaddr_storage proxy_address; /* that balancer's; ss_family AF_UNSPEC: there is none */

	struct ibv_pd *pd;
	struct srdma_notifier *notifier; /* a server's worker's, whose stream comp then is; NULL: comp is its own */
	struct srdma_conn *next_noted;   /* in the notifier's list, while `noted` */
	void *owner;                     /* the worker's client */
	struct ibv_comp_channel *comp;
	struct ibv_cq *send_cq, *recv_cq;
	unsigned unacked_send, unacked_recv; /* CQ events taken, to be acknowledged before the CQ goes */
	struct srdma_qp qp;
	struct srdma_region region;   /* offered to the peer */
	struct srdma_stream stream; /* zeroed when raw */
	struct srdma_sealed_rdma sealed_rdma;       /* zeroed unless sealed */
	struct srdma_buffer *buffers; /* of the program's, in a list */
	struct srdma_epoch epoch;
	struct srdma_rate rate;       /* of what is taken from the peer */
	bool sealed;
	bool region_withdrawn;        /* the peer's was */
	enum srdma_cipher cipher;     /* while sealed */
	unsigned rounds;              /* of progress, since the TLS channel was last looked at */
	uint32_t waited_length;       /* of the write or read that is to be posted */
	struct srdma_hello own, peer; /* as exchanged */
	uint8_t gid_index;
	enum ibv_mtu mtu; /* agreed */
	uint64_t client_id;
	struct srdma_peer_names names; /* of the peer */
	struct srdma_conn_timing timing;

	struct srdma_inbox inbox;
	struct srdma_outbox outbox;
	bool control_more;   /* the TLS channel may have more to say, though its descriptor need not say so */
	short control_watch; /* what epoll_fd waits for at the TLS channel */
	uint64_t control_deadline; /* for the peer to read what it was sent; 0: it has */
	int epoll_fd; /* comp, tls, wake; -1 with a notifier */
	int wake_fd;  /* -1 with a notifier */
	uint64_t waited_before; /* stream.waited_done when the running blocking write or read was posted */
	bool armed;   /* both CQs will raise an event */
	bool noted;
	bool woken;
	bool shared_wake; /* wake_fd is also somebody else's */
	atomic_bool wake_requested;
	atomic_int device_event;    /* IBV_EVENT_* that ends the connection, and 1 more; 0: none */
	atomic_bool cancelled; /* another thread wants every wait to end */

	struct srdma_closing closing;
	char close_reason[SRDMA_REASON_MAX + 32];
	int status; /* 0 while up; else why it is over */
	char status_text[512];
};

/* conn.c */
/* Takes a program's options; gid_networks stays the program's. Errors: -EINVAL. */
int srdma_conn_settings_take(const struct srdma_conn_options *options, struct srdma_conn_settings *out);
/* Both functions: of options that are complete. */
int srdma_conn_options_check(const struct srdma_conn_options *options);
/* An empty connection that owns nothing yet but its references. */
int srdma_conn_new(struct srdma_device *device, const struct srdma_conn_options *options, struct srdma_conn **out);

/* The counters of srdma_conn_info alone; any thread may ask while the connection lives. */
void srdma_conn_read_counters(const struct srdma_conn *conn, struct srdma_conn_info *info);
/* Frees everything on the device; the TLS channel stays open until srdma_conn_free, so that its closing tells the peer
 * that all is gone. */
void srdma_conn_release_verbs(struct srdma_conn *conn);

/* Logs a security event of this connection, in securdma-serve(1): the thread's last error, and what comes of it. */
void srdma_conn_log_security(const struct srdma_conn *conn, const char *event, const char *consequence);

/* progress.c */
/* Sets up the descriptors to wait on; TLS and completion channel exist. */
int srdma_conn_prepare_waiting(struct srdma_conn *conn);
/* srdma_conn_wake, and a write to `fd`, an eventfd that stays the caller's, now wake the connection. */
int srdma_conn_share_wake(struct srdma_conn *conn, int fd);
/* Ends the connection with an error whose text is the thread's last one. Returns `error`. */
int srdma_conn_end(struct srdma_conn *conn, int error);
/* The connection's error again, or SRDMA_ECLOSED when the peer has disconnected; 0 while it is up. */
int srdma_conn_check(struct srdma_conn *conn);
/* An answer to a DISCONNECT is out or in: nothing is owed any more, and the peer may be gone at any time. */
bool srdma_conn_has_parted(const struct srdma_conn *conn);
/* What can be done now, without waiting: completions; with `control` also frames of the TLS channel. */
void srdma_conn_progress(struct srdma_conn *conn, bool control);
/* The part of it that prepares posted work for sending. It looks at the device only in between. */
void srdma_conn_push(struct srdma_conn *conn);
/* Nothing is left to do: both completion queues will raise an event. What came meanwhile raises none: look again. */
void srdma_conn_arm(struct srdma_conn *conn);
/* What poll(2) is to wait for at the TLS channel. 0: nothing any more; its descriptor may be readable for ever. */
short srdma_conn_control_events(const struct srdma_conn *conn);
/* Whether the peer still has to read frames, before a deadline. */
bool srdma_conn_control_is_stalled(const struct srdma_conn *conn);
/* The next event of a channel, taken; its connection. NULL: there is none. */
struct srdma_conn *srdma_conn_take_cq_event(struct ibv_comp_channel *channel);
/* A disconnect as far as it goes without waiting: 0 over, as srdma_conn_disconnect says; -EAGAIN: call again when something
 * has happened. `reason`: NULL or for the peer. */
int srdma_conn_disconnect_step(struct srdma_conn *conn, const char *reason);
/* How long a call may wait in all, whatever it waits for one after the other. */
struct srdma_patience {
	int ms;            /* 0: not at all */
	uint64_t deadline; /* 0: it has not had to wait yet */
};
/* Of a call with this timeout_ms. */
struct srdma_patience srdma_conn_patience(const struct srdma_conn *conn, int timeout_ms);
/* Waits until `ready` says so: 0, -EAGAIN, -ETIMEDOUT, -ECANCELED, or the connection's error. `what`, for the error: "a message"; static. */
int srdma_conn_wait_until(struct srdma_conn *conn, bool (*ready)(const struct srdma_conn *conn), const char *what,
			  struct srdma_patience *patience);
/* The device reported an error of the connection's queues: its own thread ends it. Thread-safe, while the connection lives. */
void srdma_conn_fail_later(struct srdma_conn *conn, enum ibv_event_type event);
/* Makes the running and all later waits end with -ECANCELED. Thread-safe, while the connection lives. */
void srdma_conn_cancel(struct srdma_conn *conn);
/* The oldest message that is not consumed, without waiting: 1, 0: there is none, or the error that has ended the connection. */
int srdma_conn_peek(struct srdma_conn *conn, const void **data, uint32_t *length);
/* Whether a message may be posted now. */
bool srdma_conn_can_send(const struct srdma_conn *conn);
/* srdma_conn_wake without its mark: the connection only does work that is due. Thread-safe, async-signal-safe. */
void srdma_conn_nudge(struct srdma_conn *conn);

/* rdma.c */
/* No device knows the memory of the program's buffers any more, and they no connection; they stay to be deleted. */
void srdma_conn_let_buffers_go(struct srdma_conn *conn);

/* bringup.c */
/* INIT to RTS, by `own` and `peer`, with a window for the region. */
int srdma_conn_connect_queue_pair(struct srdma_conn *conn);

#endif
