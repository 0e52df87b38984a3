/* SPDX-License-Identifier: Apache-2.0 */
/* Counters of the device: a block for each process, in shared memory, so that `uroce stats` can read it. */
#ifndef UROCE_COUNTERS_H
#define UROCE_COUNTERS_H

#include <stdatomic.h>
#include <stdint.h>

/* name, meaning */
#define COUNTERS(X) \
	X(tx_packets, "packets sent") \
	X(tx_bytes, "bytes sent, headers and ICRC included") \
	X(tx_calls, "system calls to send") \
	X(tx_blocked, "times the send buffer was full") \
	X(tx_local, "packets sent through shared memory, among all") \
	X(tx_errors, "packets that the kernel refused to send") \
	X(rx_packets, "packets received") \
	X(rx_bytes, "bytes received") \
	X(rx_calls, "system calls to receive") \
	X(rx_local, "packets received through shared memory, among all") \
	X(rx_overflow, "dropped by the kernel: the receive buffer was full") \
	X(rx_forwarded, "packets passed to another process that shares the address") \
	X(acks_sent, "acknowledgements sent") \
	X(acks_received, "acknowledgements received") \
	X(naks_sent, "sequence and error NAKs sent") \
	X(naks_received, "sequence and error NAKs received") \
	X(rnr_sent, "receiver-not-ready NAKs sent") \
	X(rnr_received, "receiver-not-ready NAKs received") \
	X(retransmits, "packets sent again") \
	X(timeouts, "timeouts of responses") \
	X(retries_exhausted, "queue pairs that gave up") \
	X(duplicates, "requests received again") \
	X(out_of_sequence, "requests ahead of the expected PSN, or without the tag") \
	X(held, "requests kept until a gap before them is filled") \
	X(ecn_marked, "packets with data that a router has marked (ECN)") \
	X(cnps_sent, "congestion notifications sent") \
	X(cnps_received, "congestion notifications received and heeded") \
	X(drop_icrc, "dropped: wrong ICRC") \
	X(drop_malformed, "dropped: malformed or of an unknown kind") \
	X(drop_qpn, "dropped: no such queue pair") \
	X(drop_state, "dropped: queue pair not ready for it") \
	X(drop_source, "dropped: not from the connected peer") \
	X(drop_tag, "dropped: without the tag of the connected peer") \
	X(drop_transport, "dropped: opcode of another transport") \
	X(drop_pkey, "dropped: another partition") \
	X(drop_qkey, "dropped: wrong Q_Key") \
	X(drop_no_receive, "dropped: datagram without a posted receive") \
	X(drop_too_long, "dropped: unreliable message longer than the posted receive") \
	X(drop_stale, "dropped: response that nothing waits for") \
	X(drop_inbox, "dropped: the inbox of the other process was full") \
	X(remote_access_errors, "requests refused: key, rights or bounds") \
	X(fault_loss, "lost by fault injection") \
	X(fault_duplicate, "duplicated by fault injection") \
	X(fault_reorder, "reordered by fault injection") \
	X(fault_delay, "delayed by fault injection") \
	X(fault_corrupt, "corrupted by fault injection")

/* Verbs objects that exist now: `uroce resources` shows them, as `rdma resource` does for the kernel's. */
#define OBJECTS(X) X(ctx) X(pd) X(cq) X(qp) X(mr) X(mw) X(srq) X(ah) X(channel) X(cm_id)

struct counters {
#define X(name, text) _Atomic uint64_t name;
	COUNTERS(X)
#undef X
	struct {
#define X(name) _Atomic int64_t name;
		OBJECTS(X)
#undef X
	} objects;
};

static inline void counter_object(_Atomic int64_t *gauge, int change)
{
	atomic_fetch_add_explicit(gauge, change, memory_order_relaxed);
}

static inline void counter_add(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* Takes the block of UROCE_COUNTERS_FD or UROCE_COUNTERS_PATH, else makes one ("uroce-counters" among the process's memfds); with neither,
 * one in ordinary memory. Never NULL: NULL memory is worked around with a static block. */
struct counters *counters_open(void);

#endif
