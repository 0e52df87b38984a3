/* SPDX-License-Identifier: Apache-2.0 */
/* The PSNs that connected queue pairs will have after their next reset. Two programs that reset their ends one after the other, each as far as RTS, need
 * this: the first one has to know the other's next PSN while that is still connected. */
#ifndef AGENT_PROMISES_H
#define AGENT_PROMISES_H

#include "peer_frames.h"

#include <stdbool.h>
#include <stdint.h>

struct agent;
struct program;
struct queue_pair;

/* Takes what the same peer, which was reset, asks for; its new PSN is `peer_psn`. `out`: the PSN that the queue pair will have. It is kept for a minute.
 * Errors: -ENOMEM; -EDQUOT, of too many queue pairs of the program. */
int promise_make(const struct queue_pair *pair, const struct peer_end *own, const struct peer_end *peer, uint32_t peer_psn, uint32_t *out);
/* Gives the PSN and the peer to a queue pair that is registered again, of which number, device, type and program are set. False: nothing was promised. */
bool promise_keep(struct queue_pair *values);
/* The peer with that PSN is gone. The other end may be between its reset and INIT, and so not be registered. */
void promises_withdraw(struct agent *agent, const struct peer_end *own, const struct peer_end *peer, uint32_t peer_psn);
void promises_clear(struct program *program);

#endif
