/* SPDX-License-Identifier: Apache-2.0 */
/* What arrives at a network device: how many packets of RoCE in clear, and how many of ESP. Include rc.h first. */
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netpacket/packet.h>
#include <sys/socket.h>

static inline int wire_open(const char *device)
{
	struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(3), .sll_ifindex = (int)if_nametoindex(device)};
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, htons(3));

	must(fd >= 0 && !bind(fd, (struct sockaddr *)&address, sizeof address), device);
	return fd;
}

static inline void wire_count(int fd, unsigned int *clear, unsigned int *esp)
{
	unsigned char frame[2048];
	ssize_t length;

	*clear = *esp = 0;
	while ((length = recv(fd, frame, sizeof frame, 0)) > 0) {
		if (length < 42 || frame[12] != 8 || frame[13] != 0)
			continue; /* not IPv4 */
		*esp += frame[23] == IPPROTO_ESP;
		*clear += frame[23] == IPPROTO_UDP && frame[36] * 256 + frame[37] == 4791;
	}
}

/* Sends 8 bytes, for a second at the most, to 10.77.0.2. */
static inline void wire_send(void)
{
	struct end a;

	create(&a, 4);
	to_init(&a);
	gid.raw[15] = 2;
	to_rtr(&a, &a);
	to_rts(&a);
	must(!post_send(&a, IBV_WR_SEND, IBV_SEND_SIGNALED, 8, 0), "post_send");
	next_status(&a, 1000);
	must(!ibv_destroy_qp(a.qp), "destroy");
}
