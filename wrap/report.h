/* SPDX-License-Identifier: Apache-2.0 */
/* What a wrapped program did, for `securdma wrap --report`: records that all its processes append to one file. The command and the
 * library that write and read them are of one build. */
#ifndef WRAP_REPORT_H
#define WRAP_REPORT_H

#include <stdint.h>
#include <sys/types.h>

#define REPORT_MAGIC UINT32_C(0x72770001)

enum report_kind {
	REPORT_CONNECTED = 1, /* a queue pair went to RTR; `psn` is the rq_psn that the program passed */
	REPORT_STARTED,       /* it went to RTS; `psn` is the sq_psn that the program passed */
	REPORT_OBSERVED,      /* something that enforce would have refused; `text` says what and why */
	REPORT_REFUSED,       /* refused; the same */
	REPORT_REVOKED,       /* a queue pair was put into the error state; the same */
	REPORT_ADDRESS,       /* an address handle, to `peer` */
};

/* Written at once, so that records of several processes do not mix. Texts end with a zero. */
struct report_record {
	uint32_t magic, kind;
	int32_t pid;
	uint32_t qpn, type, psn, peer_qpn; /* type: enum ibv_qp_type */
	uint32_t replaced;                 /* 1: by another PSN */
	uint8_t peer_gid[16];
	char program[16];
	char device[64];
	char peer[64];       /* the name that its certificate has, or "" */
	char encryption[64]; /* what was checked, or "" */
	char text[512];
};

/* Fills in process and program and appends it, if there is a report. Keeps errno. */
void report_append(struct report_record *record);

#endif
