/* SPDX-License-Identifier: Apache-2.0 */
/* What securdma's set-up is compared with: a mutual TLS 1.3 handshake through OpenSSL and nothing else. */
#ifndef CLI_BENCH_TLS_H
#define CLI_BENCH_TLS_H

#include <stdint.h>

struct bench_tls;

/* Starts a server thread on `address`, a free port, with the credentials of `directory` (see bench_local_directory).
 * `cipher` is the suite that both ends use. Errors: -EIO, -ENOMEM. */
int bench_tls_new(const char *directory, const char *address, const char *cipher, struct bench_tls **out);

/* Connects, shakes hands, and waits for the one byte that the server sends after it has verified the client: *tls_ns is
 * the time from the connected socket to that byte, *total_ns has the TCP connect too. Errors: -EIO. */
int bench_tls_connect(struct bench_tls *bench, uint64_t *tls_ns, uint64_t *total_ns);

void bench_tls_delete(struct bench_tls **bench);

#endif
