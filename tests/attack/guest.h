/* SPDX-License-Identifier: Apache-2.0 */
/* What both kinds of guest share: see guest.c. */
#ifndef ATTACK_GUEST_H
#define ATTACK_GUEST_H

#include <securdma_server.h>

/* Exits when `error` is one, after an event that says so. */
void guest_check(int error, const char *doing);
/* options->qp becomes `qp`. */
void guest_options(struct srdma_conn_options *options, struct srdma_qp_options *qp, int argc, char **argv);

/* Bytes that are known and none of them zero: lines of 32 with KNOWN in each. */
#define GUEST_KNOWN "known plaintext"
void guest_fill(unsigned char *bytes, size_t size);
/* Prints fields: how many of them are as guest_fill makes them, how many are zero, and how many neither. */
void guest_print_bytes(const unsigned char *bytes, size_t size);

/* A field: the bytes that each thread sealed or opened, the connection's own first; none without seal threads. */
void guest_print_seal_bytes(const struct srdma_conn *conn);

/* A long message: "number 000", then bytes as guest_fill makes them. */
enum { GUEST_LONG = 32768, GUEST_NUMBER = 10 };

/* A server that shows what came; the rest of the program. */
int guest_host(int argc, char **argv);

#endif
