/* SPDX-License-Identifier: Apache-2.0 */
/* The messages by which two connection managers agree, to and from the 256 bytes of a management datagram. Nothing here knows a
 * connection. InfiniBand Architecture Specification volume 1, chapters 12 (communication management) and 13.4 (the common header),
 * and annex A11 (the addresses that IP programs put into the private data). */
#ifndef UROCE_MAD_H
#define UROCE_MAD_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	MAD_BYTES = 256,
	MAD_REJ_INFO = 72, /* additional information of a rejection */
	MAD_PRIVATE = 224, /* private data of any message */
};
/* No enumerator: it needs all 32 bits. */
#define MAD_QKEY UINT32_C(0x80010000)

/* Attributes of the class of communication management. */
enum mad_kind {
	MAD_REQ = 0x10,
	MAD_MRA = 0x11,
	MAD_REJ = 0x12,
	MAD_REP = 0x13,
	MAD_RTU = 0x14,
	MAD_DREQ = 0x15,
	MAD_DREP = 0x16,
	MAD_SIDR_REQ = 0x17,
	MAD_SIDR_REP = 0x18,
	MAD_LAP = 0x19, /* offers an alternate path */
	MAD_APR = 0x1a, /* answers that */
};

/* Which message a MRA or a REJ is about. */
enum mad_about { MAD_ABOUT_REQ = 0, MAD_ABOUT_REP = 1, MAD_ABOUT_OTHER = 2 };

/* Why a connection is rejected: table 109. */
enum mad_reason {
	MAD_REASON_NO_RESOURCES = 3,
	MAD_REASON_TIMEOUT = 4,
	MAD_REASON_NO_ID = 6, /* there is no such communication ID */
	MAD_REASON_SERVICE = 8, /* nobody listens there */
	MAD_REASON_STALE = 10,
	MAD_REASON_CONSUMER = 28,
	MAD_REASON_VENDOR_OPTION = 35, /* of enhanced connection establishment */
};

/* What an answer to a SIDR_REQ says: table 121. */
enum { MAD_SIDR_VALID = 0, MAD_SIDR_UNSUPPORTED = 1, MAD_SIDR_REJECTED = 2 };

/* What an answer to a LAP says: 12.8. */
enum { MAD_APR_NO_ID = 1, MAD_APR_UNSUPPORTED = 2 };

/* What a REP says of the alternate path of its REQ. */
enum { MAD_FAILOVER_UNSUPPORTED = 1 };

/* One message, decoded. Host byte order. Each kind has some of the fields, the others are 0. */
struct mad {
	enum mad_kind kind;
	uint64_t transaction;
	uint32_t local;  /* the sender's communication ID, or, of SIDR, the request's ID */
	uint32_t remote; /* the receiver's; 0 in REQ */

	/* REQ, REP, SIDR_REQ, SIDR_REP */
	uint64_t service;
	uint64_t guid; /* of the sender's device; of a rejected REQ that timed out, in its additional information */
	uint32_t qkey;
	uint32_t qpn; /* the sender's; of DREQ and LAP the receiver's */
	uint32_t psn; /* with which the receiver of the message begins to send */
	/* Of enhanced connection establishment, not in SIDR_REQ: options that the devices of a vendor agree on, and who that is (24 bits). */
	uint32_t ece_vendor;
	uint32_t ece_options;
	uint8_t responder_resources;
	uint8_t initiator_depth;
	uint8_t transport; /* REQ: 0 RC, 1 UC */
	bool flow_control;
	bool srq;
	uint8_t retry_count;
	uint8_t rnr_retry_count;
	uint8_t max_retries;
	uint8_t remote_timeout; /* for the answer to this message: 4.096 us times 2 to this power */
	uint8_t local_timeout;
	uint16_t pkey;
	uint8_t mtu; /* enum ibv_mtu */
	union ibv_gid local_gid; /* REQ: the primary path */
	union ibv_gid remote_gid;
	uint8_t tclass;
	uint8_t hop_limit;
	uint8_t rate;
	uint8_t ack_timeout;
	bool alternate; /* REQ, decoded: it has an alternate path too, of which nothing more is told */
	uint8_t failover; /* REP: what becomes of it */
	uint8_t target_ack_delay; /* REP */

	uint8_t about;           /* MRA, REJ: enum mad_about */
	uint8_t service_timeout; /* MRA */
	uint16_t reason;         /* REJ: enum mad_reason; SIDR_REP, APR: its status */
	uint8_t info_length;     /* REJ, APR */
	uint8_t info[MAD_REJ_INFO];

	uint8_t private_length; /* as much as a message of this kind has; when encoding, what is used of it */
	uint8_t private_data[MAD_PRIVATE];
};

/* How many bytes of private data a message of this kind has room for; 0 for another kind. */
size_t mad_private_room(enum mad_kind kind);

/* -EBADMSG: too short, of another class or kind, or values that can't be. */
int mad_decode(const uint8_t *bytes, size_t length, struct mad *out);
/* Private data beyond `private_length` is 0. */
void mad_encode(const struct mad *in, uint8_t bytes[MAD_BYTES]);

/* The addresses of an IP program, at the beginning of the private data of REQ and SIDR_REQ. */
struct mad_ip {
	bool v4;
	uint16_t port; /* of the source; the destination's is in the service ID */
	union ibv_gid source; /* an IPv4 address as a mapped one */
	union ibv_gid destination;
};
enum { MAD_IP_BYTES = 36 };

/* False: it is none. */
bool mad_read_ip(const uint8_t *bytes, size_t length, struct mad_ip *out);
void mad_write_ip(const struct mad_ip *in, uint8_t bytes[MAD_IP_BYTES]);

#endif
