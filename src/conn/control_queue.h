/* SPDX-License-Identifier: Apache-2.0 */
/* Control messages: what a program tells its peer over the TLS channel. */
#ifndef SRDMA_CONTROL_QUEUE_H
#define SRDMA_CONTROL_QUEUE_H

#include "securdma.h"

struct srdma_conn;

/* The ends have agreed on control messages. */
int srdma_control_queue_start(struct srdma_conn *conn);
void srdma_control_queue_release(struct srdma_conn *conn);
/* Takes a frame of type CONTROL_MESSAGE or CONTROL_TAKEN. */
int srdma_control_queue_take_frame(struct srdma_conn *conn);
bool srdma_control_queue_has_message(const struct srdma_conn *conn);
/* The oldest message, which is valid until it is consumed. False: there is none. */
bool srdma_control_queue_peek(const struct srdma_conn *conn, const void **data, size_t *length);
/* The program has taken it. */
int srdma_control_queue_consume(struct srdma_conn *conn);

#endif
