/* SPDX-License-Identifier: Apache-2.0 */
/* The one socket of this process to its host's agent, and the thread that connects it, connects it again, and receives on it. */
#ifndef WRAP_LINK_H
#define WRAP_LINK_H

#include "local.h"

#include <stdbool.h>
#include <stddef.h>

/* Whether what can't be vouched for is let through: what the agent said last, or, before it said anything, what `securdma wrap` was asked
 * for. */
bool link_observes(void);

/* Sends a request and waits for the answer. 0: there is one. Else a negative errno, and answer->text says why: -EACCES, the agent refuses
 * this program as a whole; -ETIMEDOUT, no answer in time (setting()->timeout_ms), or, under enforce, no agent; -ENOTCONN, no agent, under observe; -EAGAIN, no
 * thread. Any thread may call it. It is no cancellation point. */
int link_ask(void *request, size_t length, uint16_t type, struct local_answer *answer);
/* Sends what has no answer, unless there is no agent. */
void link_tell(void *packet, size_t length, uint16_t type);
/* Waits until there is an agent, or it is clear that there is none: then link_observes knows what the agent wants. */
void link_reach(void);

/* Of the thread, when it has a new agent, and before anybody else can ask that one: sends what it must know. The two below are for it. */
void link_restore(void);
/* Sends on the new connection, and receives meanwhile; false: it is lost. */
bool link_send_restored(void *packet, size_t length, uint16_t type);

/* The thread calls these, with no lock held. */
void queue_pairs_revoke(const struct local_revoke *revoke);
/* The answer to a LOCAL_RESTORE, whose request number has LINK_RESTORED set. */
void queue_pairs_restored(const struct local_answer *answer);
bool queue_pairs_any(void);
#define LINK_RESTORED UINT32_C(0x80000000)

#endif
