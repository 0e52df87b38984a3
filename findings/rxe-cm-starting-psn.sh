#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# rdma_cm: the Starting PSN of a REQ or REP is not the PSN with which its sender begins to send, but the one with which its receiver does.
#
# Guess: each end tells the other what its own first packet will have, as programs do that connect without rdma_cm: the field is the sender's
#        sq_psn.
# True:  it is the sender's rq_psn: each end chooses the first PSN that it will receive, and the receiver of the message sends from there on.
# Version: Linux 6.1.176, iproute2 6.1.0, and libibverbs and librdmacm 44.0 of Debian 12.
#
# Two devices of one host connect over a veth pair here, with rules that let a host send to itself over a wire. The program asks for the numbers
# of both queue pairs before either sends, since rdma_rxe counts them up with each packet.
#
# Output seen:
#   REQ 10.77.0.1 starting_psn eda0e9
#   REP 10.77.0.2 starting_psn a3bbbf
#   active rxe0 rq_psn eda0e9 sq_psn a3bbbf
#   passive rxe1 rq_psn a3bbbf sq_psn eda0e9
. "$(dirname "$0")/lib/vm.sh"
compile <<'END'
#include "rc.h"
#include "wire.h"
#include <poll.h>
#include <rdma/rdma_cma.h>

static struct rdma_event_channel *events;

/* The ID of the next event, which must be this one. */
static struct rdma_cm_id *expect(enum rdma_cm_event_type type)
{
	struct pollfd pollfd = {.fd = events->fd, .events = POLLIN};
	struct rdma_cm_event *event;
	struct rdma_cm_id *id;

	must(poll(&pollfd, 1, 60000) == 1, rdma_event_str(type));
	must(!rdma_get_cm_event(events, &event), "event");
	if (event->event != type) {
		printf("%s, status %d, not %s\n", rdma_event_str(event->event), event->status, rdma_event_str(type));
		exit(2);
	}
	id = event->id;
	rdma_ack_cm_event(event);
	return id;
}

static void create_queue_pair(struct rdma_cm_id *id)
{
	struct ibv_qp_init_attr init = {.qp_type = IBV_QPT_RC, .cap = {4, 4, 1, 1, 0}};

	must(!rdma_create_qp(id, NULL, &init), "qp");
}

static void tell_queue_pair(const char *name, struct rdma_cm_id *id)
{
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr attr;

	must(!ibv_query_qp(id->qp, &attr, IBV_QP_STATE | IBV_QP_RQ_PSN | IBV_QP_SQ_PSN, &init), "query");
	must(attr.qp_state == IBV_QPS_RTS, "RTS");
	printf("%s %s rq_psn %06x sq_psn %06x\n", name, ibv_get_device_name(id->verbs->device), attr.rq_psn, attr.sq_psn);
}

/* Shows the Starting PSN of each REQ and REP: these lie behind Ethernet, IPv4, UDP, BTH, DETH and the MAD's header. */
static void tell_messages(int wire)
{
	unsigned char frame[2048];
	const unsigned char *bth = frame + 42, *mad = bth + 20, *message = mad + 24, *psn;
	ssize_t length;

	while ((length = recv(wire, frame, sizeof frame, 0)) > 0) {
		if (length < 62 + 256 || frame[12] != 8 || frame[13] != 0 || frame[23] != IPPROTO_UDP || frame[36] * 256 + frame[37] != 4791)
			continue;
		if (bth[5] != 0 || bth[6] != 0 || bth[7] != 1 || mad[1] != 7 || mad[16] != 0 || (mad[17] != 0x10 && mad[17] != 0x13))
			continue;
		psn = message + (mad[17] == 0x10 ? 44 : 20);
		printf("%s %u.%u.%u.%u starting_psn %02x%02x%02x\n", mad[17] == 0x10 ? "REQ" : "REP", frame[26], frame[27], frame[28],
			frame[29], psn[0], psn[1], psn[2]);
	}
}

int main(void)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(7174), .sin_addr.s_addr = inet_addr("10.77.0.2")};
	struct rdma_conn_param param = {.responder_resources = 1, .initiator_depth = 1, .retry_count = 6, .rnr_retry_count = 6};
	struct rdma_cm_id *listener, *active, *passive;
	int wire = wire_open("v1");

	must((events = rdma_create_event_channel()) != NULL, "event channel");
	must(!rdma_create_id(events, &listener, NULL, RDMA_PS_TCP), "id");
	must(!rdma_bind_addr(listener, (struct sockaddr *)&to), "bind");
	must(!rdma_listen(listener, 1), "listen");
	must(!rdma_create_id(events, &active, NULL, RDMA_PS_TCP), "id");
	must(!rdma_resolve_addr(active, NULL, (struct sockaddr *)&to, 5000), "resolve_addr");
	expect(RDMA_CM_EVENT_ADDR_RESOLVED);
	must(!rdma_resolve_route(active, 5000), "resolve_route");
	expect(RDMA_CM_EVENT_ROUTE_RESOLVED);
	create_queue_pair(active);
	must(!rdma_connect(active, &param), "connect");
	passive = expect(RDMA_CM_EVENT_CONNECT_REQUEST);
	create_queue_pair(passive);
	must(!rdma_accept(passive, &param), "accept");
	expect(RDMA_CM_EVENT_ESTABLISHED);
	expect(RDMA_CM_EVENT_ESTABLISHED);
	tell_messages(wire);
	tell_queue_pair("active", active);
	tell_queue_pair("passive", passive);
	fflush(stdout);
	return 0;
}
END
cat >"$t/job" <<'END'
/bin/ip link set lo up
/bin/ip link add v0 address 02:00:00:00:00:01 type veth peer name v1 address 02:00:00:00:00:02
for n in 0 1; do
    /bin/ip rule add pref 1 iif "v$n" ipproto 17 lookup local
    echo 1 >"/proc/sys/net/ipv4/conf/v$n/accept_local"
    /bin/ip link set "v$n" up
done
/bin/ip rule add pref 40000 lookup local
/bin/ip rule del pref 0
/bin/ip addr add 10.77.0.1/32 dev v0
/bin/ip addr add 10.77.0.2/32 dev v1
/bin/ip route add 10.77.0.2/32 dev v0 src 10.77.0.1
/bin/ip route add 10.77.0.1/32 dev v1 src 10.77.0.2
/bin/ip neigh add 10.77.0.2 lladdr 02:00:00:00:00:02 dev v0 nud permanent
/bin/ip neigh add 10.77.0.1 lladdr 02:00:00:00:00:01 dev v1 nud permanent
/bin/rdma link add rxe0 type rxe netdev v0
/bin/rdma link add rxe1 type rxe netdev v1
sleep 2
exec /bin/try
END
boot "crc32_generic veth rdma_rxe ib_uverbs rdma_ucm" bin/ip bin/rdma tmp/try
# number LINE NAME: the value behind NAME in the first line that begins with LINE
number() { awk -v line="$1" -v name="$2" '$1 == line {for (i = 1; i < NF; i++) if ($i == name) {print $(i + 1); exit}}' "$t/output"; }
req=$(number REQ starting_psn) rep=$(number REP starting_psn)
if [ -z "$req" ] || [ -z "$rep" ] || [ "$req" = "$rep" ]; then
    echo "not told: a REQ and a REP with different numbers"
    exit 1
fi
told "active rxe0 rq_psn $req sq_psn $rep" "passive rxe1 rq_psn $rep sq_psn $req"
