/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A program's own memory: offered to peers as regions with names, and used for writes, reads and atomic operations without a copy.
 */
#ifndef SECURDMA_MEMORY_H
#define SECURDMA_MEMORY_H

#include "securdma.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- memory ---------------------------------------------------------------------------------------------------- */

/* -- register memory of the program -- */

/** Memory of the program's, for the connections of one device. Thread-safe; reference-counted.
 *
 *  Each connection has a protection domain of its own, and so a registration of its own: it makes one when it first uses the
 *  memory, and keeps it for later uses. From then on the connection has a reference of its own. It gives it back when
 *  it is freed, when the program calls srdma_conn_forget(), or, once the program has released all of its references, as
 *  soon as no request of the connection uses the memory and its thread is in a call of this library.
 *
 *  A sealed connection registers nothing with the device: the library itself reads and writes the memory.
 *
 *  Many connections may offer the same memory. Each has an rkey and rights of its own, and withdrawing it from one takes it from no other. But
 *  all see the same bytes: what one client writes, every client that may read sees at any moment, in part as well, and nothing puts the
 *  accesses of two clients in an order. So offer bytes for writing to one client alone, each client a part of its own (`offset` and `length` of
 *  srdma_conn_offer()), and to many only for reading, or for atomic operations. */
struct srdma_memory;

/** Registers memory of any kind: from malloc(3) or mmap(2), of huge pages, a file, shared with other processes. It must stay mapped,
 *  and a file must keep its length, until the last reference is gone (srdma_memory_on_release()): else the library or the device
 *  fails, or, while sealed, the process gets SIGBUS or SIGSEGV. `access` is the most that anyone may do to it, any of these:
 *   - IBV_ACCESS_LOCAL_WRITE: this end's reads and atomic operations may put their results there;
 *   - IBV_ACCESS_REMOTE_WRITE, IBV_ACCESS_REMOTE_READ, IBV_ACCESS_REMOTE_ATOMIC: srdma_conn_offer() may give a peer this right. Remote
 *     write and atomic include local write.
 *
 *  With 0, or remote read alone, a read-only mapping is enough. The caller has the first reference and releases it with
 *  srdma_memory_unref(). The memory takes a reference of its own to `device`. Thread-safe.
 *  Errors:
 *    -EINVAL   `address` is NULL, `length` is 0 or goes beyond the address space, or `access` has other bits.
 *    -EFAULT   A part of the memory is not mapped, or may not be read, or `access` needs it writable and it is not.
 *    -ENOMEM   Memory ran out. */
SRDMA_API int srdma_memory_register(struct srdma_device *device, void *address, size_t length, unsigned access, struct srdma_memory **out);

/** Registers `length` bytes at `offset` of a dmabuf, such as memory of a GPU (ibv_reg_dmabuf_mr(3)). `fd` stays the caller's. It cannot be
 *  used over sealed connections, because the library itself cannot read it. Otherwise as srdma_memory_register(). Thread-safe.
 *  Errors:
 *    -EINVAL       `length` is 0 or too large, `fd` is not a descriptor, or `access` has other bits.
 *    -EOPNOTSUPP   The device, its driver or the system cannot register a dmabuf. rdma_rxe takes none, uroce those that a process may map.
 *    -EMFILE       The process has no descriptor left.
 *    -ENOMEM       Memory, or the limit on locked memory, does not suffice.
 *    SRDMA_EVERBS  The device did not register it: `fd` is none of a dmabuf, or the bytes go beyond its end. */
SRDMA_API int srdma_memory_register_dmabuf(struct srdma_device *device, int fd, uint64_t offset, size_t length, unsigned access,
					   struct srdma_memory **out);

/** Takes one more reference and returns `memory`. Thread-safe. */
SRDMA_API struct srdma_memory *srdma_memory_ref(struct srdma_memory *memory);
/** Releases a reference of the program's; the last one of all frees the object, and the memory is the program's alone. Thread-safe. */
SRDMA_API void srdma_memory_unref(struct srdma_memory **memory);

/** Is told that nothing uses the memory any more. */
typedef void srdma_release_fn(void *arg);
/** Has `fn` called once, when the last reference is gone: neither the library nor a device, nor a peer, reaches the memory any more, so
 *  it may be unmapped in `fn`. Any thread may call it: the one that released the last reference, and a connection's. It must not use the
 *  connection. One function at a time: a later call replaces the earlier one. Thread-safe. */
SRDMA_API void srdma_memory_on_release(struct srdma_memory *memory, srdma_release_fn *fn, void *arg);

/** Makes the connection let go of the memory: it withdraws all regions that it offers of it, as srdma_conn_withdraw() does, and
 *  deregisters it. After this returns, neither the peer nor this end reaches the memory over this connection. A connection that has
 *  ended lets go of it, too. Returns 0 also when the connection does not use the memory.
 *  Errors:
 *    -EBUSY         A request of this end that uses it is under way: collect its completion first. Or the device is still binding the window of
 *                   a region of it: call again after srdma_conn_wait() or any other call.
 *    SRDMA_EVERBS   The device did not do it. This error ends the connection. */
SRDMA_API int srdma_conn_forget(struct srdma_conn *conn, struct srdma_memory *memory);

/** Tells how a raw connection's own work requests reach the memory: the address and the lkey of its beginning, in the connection's
 *  protection domain. Both are valid until srdma_conn_forget() or srdma_conn_free().
 *  Errors:
 *    -EOPNOTSUPP    The connection is not raw.
 *    -EINVAL        The memory is of another device.
 *    -ENOMEM        Memory, or the limit on locked memory, does not suffice.
 *    SRDMA_EVERBS   The device did not register it. */
SRDMA_API int srdma_conn_local_memory(struct srdma_conn *conn, struct srdma_memory *memory, uint64_t *address, uint32_t *lkey);

/* ---- regions with names ---------------------------------------------------------------------------------------- */

/* -- offer regions of memory to the peer -- */

/** How many regions an end may offer at a time, with those that it has withdrawn while the peer has not confirmed that. */
#define SRDMA_REGIONS_MAX 64
/** Room for the name of a region, with the terminating NUL. */
#define SRDMA_REGION_NAME_SIZE 64

/** Offers `length` bytes at `offset` of the memory to the peer, to write, read and change in the ways of `access`
 *  (IBV_ACCESS_REMOTE_WRITE, _READ, _ATOMIC). Both ends must have set srdma_conn_options.named_regions. `name` has up to 63 characters of
 *  printable ASCII; "" or NULL: the region has no name, and the peer knows it by `*id`. The peer is told over the TLS channel, so it has no
 *  order with messages. Several regions may overlap. Raw connections have regions too.
 *
 *  The peer may change what it may write at any time: copy before you check. Where the device has memory windows of type 2, and the peer's
 *  version of this library knows that they change, the region's rkey works over this connection's queue pair alone, and until its next
 *  renewal. Otherwise, on a raw connection, and where the system gives a window to writable memory alone, it works in the connection's
 *  protection domain, as long as the region is offered. It returns at once: the peer is told when the device has bound the window, after the
 *  requests of this end that are under way.
 *  Errors:
 *    -EOPNOTSUPP     The two ends did not agree on regions with names; the region is for atomic operations, and the connection is sealed
 *                    or the device has none; or the connection is sealed and the memory a dmabuf.
 *    -EINVAL         The name is too long or has other characters, `access` is 0 or has other bits, or the memory is of another
 *                    device.
 *    -ERANGE         The bytes are outside of the memory, or `length` is 0.
 *    -EACCES         The memory was not registered for this access.
 *    -EEXIST         This end offers a region of this name.
 *    -ENOSPC         This end offers SRDMA_REGIONS_MAX, or the peer has not confirmed earlier withdrawals yet.
 *    -ENOMEM         Memory, or the limit on locked memory, does not suffice.
 *    -EFAULT         The memory is not mapped any more, or not for this access.
 *    SRDMA_ECLOSED   The connection was disconnected. Other errors that ended the connection are returned likewise.
 *    SRDMA_EVERBS    The device did not register it. */
SRDMA_API int srdma_conn_offer(struct srdma_conn *conn, struct srdma_memory *memory, uint64_t offset, uint64_t length, unsigned access,
			       const char *name, uint32_t *id);

/** Takes one region back from the peer, at once and for good. After this returns, the peer can no longer access it. The peer is told, and its
 *  later requests fail at its own end with -ENXIO. Those that are under way now end the connection. If the peer was not told of the region yet,
 *  because its window is still being bound, it never is, and the device lets go of the region when that is over.
 *  Errors:
 *    -ENXIO         This end offers no region of this id.
 *    SRDMA_EVERBS   The device did not do it. This error, and every other one, ends the connection. */
SRDMA_API int srdma_conn_withdraw(struct srdma_conn *conn, uint32_t id);

/* -- find the regions that the peer offers -- */

/** A region that the peer offers. */
struct srdma_peer_region {
	size_t size;      /**< how much of it the library filled; see SRDMA_HAS_FIELD() */
	uint32_t id;      /**< the peer's number for it, for srdma_request.region. Not used again while either end knows the region */
	unsigned access;  /**< IBV_ACCESS_REMOTE_WRITE, IBV_ACCESS_REMOTE_READ, IBV_ACCESS_REMOTE_ATOMIC: what this end may do */
	uint64_t length;  /**< bytes */
	uint64_t address; /**< of its beginning, and */
	uint32_t rkey;    /**< for work requests of a raw connection's own. 0 while sealed. On other connections each renewal may change it, so do not
			       keep it: srdma_conn_post() takes the `id`, and always uses the present one */
	char name[SRDMA_REGION_NAME_SIZE]; /**< "": it has none */
};

/** Finds a region by its name. It waits until the peer offers one.
 *  Errors:
 *    -ETIMEDOUT, -EAGAIN   The peer offers none of this name (-EAGAIN with timeout_ms 0).
 *    -EINVAL               The name is NULL, empty or too long.
 *    -EOPNOTSUPP           The two ends did not agree on regions with names.
 *    SRDMA_ECLOSED         The connection was disconnected. Other errors that ended the connection are returned likewise. */
SRDMA_API int srdma_conn_find_region_sized(struct srdma_conn *conn, const char *name, int timeout_ms, struct srdma_peer_region *region, size_t size);
SRDMA_INLINE int srdma_conn_find_region(struct srdma_conn *conn, const char *name, int timeout_ms, struct srdma_peer_region *region)
{
	return srdma_conn_find_region_sized(conn, name, timeout_ms, region, sizeof *region);
}

/** Fills `region` with the facts of the region of this id. It never waits.
 *  Errors:
 *    -ENXIO   The peer offers none of this id, or has withdrawn it. */
SRDMA_API int srdma_conn_get_region_sized(struct srdma_conn *conn, uint32_t id, struct srdma_peer_region *region, size_t size);
SRDMA_INLINE int srdma_conn_get_region(struct srdma_conn *conn, uint32_t id, struct srdma_peer_region *region)
{
	return srdma_conn_get_region_sized(conn, id, region, sizeof *region);
}

/** Lists the regions that the peer offers: fills `region` with the one at `index`, from 0, in the order in which they were
 *  offered. It never waits.
 *  Errors:
 *    -ENOENT   There are not so many. */
SRDMA_API int srdma_conn_region_at_sized(struct srdma_conn *conn, size_t index, struct srdma_peer_region *region, size_t size);
SRDMA_INLINE int srdma_conn_region_at(struct srdma_conn *conn, size_t index, struct srdma_peer_region *region)
{
	return srdma_conn_region_at_sized(conn, index, region, sizeof *region);
}

/** Waits until the peer has offered or withdrawn regions since `*changes` was written: the number of offers and withdrawals so far.
 *  Begin with 0. A server's handler is called instead: srdma_server_options.on_regions.
 *  Errors:
 *    -ETIMEDOUT, -EAGAIN   Nothing has changed (-EAGAIN with timeout_ms 0).
 *    -EOPNOTSUPP           The two ends did not agree on regions with names.
 *    SRDMA_ECLOSED         The connection was disconnected. Other errors that ended the connection are returned likewise. */
SRDMA_API int srdma_conn_wait_regions(struct srdma_conn *conn, uint64_t *changes, int timeout_ms);

/* ---- requests -------------------------------------------------------------------------------------------------- */

/* -- post writes, reads and atomic operations -- */

/** The most pieces of one request; a device may take fewer. */
#define SRDMA_PIECES_MAX 16

/** What a request does. */
enum srdma_request_kind {
	SRDMA_REQUEST_WRITE,        /**< writes the pieces, one after the other, to the region */
	SRDMA_REQUEST_READ,         /**< reads from the region into the pieces, one after the other */
	SRDMA_REQUEST_WRITE_NOTIFY, /**< a write, and then a notice for the peer's program: srdma_conn_recv_notice(). It needs a credit, as
				         a message does. RDMA write with immediate */
	SRDMA_REQUEST_FETCH_ADD,    /**< adds `operand` to 8 bytes of the region, and puts what they were before into the piece */
	SRDMA_REQUEST_COMPARE_SWAP, /**< replaces 8 bytes of the region by `operand` if they are equal to `compare`, and puts what they
				         were before into the piece */
};

/** A piece of memory that a request writes from or reads into. */
struct srdma_piece {
	size_t size;                 /**< set by srdma_piece_init() */
	struct srdma_memory *memory;
	uint64_t offset;             /**< in the memory */
	uint64_t length;             /**< bytes */
};
/** Fills `piece` with NULL and zeros. Thread-safe. */
SRDMA_API void srdma_piece_init_sized(struct srdma_piece *piece, size_t size);
SRDMA_INLINE void srdma_piece_init(struct srdma_piece *piece)
{
	srdma_piece_init_sized(piece, sizeof *piece);
}

/** One request. */
struct srdma_request {
	size_t size;                      /**< set by srdma_request_init() */
	enum srdma_request_kind kind;     /**< default SRDMA_REQUEST_WRITE */
	uint32_t region;                  /**< id of the peer's region; default 0: the one without a name, of srdma_conn_options.region_size */
	uint64_t offset;                  /**< in the region */
	const struct srdma_piece *pieces; /**< the memory of this end; copied */
	size_t piece_count;               /**< 0: no bytes. At most SRDMA_PIECES_MAX, and exactly 1, of 8 bytes, for an atomic operation */
	uint64_t cookie;                  /**< its completion has it */
	uint32_t notice;                  /**< SRDMA_REQUEST_WRITE_NOTIFY: a number of the program's for the peer's */
	uint64_t operand, compare;        /**< of an atomic operation, in the byte order of the peer's machine, as are the 8 bytes that come back */
};
/** Fills `request` with the defaults: a write of no bytes. Thread-safe. */
SRDMA_API void srdma_request_init_sized(struct srdma_request *request, size_t size);
SRDMA_INLINE void srdma_request_init(struct srdma_request *request)
{
	srdma_request_init_sized(request, sizeof *request);
}

/** Posts a request and returns at once. The device works straight from and into the memory; over a sealed connection the bytes
 *  pass through the cipher once. The request ends with one completion, in the order of posting, together with those of
 *  srdma_conn_post_write() and srdma_conn_post_read(): srdma_conn_complete(), or srdma_server_options.on_complete. Until then do not
 *  change (write) or use (others) the bytes. When the connection ends there is no completion: call srdma_conn_forget() before you use the
 *  memory for something else. A sealed write or read of several pieces counts as so many for rdma_depth.
 *
 *  A queue pair that fails is replaced, and a write that was under way may be executed twice, with the same bytes. An atomic operation is
 *  never repeated: if it was under way when the queue pair failed, nobody knows whether it was executed, and the connection ends with
 *  SRDMA_EVERBS. A planned renewal waits for it instead.
 *  Errors:
 *    -EINVAL         The kind is unknown; the pieces are missing or too few; a piece or the request was not initialised; a memory is of
 *                    another device; or an atomic operation has not one piece of 8 bytes, or its place is not aligned to 8 bytes.
 *    -E2BIG          There are more pieces than SRDMA_PIECES_MAX, than the device takes, or, while sealed, than rdma_depth.
 *    -EOPNOTSUPP     The two ends did not agree on regions with names; the connection is raw; or it is sealed, or the device has no atomic
 *                    operations, and this is one; or it is sealed and a memory is a dmabuf.
 *    -ENXIO          The peer offers no such region, or has withdrawn it.
 *    -ERANGE         The bytes are outside of a memory or of the region.
 *    -EACCES         The region does not allow this, or a read or atomic operation is to put its result into memory without local write.
 *    -EMSGSIZE       The device, or an epoch, does not take so many bytes in one request. The errors above are found before anything is posted.
 *    -EAGAIN         rdma_depth requests are in flight, the queue pair is being renewed, or there is no credit for a notice.
 *    -ENOMEM         Memory, or the limit on locked memory, does not suffice.
 *    SRDMA_ECLOSED   The connection was disconnected.
 *    SRDMA_EVERBS    The device failed. This error, and the others of srdma_conn_send(), end the connection. */
SRDMA_API int srdma_conn_post(struct srdma_conn *conn, const struct srdma_request *request);

/* -- take the notices of the peer's writes -- */

/** The peer has written, and says so. */
struct srdma_notice {
	size_t size;     /**< how much of it the library filled; see SRDMA_HAS_FIELD() */
	uint32_t value;  /**< srdma_request.notice of the peer */
	uint64_t length; /**< bytes that the peer wrote */
};

/** Takes one notice. The bytes of its write, and of all writes before it, are in place. Notices and messages come in the order in which the
 *  peer's program posted and sent them: while a notice is next, srdma_conn_recv() returns -ENOMSG, and while a message is next, this does.
 *  srdma_conn_wait() waits for either. A server's handler is called instead: srdma_server_options.on_notice. Notices that came before the
 *  peer disconnected come first, then SRDMA_ECLOSED.
 *  Errors:
 *    -ETIMEDOUT, -EAGAIN   Nothing came (-EAGAIN with timeout_ms 0).
 *    -ENOMSG               A message is next: srdma_conn_recv().
 *    -EOPNOTSUPP           The two ends did not agree on regions with names, or the connection is raw.
 *    SRDMA_ECLOSED         The connection was disconnected, and everything was received. Other errors are those of srdma_conn_recv(). */
SRDMA_API int srdma_conn_recv_notice_sized(struct srdma_conn *conn, struct srdma_notice *notice, int timeout_ms, size_t size);
SRDMA_INLINE int srdma_conn_recv_notice(struct srdma_conn *conn, struct srdma_notice *notice, int timeout_ms)
{
	return srdma_conn_recv_notice_sized(conn, notice, timeout_ms, sizeof *notice);
}

#ifdef __cplusplus
}
#endif
#endif
