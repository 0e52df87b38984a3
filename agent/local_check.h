/* SPDX-License-Identifier: Apache-2.0 */
/* Checks packets of programs (local.h): any process of the host can send anything. */
#ifndef AGENT_LOCAL_CHECK_H
#define AGENT_LOCAL_CHECK_H

#include "local.h"

#include <stdbool.h>
#include <stddef.h>

/* Room for each packet of a program. */
union local_request {
	struct local_header header;
	struct local_hello hello;
	struct local_device device;
	struct local_queue_pair queue_pair;
	struct local_connect connect;
	struct local_address address;
	struct local_event event;
};

/* `length`: of the packet that was received into `request`. NULL: it is valid. Else the fault, to follow "a packet of the program is not
 * valid: "; static. A header of another version has only its header checked. */
const char *local_request_problem(const union local_request *request, size_t length);

/* What the library passes on as its program gave it is not the library's fault: whether an address can be one host's, and a number a queue
 * pair's. */
bool local_destination_is_valid(const uint8_t gid[16], uint32_t lid);
bool local_qpn_is_valid(uint32_t qpn);

#endif
