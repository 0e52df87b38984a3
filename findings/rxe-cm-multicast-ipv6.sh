#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# rdma_cm: a multicast group of IPv6 cannot be joined on a RoCEv2 device, and the errno is none that user space has.
#
# Guess: rdma_join_multicast takes any multicast address, as an ID that is bound to an IPv6 address connects by IPv6.
# True:  a group of IPv4 is joined; one of IPv6 fails with errno 524, the kernel's own ENOTSUPP, for which strerror has no text.
# Version: Linux 6.1.176, iproute2 6.1.0, and libibverbs and librdmacm 44.0 of Debian 12.
#
# Output seen:
#   239.1.2.3: RDMA_CM_EVENT_MULTICAST_JOIN, status 0
#   ff0e::1:2: errno 524, Unknown error 524
. "$(dirname "$0")/lib/vm.sh"
compile <<'END'
#include "rc.h"
#include <arpa/inet.h>
#include <rdma/rdma_cma.h>

static struct rdma_event_channel *events;

static void try(const char *name, struct sockaddr *own, struct sockaddr *group)
{
	struct rdma_cm_event *event;
	struct rdma_cm_id *id;

	must(!rdma_create_id(events, &id, NULL, RDMA_PS_UDP), "id");
	must(!rdma_bind_addr(id, own), "bind");
	if (rdma_join_multicast(id, group, NULL)) {
		printf("%s: errno %d, %s\n", name, errno, strerror(errno));
		return;
	}
	must(!rdma_get_cm_event(events, &event), "event");
	printf("%s: %s, status %d\n", name, rdma_event_str(event->event), event->status);
	rdma_ack_cm_event(event);
}

int main(void)
{
	struct sockaddr_in own4 = {.sin_family = AF_INET, .sin_addr.s_addr = inet_addr("10.77.0.1")};
	struct sockaddr_in group4 = {.sin_family = AF_INET, .sin_addr.s_addr = inet_addr("239.1.2.3")};
	struct sockaddr_in6 own6 = {.sin6_family = AF_INET6}, group6 = {.sin6_family = AF_INET6};

	must(inet_pton(AF_INET6, "fd77::1", &own6.sin6_addr) == 1 && inet_pton(AF_INET6, "ff0e::1:2", &group6.sin6_addr) == 1, "addresses");
	must((events = rdma_create_event_channel()) != NULL, "event channel");
	try("239.1.2.3", (struct sockaddr *)&own4, (struct sockaddr *)&group4);
	try("ff0e::1:2", (struct sockaddr *)&own6, (struct sockaddr *)&group6);
	fflush(stdout);
	return 0;
}
END
run_on_dummy '/bin/ip addr add fd77::1/64 dev d0 nodad; sleep 2; exec /bin/try' rdma_ucm
told "239.1.2.3: RDMA_CM_EVENT_MULTICAST_JOIN, status 0" "ff0e::1:2: errno 524, Unknown error 524"
