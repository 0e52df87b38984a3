/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A stream of bytes in each direction over a connection, with the semantics of read(2), write(2) and shutdown(2).
 */
#ifndef SECURDMA_STREAM_H
#define SECURDMA_STREAM_H

#include "securdma.h"

#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- streams of bytes ------------------------------------------------------------------------------------------ */

/* -- options of a connection that carries a stream -- */

/** The most bytes that a stream hands to the device in one write. */
#define SRDMA_STREAM_CHUNK 262144
/** The least region, in bytes, that carries a stream. */
#define SRDMA_STREAM_REGION_MIN 4096

/** Fills `options` with defaults for a connection that carries a stream: those of srdma_conn_options_init(), but for a region of 1 MiB
 *  that the peer may only write to, and 32 messages in flight. Thread-safe. */
SRDMA_API void srdma_stream_conn_options_init_sized(struct srdma_conn_options *options, size_t size);
SRDMA_INLINE void srdma_stream_conn_options_init(struct srdma_conn_options *options)
{
	srdma_stream_conn_options_init_sized(options, sizeof *options);
}

/* -- make a stream of a connection -- */

/** A stream of bytes in each direction over a connection, plain or sealed, through renewals of its queue pair. The bytes of an end go
 *  by RDMA writes to a ring in the peer's region, and short pieces in messages; what the peer's program has not read holds the writer up.
 *
 *  Both ends make a stream of their connection before either sends a message on it. From then on the connection's messages, its
 *  posted writes and reads, and the memory of its region are the stream's; control messages stay the program's. A connection has
 *  one stream in its life. To end both in order, read to the end of the peer's stream, shut down and flush the own one, and disconnect.
 *
 *  One thread at a time uses a stream and its connection. After an error that ended the connection, bytes that had come before can
 *  still be read. */
struct srdma_stream;

/** Options of a stream. */
struct srdma_stream_options {
	size_t size;        /**< set by srdma_stream_options_init() */
	size_t buffer_size; /**< bytes of the buffer for what this end writes: srdma_stream_write() copies into it, and
			         srdma_stream_reserve() lends parts of it. 4096 to 1 GiB; default 1 MiB */
};
/** Fills `options` with the defaults. Thread-safe. */
SRDMA_API void srdma_stream_options_init_sized(struct srdma_stream_options *options, size_t size);
SRDMA_INLINE void srdma_stream_options_init(struct srdma_stream_options *options)
{
	srdma_stream_options_init_sized(options, sizeof *options);
}

/** Makes a stream of `conn`, and tells the peer so; it does not wait for the peer. The own region is the ring for what the peer
 *  writes: its size is how much may be under way. With `options` NULL it takes the defaults. In a server, call it in on_connect; the server
 *  then calls on_stream instead of on_message (securdma_server.h).
 *  Errors:
 *    -EINVAL         An option is out of range, or `options` is not initialised.
 *    -EOPNOTSUPP     The connection is raw.
 *    -ENXIO          This end offers no region, a smaller one than SRDMA_STREAM_REGION_MIN, or one that the peer may not write to.
 *    -EBUSY          The connection has, or had, a stream.
 *    -ENOMEM         Memory, or the limit on locked memory, does not suffice.
 *    SRDMA_ECLOSED   The connection was disconnected. Other errors are those that ended the connection.
 *    SRDMA_EVERBS    The device did not register the memory. */
SRDMA_API int srdma_stream_new(struct srdma_conn *conn, const struct srdma_stream_options *options, struct srdma_stream **out);
/** Frees the stream before its connection, or after it. It tells the peer nothing. The connection is good only for control messages and
 *  srdma_conn_disconnect() then; if something that was written is still on its way (srdma_stream_flush()), the connection ends. A server
 *  does not free the streams of its clients: its program does so in on_disconnect, or in on_stream when it is done with the stream. */
SRDMA_API void srdma_stream_free(struct srdma_stream **stream);
/** Returns the connection of the stream; NULL when it was freed. */
SRDMA_API struct srdma_conn *srdma_stream_conn(const struct srdma_stream *stream);

/* -- write and read a stream -- */

/** Writes `length` bytes. `data` may be used again when it returns. It waits while the peer's program has not read what came before.
 *  With timeout_ms 0 it takes what there is room for now. A write of 4 MiB or more that may wait for the connection's timeout_ms or longer goes
 *  to the peer straight from `data`, without a copy, and returns when the peer has it; other writes are copied, and go on their way while
 *  this program and the peer's are in calls of this library.
 *  Returns: how many bytes it took, like write(2): fewer than `length` when the time was over; or a negative error.
 *  Errors:
 *    -ETIMEDOUT, -EAGAIN   The peer's program has not read what came before. When bytes were on their way straight from `data`, -ETIMEDOUT
 *                          ends the connection.
 *    -EPIPE                srdma_stream_shutdown() was called.
 *    -ECONNRESET           The peer aborted the stream, and the text has its reason.
 *    -ECONNABORTED         This end aborted the stream.
 *    -ENXIO                The peer has taken its region back.
 *    SRDMA_EPROTOCOL       The peer has made no stream of its end, or broke a rule. This error and those below end the connection.
 *    SRDMA_ECLOSED         The connection was disconnected.
 *    SRDMA_ELOST           The peer went away. Other errors are those of srdma_conn_send(). */
SRDMA_API ssize_t srdma_stream_write(struct srdma_stream *stream, const void *data, size_t length, int timeout_ms);

/** Reads up to `size` bytes into `buffer`: those that are there, or the first that come.
 *  Returns: how many bytes there were; 0 when the peer has called srdma_stream_shutdown() and everything before was read, or when `size`
 *  is 0; or a negative error. A connection that ends without that is an error, so a stream that was cut short does not look whole.
 *  Errors:
 *    -ETIMEDOUT, -EAGAIN   No byte came.
 *    -ECONNRESET           The peer aborted the stream, and the text has its reason.
 *    -ECONNABORTED         This end aborted the stream.
 *    SRDMA_EPROTOCOL       The peer has made no stream of its end, or broke a rule. This error and those below end the connection.
 *    SRDMA_ECLOSED         The connection was disconnected, and everything that came was read.
 *    SRDMA_ELOST           The peer went away, and everything that came was read. Other errors are those of srdma_conn_recv(). */
SRDMA_API ssize_t srdma_stream_read(struct srdma_stream *stream, void *buffer, size_t size, int timeout_ms);

/* -- write and read a stream without a copy -- */

/** Lends a part of the buffer for what this end writes: `*data` becomes its address. Fill it from the start, then call
 *  srdma_stream_commit(). A second call before that lends the same part. It waits until there are bytes free.
 *  Returns: how many bytes the part has, at least 1; or a negative error.
 *  Errors: those of srdma_stream_write(). */
SRDMA_API ssize_t srdma_stream_reserve(struct srdma_stream *stream, void **data, int timeout_ms);
/** Writes the first `length` bytes of the part that srdma_stream_reserve() has lent. It does not wait.
 *  Errors:
 *    -EINVAL   The part is shorter, or none was lent since the last commit. Other errors are those of srdma_stream_write(), but for
 *              -EAGAIN and -ETIMEDOUT. */
SRDMA_API int srdma_stream_commit(struct srdma_stream *stream, size_t length);

/** Finds the next bytes to read where they are: `*data` becomes their address. They stay there until srdma_stream_consume(). The peer
 *  of a plain connection may change them at any time, also after you have looked: copy before you check. The peer of a sealed connection
 *  that keeps to the protocol does not.
 *  Returns: how many bytes lie together there; there may be more behind them. 0: the end of what the peer writes; or a negative error.
 *  Errors: those of srdma_stream_read(). */
SRDMA_API ssize_t srdma_stream_peek(struct srdma_stream *stream, const void **data, int timeout_ms);
/** Takes the first `length` bytes of those that srdma_stream_peek() found: the peer may write to their place now. It does not wait.
 *  Errors:
 *    -EINVAL   There are not so many. */
SRDMA_API int srdma_stream_consume(struct srdma_stream *stream, size_t length);

/* -- end a stream -- */

/** Says that this end writes no more: the peer reads the end of the stream behind the last byte. It does not wait: the notice goes
 *  behind what is still on its way. Reading goes on. A second call does nothing.
 *  Errors:
 *    -ECONNRESET      The peer aborted the stream.
 *    -ECONNABORTED    This end aborted the stream.
 *    SRDMA_ECLOSED    The connection was disconnected. Other errors are those that ended the connection. */
SRDMA_API int srdma_stream_shutdown(struct srdma_stream *stream);

/** Waits until everything that was written is in the peer's memory, with the notice of srdma_stream_shutdown(). The peer's
 *  program may not have read it yet. Call it before srdma_conn_disconnect() and srdma_conn_free(). In a server, the client's worker sends what
 *  is on its way, between the calls of the program's functions; a timeout_ms of 0 in on_stream only asks: after -EAGAIN, on_stream is
 *  called again when everything is there.
 *  Errors:
 *    -ETIMEDOUT, -EAGAIN   Something is still on its way. Other errors are those of srdma_stream_write(), but for -EPIPE. */
SRDMA_API int srdma_stream_flush(struct srdma_stream *stream, int timeout_ms);

/** Ends the stream in both directions at once: what was not read is lost. The calls of both ends return errors from then on. `reason`
 *  (NULL, or up to 127 bytes) is for the peer's srdma_error_text(). The notice goes on its way when there is room for it;
 *  srdma_stream_flush() waits for that. A second call does nothing.
 *  Errors:
 *    SRDMA_ECLOSED   The connection was disconnected. Other errors are those that ended the connection. */
SRDMA_API int srdma_stream_abort(struct srdma_stream *stream, const char *reason);

/* -- wait for a stream -- */

/** Waits until one of `events` holds: POLLIN, there are bytes to read; POLLOUT, there is room to write. The end of the stream and every
 *  error of the next call count as both. With `events` 0 it waits for an abort or the end of the connection: after the end of the stream, that
 *  is the peer's disconnect.
 *  Returns: those of `events` that hold, so 0 with `events` 0; or a negative error.
 *  Errors:
 *    -EINVAL               `events` has something else than POLLIN and POLLOUT.
 *    -ETIMEDOUT, -EAGAIN   None holds.
 *    -EINTR                Another thread called srdma_conn_wake(). */
SRDMA_API int srdma_stream_wait(struct srdma_stream *stream, short events, int timeout_ms);

/** Returns a descriptor for poll(2), select(2) or epoll(7), owned by the connection: that of srdma_conn_fd(), and -1 in a server. Wait
 *  for POLLIN on it, whatever you want to do. After a call of this header has returned -EAGAIN, it is readable when that call is worth
 *  repeating, and when the library needs to be called, for what is on its way: then call srdma_stream_wait() with timeout_ms 0. */
SRDMA_API int srdma_stream_fd(const struct srdma_stream *stream);

/* -- what has happened on a stream -- */

/** What has happened on a stream so far. */
struct srdma_stream_info {
	size_t size;           /**< how much of it the library filled; see SRDMA_HAS_FIELD() */
	uint64_t written;      /**< bytes that this end's program has written */
	uint64_t sent;         /**< of these, handed to the device or in messages */
	uint64_t acknowledged; /**< of these, the peer's program has read. The peer reports it now and then, and when it has read
				    everything before the end */
	uint64_t arrived;      /**< bytes that have come from the peer */
	uint64_t read;         /**< of these, this end's program has read */
	uint64_t buffer_size;  /**< bytes of the buffer for what this end writes */
	uint64_t ring_size;    /**< bytes of the ring that the peer writes to */
	uint64_t peer_ring_size; /**< bytes of the peer's ring; 0: the peer has not made its stream yet */
	bool shut_down;        /**< srdma_stream_shutdown() was called */
	bool peer_shut_down;   /**< the peer called it; there may be bytes to read before the end */
	bool aborted;          /**< either end has called srdma_stream_abort() */
};
/** Fills `info`. */
SRDMA_API void srdma_stream_get_info_sized(const struct srdma_stream *stream, struct srdma_stream_info *info, size_t size);
SRDMA_INLINE void srdma_stream_get_info(const struct srdma_stream *stream, struct srdma_stream_info *info)
{
	srdma_stream_get_info_sized(stream, info, sizeof *info);
}

#ifdef __cplusplus
}
#endif
#endif
