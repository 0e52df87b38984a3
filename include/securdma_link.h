/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A client that connects again after a loss, to the same server or to another one.
 */
#ifndef SECURDMA_LINK_H
#define SECURDMA_LINK_H

#include "securdma.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- connections that come back -------------------------------------------------------------------------------- */

/* -- a connecting end that connects again after a loss -- */

/** A connecting end that outlives its connections. After a loss it connects again, to the same server or to another one, by
 *  the policy of its options, with a new TLS session, new PSNs, new keys and a new queue pair.
 *
 *  No message is delivered twice, because the link never sends one again by itself. It numbers the messages, tells which ones
 *  the peer's program has taken, and leaves it to its own program what to do about the others.
 *
 *  One thread at a time uses a link; only srdma_link_wake() is thread-safe. */
struct srdma_link;

/** A server to connect to. */
struct srdma_endpoint {
	size_t size;      /**< set by srdma_endpoint_init() */
	const char *host; /**< name or address */
	const char *port; /**< number or service; NULL: SRDMA_DEFAULT_PORT */
};
/** Fills `endpoint` with the defaults: NULL. Thread-safe. */
SRDMA_API void srdma_endpoint_init_sized(struct srdma_endpoint *endpoint, size_t size);
SRDMA_INLINE void srdma_endpoint_init(struct srdma_endpoint *endpoint)
{
	srdma_endpoint_init_sized(endpoint, sizeof *endpoint);
}

/** Options of a link. */
struct srdma_link_options {
	size_t size;                           /**< set by srdma_link_options_init() */
	const struct srdma_conn_options *conn; /**< of each connection, not raw; NULL: the defaults. Copied */
	const struct srdma_endpoint *endpoints; /**< tried one after the other, starting with the one that was connected last. Copied */
	size_t endpoint_count;
	int connect_ms;   /**< how long to go on trying for the first connection; default 0: each endpoint once */
	int reconnect_ms; /**< how long to go on trying after a loss; 0: a loss is final; default 60000 */
	int pause_min_ms; /**< between rounds of all endpoints. Each pause is twice as long as the one before, times a random
			       factor between a half and one and a half, so that clients that were lost together do not all
			       return at the same moment. The first pause is a random part of this. Default 100 */
	int pause_max_ms; /**< the longest pause. A connection that was shorter than this and carried nothing does not reset the
			       pauses. Default 5000 */
};
/** Fills `options` with the defaults. Thread-safe. */
SRDMA_API void srdma_link_options_init_sized(struct srdma_link_options *options, size_t size);
SRDMA_INLINE void srdma_link_options_init(struct srdma_link_options *options)
{
	srdma_link_options_init_sized(options, sizeof *options);
}

/** Connects. The link takes references of its own to `context` and `device`. It does not try again after an error that a
 *  later try cannot fix: a certificate, settings, or a REJECT that is final.
 *  Errors:
 *    -EINVAL        There is no endpoint, an endpoint has no host, the connection would be raw or have named_regions, a time is out of range, or options
 *                   are not initialised.
 *    -EINTR         Another thread called srdma_link_wake().
 *    -ECONNREFUSED  Nothing listens at the last endpoint that was tried. Other errors are those of srdma_conn_connect() for
 *                   that endpoint. */
SRDMA_API int srdma_link_connect(const struct srdma_link_options *options, struct srdma_tls_context *context,
			     struct srdma_device *device, struct srdma_link **out);

/** Ends the connection in order, as srdma_conn_disconnect() does, and returns 0 when there is none. After this, only
 *  srdma_link_free() is useful. With timeout_ms 0, call it again after -EAGAIN.
 *  Errors: those of srdma_conn_disconnect(). */
SRDMA_API int srdma_link_disconnect(struct srdma_link *link, const char *reason, int timeout_ms);

/** Frees the link, its connection and the messages that were not received. If the link was not disconnected, the peer is not
 *  told. */
SRDMA_API void srdma_link_free(struct srdma_link **link);

/* -- a link whose calls never wait -- */

/** Makes a link that has no connection yet, and returns at once. Any call on the link then makes the connection, as far as it can
 *  without waiting when its timeout_ms is 0: srdma_link_step(), for a program that has nothing to send or to receive now.
 *  Errors:
 *    -EINVAL   As of srdma_link_connect().
 *    -EMFILE   The process has no descriptor left.
 *    -ENOMEM   Memory ran out. */
SRDMA_API int srdma_link_connect_start(const struct srdma_link_options *options, struct srdma_tls_context *context,
				       struct srdma_device *device, struct srdma_link **out);
/** Returns a descriptor for poll(2), select(2) or epoll(7), the same one for the link's life, whatever becomes of its connections. After
 *  a call on the link has returned -EAGAIN, it is readable when that call is worth repeating, and so at first. Pauses between two
 *  tries end by it, too: the program needs no timer. Owned by the link. */
SRDMA_API int srdma_link_fd(const struct srdma_link *link);
/** Connects, and after a loss connects again, by the policy of the options, as far as it goes without waiting.
 *  Returns: 0 when the connection is up; or a negative error. After -EAGAIN call it again when srdma_link_fd() is readable. After
 *  another error, the next call begins anew.
 *  Errors:
 *    -EAGAIN              The connection is on its way.
 *    SRDMA_ERECONNECTED   There is a new connection; later calls return 0.
 *    SRDMA_ECLOSED        The link was disconnected.
 *    -EINTR               Another thread called srdma_link_wake(). Other errors are those of srdma_link_connect() when the time of the
 *                         policy is over or no later try can fix it, and those that ended the connection, with reconnect_ms 0. */
SRDMA_API int srdma_link_step(struct srdma_link *link);
/** Begins what srdma_link_disconnect() does, and returns at once; it ends a try to connect, too.
 *  Errors:
 *    -EINVAL   timeout_ms is 0. */
SRDMA_API int srdma_link_disconnect_start(struct srdma_link *link, const char *reason, int timeout_ms);
/** Goes as far as it can without waiting. After -EAGAIN call it again when srdma_link_fd() is readable.
 *  Returns: 0 when the connection has ended in order, or there is none; or a negative error.
 *  Errors:
 *    -EINVAL   There was no srdma_link_disconnect_start(). Other errors are those of srdma_conn_disconnect_step(). */
SRDMA_API int srdma_link_disconnect_step(struct srdma_link *link);

/* -- send and receive over a link -- */

/** Sends a message as srdma_conn_send() does. `*number` (`number` may be NULL) becomes the message's number: 1 for the link's
 *  first message, one more for each, over all its connections.
 *
 *  After a loss the call connects again. It returns the error when the time of the policy is over or no later try can fix it; the
 *  next call tries again. With timeout_ms 0 the call never waits: it returns -EAGAIN until there is a new connection.
 *  Errors:
 *    SRDMA_ERECONNECTED   The connection was lost before; there is a new one, and this message was not sent.
 *    -EINTR               Another thread called srdma_link_wake(). Other errors are those of srdma_conn_send(). */
SRDMA_API int srdma_link_send(struct srdma_link *link, const void *data, size_t length, int timeout_ms, uint64_t *number);

/** Receives a message as srdma_conn_recv() does. Messages that had come over a connection that was lost are delivered first;
 *  then it returns SRDMA_ERECONNECTED once, unless another call has returned it already.
 *  Errors: those of srdma_link_send() and srdma_conn_recv(). */
SRDMA_API int srdma_link_recv(struct srdma_link *link, void *buffer, size_t size, size_t *length, int timeout_ms);

/** Waits as srdma_conn_wait() does.
 *  Errors: those of srdma_link_send() and srdma_conn_wait(). */
SRDMA_API int srdma_link_wait(struct srdma_link *link, int timeout_ms);

/** Ends the wait of srdma_link_wait(), or of any call for a new connection, in another thread. Thread-safe;
 *  async-signal-safe. */
SRDMA_API void srdma_link_wake(struct srdma_link *link);

/** Makes a new connection when a call on srdma_link_conn() has ended the old one. srdma_link_step() does it without waiting.
 *  Returns: 0 when the connection is up; SRDMA_ERECONNECTED when there is a new one; or the error of the last try.
 *  Errors: those of srdma_link_step(). */
SRDMA_API int srdma_link_reconnect(struct srdma_link *link);

/** Returns the present connection, for srdma_conn_get_info(), for poll(2), and for RDMA writes and reads; NULL when there is none.
 *  The region of a new connection is new, and zeroed. The link owns the connection, which is gone after any call that returns
 *  SRDMA_ERECONNECTED: then its buffers can only be freed. */
SRDMA_API struct srdma_conn *srdma_link_conn(struct srdma_link *link);

/* -- what a loss means for the messages of a link -- */

/** The last loss. */
struct srdma_link_loss {
	size_t size;           /**< how much of it the library filled; see SRDMA_HAS_FIELD() */
	int error;             /**< what ended the connection: SRDMA_ELOST, SRDMA_ECLOSED (the server disconnected), or another */
	char text[512];        /**< the same as a sentence */
	uint64_t acknowledged; /**< the peer's program has taken the messages up to this number, except those that were in doubt at
				    earlier losses */
	uint64_t sent;         /**< number of the last message sent. Those after `acknowledged` are in doubt: nobody knows whether
				    the peer's program has taken them */
	size_t kept;           /**< messages that came over the old connection and are not yet received: they come first */
	unsigned attempts;     /**< connections tried since; 0: none yet */
	uint64_t down_us;      /**< microseconds from noticing the loss to the new connection */
};
/** Fills `loss`; with zeros when there was no loss. */
SRDMA_API void srdma_link_get_loss_sized(const struct srdma_link *link, struct srdma_link_loss *loss, size_t size);
SRDMA_INLINE void srdma_link_get_loss(const struct srdma_link *link, struct srdma_link_loss *loss)
{
	srdma_link_get_loss_sized(link, loss, sizeof *loss);
}

/** What a link has done so far. */
struct srdma_link_info {
	size_t size;           /**< how much of it the library filled; see SRDMA_HAS_FIELD() */
	unsigned connections;  /**< made so far; while connected, the number of losses is one less */
	bool connected;
	uint64_t sent;         /**< number of the last message sent */
	uint64_t acknowledged; /**< the peer's program has taken the messages up to this number, except those in doubt */
	uint64_t in_doubt;     /**< messages in doubt at all losses together */
	const char *host, *port; /**< endpoint of the last connection; valid as long as the link */
};
/** Fills `info`. */
SRDMA_API void srdma_link_get_info_sized(const struct srdma_link *link, struct srdma_link_info *info, size_t size);
SRDMA_INLINE void srdma_link_get_info(const struct srdma_link *link, struct srdma_link_info *info)
{
	srdma_link_get_info_sized(link, info, sizeof *info);
}

#ifdef __cplusplus
}
#endif
#endif
