/* SPDX-License-Identifier: Apache-2.0 */
/* Fault injection: loses, duplicates, reorders, delays and corrupts datagrams on their way out, the same way each time
 * for the same seed and the same packets. Not locked: the link's send lock covers it. */
#ifndef UROCE_FAULT_H
#define UROCE_FAULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "counters.h"

struct fault;

typedef void (*fault_emit)(void *arg, const void *datagram, size_t length, const void *cookie);

/* Parses UROCE_FAULT: "loss=1%,duplicate=0.5%,reorder=2%,delay=200us,jitter=100us,corrupt=0.1%,seed=42". Chances are
 * percentages or fractions (0.01), times have a unit (ns, us, ms, s; none: us). -EINVAL, which logs the bad word
 * and those that are allowed; -ENOMEM. */
int fault_parse(const char *text, struct fault **out);

/* Why a text does not parse, as a sentence without a full stop; false when it does parse. For early checks. */
bool fault_explain(const char *text, char *message, size_t size);

/* Where the fault_* counters count; NULL: nowhere. */
void fault_set_counters(struct fault *fault, struct counters *counters);

/* Decides the packet's fate: emits it zero, one or two times now (and packets held earlier whose turn has come), or
 * keeps a copy, cookie (the destination) included, for later. `now` is CLOCK_MONOTONIC in nanoseconds. Returns false
 * when out of memory; the packet is then emitted as it is. `emit` must not call back into this fault. */
bool fault_apply(struct fault *fault, uint64_t now, const void *datagram, size_t length, const void *cookie,
		 size_t cookie_length, fault_emit emit, void *arg);

/* When the next held packet is due; UINT64_MAX: none is held. */
uint64_t fault_next(const struct fault *fault);

/* Emits the held packets that are due. */
void fault_run(struct fault *fault, uint64_t now, fault_emit emit, void *arg);

/* Wipes and drops held packets; NULL is fine. */
void fault_close(struct fault **fault);

#endif
