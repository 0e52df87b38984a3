/* SPDX-License-Identifier: Apache-2.0 */
/* Packet capture into a file: pcap with nanosecond timestamps and raw IP packets, as Wireshark reads them. */
#ifndef UROCE_CAPTURE_H
#define UROCE_CAPTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "icrc.h"

struct capture;

/* Opens the file; "%p" in the path becomes the process id, "%%" a percent sign. An existing capture of the same format
 * is continued, so that several processes may share a file; an existing file of another kind is left alone: -EEXIST.
 * Or -EINVAL (empty path), -ENAMETOOLONG, -ENOMEM, open's errors. */
int capture_open(const char *path, struct capture **out);

/* Records a packet: `pieces` are BTH ... ICRC. The IP and UDP headers are made from the flow, whose source is the
 * sender also for packets that were received. From any thread; NULL capture does nothing. A write error ends the
 * capture, is logged, and hurts nothing else. */
void capture_packet(struct capture *capture, bool sent, const struct icrc_flow *flow, uint8_t tclass,
		    const struct iovec *pieces, size_t count);

/* Writes the buffered packets; NULL is fine. */
void capture_close(struct capture **capture);

#endif
