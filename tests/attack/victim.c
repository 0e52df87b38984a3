/* SPDX-License-Identifier: Apache-2.0 */
/* What is attacked where securdma is not: a plain verbs program, as NCCL, UCX and many others set their queue pairs up.
 *
 * victim serve PORT | connect HOST PORT, and options:
 *   --device NAME --address ADDRESS   the device and the GID
 *   --random-psn                      else 0, as NCCL and UCX have it
 *   --own-pd                          a protection domain for each client; else one for all
 *   --windows                         regions through type 2 memory windows
 *   --clients N                       queue pairs of a server (default 1); each is reused, with its number, for the
 * next connection
 *   --mtu BYTES                       256 or 1024 (default)
 *   --region BYTES                    of each client (default 4096)
 * Commands on standard input: spend CLIENT PSNS (that many, by writes); send CLIENT TEXT; write CLIENT OFFSET TEXT;
 * read CLIENT OFFSET LENGTH; steal CLIENT RKEY VA TEXT (a write to any key and address); region CLIENT; again (a
 * client: ends the connection, makes a new one on the same queue pair). Events on standard output, each a line of JSON:
 * listening, connected, message, done, region, broken, gone. */
#include "victim.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct victim victim = {.shared_pd = true, .region_size = 4096, .clients = 1, .mtu = 1024};
static const char *host, *port;

/* ---- the exchange ---- */

static void tell(int fd, const struct numbers *own)
{
	char line[128], gid[33];

	for (int i = 0; i < 16; i++)
		snprintf(gid + 2 * i, 3, "%02x", own->gid.raw[i]);
	int length = snprintf(line, sizeof(line), "%x %x %x %llx %s\n", own->qpn, own->psn, own->rkey,
			      (unsigned long long)own->va, gid);
	if (write(fd, line, (size_t)length) != length)
		victim_die("exchange");
}

static bool hear(int fd, struct numbers *peer)
{
	char line[128] = "", gid[33];
	unsigned long long va;

	for (size_t length = 0; length < sizeof(line) - 1 && strchr(line, '\n') == NULL; length++)
		if (read(fd, line + length, 1) != 1)
			return false;
	if (sscanf(line, "%x %x %x %llx %32s", &peer->qpn, &peer->psn, &peer->rkey, &va, gid) != 5)
		return false;
	peer->va = va;
	for (int i = 0; i < 16; i++)
		sscanf(gid + 2 * i, "%2hhx", &peer->gid.raw[i]);
	return true;
}

static void exchange(unsigned index, int fd)
{
	struct end *end = &victim.end[index];
	char ready = '.';

	victim_renew(&victim, index);
	tell(fd, &end->own);
	if (!hear(fd, &end->peer)) {
		close(fd);
		return;
	}
	victim_connect(&victim, index);
	/* Both are ready before either says so. */
	if (write(fd, &ready, 1) != 1 || read(fd, &ready, 1) != 1) {
		close(fd);
		return;
	}
	end->tcp = fd;
	printf("{\"event\": \"connected\", \"client\": %u, \"qpn\": %u, \"psn\": %u, \"rkey\": %u, \"va\": %llu, "
	       "\"peer_qpn\": %u, "
	       "\"peer_psn\": %u}\n",
	       index, end->own.qpn, end->own.psn, end->own.rkey, (unsigned long long)end->own.va, end->peer.qpn,
	       end->peer.psn);
}

static int open_tcp(bool listening)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = listening ? AI_PASSIVE : 0}, *list;
	int on = 1;

	if (getaddrinfo(host, port, &hints, &list) != 0)
		victim_die("address");
	int fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (fd < 0 || (listening ? bind(fd, list->ai_addr, list->ai_addrlen) != 0 || listen(fd, 64) != 0
				 : connect(fd, list->ai_addr, list->ai_addrlen) != 0))
		victim_die(port);
	freeaddrinfo(list);
	return fd;
}

/* ---- completions ---- */

static void print_text(const uint8_t *bytes, size_t length)
{
	for (size_t i = 0; i < length && bytes[i] != '\0'; i++)
		putchar(bytes[i] < ' ' || bytes[i] > '~' || bytes[i] == '"' || bytes[i] == '\\' ? '.' : bytes[i]);
}

static void event(const char *name, unsigned index, const char *field, const uint8_t *text, size_t length)
{
	printf("{\"event\": \"%s\", \"client\": %u, \"%s\": \"", name, index, field);
	print_text(text, length);
	puts("\"}");
}

static void complete(const struct ibv_wc *wc)
{
	unsigned index = 0;

	while (index < victim.clients && victim.end[index].own.qpn != wc->qp_num)
		index++;
	if (index == victim.clients)
		return;
	struct end *end = &victim.end[index];
	if (wc->status != IBV_WC_SUCCESS) {
		const char *text = ibv_wc_status_str(wc->status);
		if (!end->broken)
			event("broken", index, "status", (const uint8_t *)text, strlen(text));
		end->broken = true;
	} else if (wc->wr_id < RECEIVES) {
		event("message", index, "text", end->buffers + wc->wr_id * MESSAGE, wc->byte_len);
		victim_receive(end, (uint32_t)wc->wr_id);
	} else {
		event("done", index, "text", wc->opcode == IBV_WC_RDMA_READ ? victim_out(end) : (const uint8_t *)"",
		      MESSAGE);
	}
}

/* ---- commands ---- */

/* Uses up PSNs: writes as long as the region, of which each takes one for every MTU. */
static void spend(struct end *end, uint32_t psns)
{
	uint32_t whole = victim.region_size / victim.mtu, waiting = 0;
	struct ibv_wc wc;

	while ((psns > 0 || waiting > 0) && !end->broken) {
		uint32_t now = psns < whole ? psns : whole;
		if (now > 0 && waiting < SPENDING && victim_spend(end, now * victim.mtu)) {
			psns -= now;
			waiting++;
		}
		while (ibv_poll_cq(victim.cq, 1, &wc) > 0) {
			waiting--;
			end->broken |= wc.status != IBV_WC_SUCCESS;
		}
	}
	puts(end->broken ? "{\"event\": \"broken\"}" : "{\"event\": \"spent\"}");
}

static void command(char *line)
{
	char *word = strtok(line, " \n"), *text;
	unsigned index = 0;

	if (word == NULL)
		return;
	if (strcmp(word, "again") == 0) {
		close(victim.end[0].tcp);
		exchange(0, open_tcp(false));
		return;
	}
	if ((text = strtok(NULL, " \n")) != NULL)
		index = (unsigned)atoi(text);
	struct end *end = &victim.end[index < victim.clients ? index : 0];
	if (strcmp(word, "region") == 0) {
		event("region", index, "text", end->region, MESSAGE);
		return;
	}
	if (strcmp(word, "spend") == 0) {
		spend(end, (uint32_t)strtoul(strtok(NULL, " "), NULL, 0));
		return;
	}
	uint32_t rkey = end->peer.rkey, length = MESSAGE;
	uint64_t va = end->peer.va;
	enum ibv_wr_opcode opcode = strcmp(word, "send") == 0   ? IBV_WR_SEND
				    : strcmp(word, "read") == 0 ? IBV_WR_RDMA_READ
								: IBV_WR_RDMA_WRITE;
	if (strcmp(word, "steal") == 0) {
		rkey = (uint32_t)strtoul(strtok(NULL, " "), NULL, 0);
		va = strtoull(strtok(NULL, " "), NULL, 0);
	} else if (strcmp(word, "send") != 0) {
		va += strtoull(strtok(NULL, " "), NULL, 0);
	}
	text = strtok(NULL, "\n");
	if (opcode == IBV_WR_RDMA_READ) {
		length = text == NULL ? MESSAGE : (uint32_t)atoi(text);
	} else {
		length = text == NULL ? 0 : (uint32_t)strnlen(text, MESSAGE);
		memcpy(victim_out(end), text == NULL ? "" : text, length);
	}
	if (!victim_post(end, opcode, length, rkey, va))
		event("broken", index, "status", (const uint8_t *)"not posted", 10);
}

/* False: standard input has ended. */
static bool read_commands(void)
{
	static char input[4096];
	static size_t have;
	char *end;
	ssize_t got = read(STDIN_FILENO, input + have, sizeof(input) - 1 - have);

	if (got <= 0)
		return false;
	have += (size_t)got;
	input[have] = '\0';
	while ((end = memchr(input, '\n', have)) != NULL) {
		size_t line = (size_t)(end - input) + 1;
		char one[4096];
		memcpy(one, input, line);
		one[line] = '\0';
		command(one);
		have -= line;
		memmove(input, input + line, have + 1);
	}
	return true;
}

static void watch_ends(void)
{
	char byte;

	for (unsigned i = 0; i < victim.clients; i++) {
		struct end *end = &victim.end[i];
		if (end->tcp >= 0 && recv(end->tcp, &byte, 1, MSG_DONTWAIT | MSG_PEEK) == 0) {
			close(end->tcp);
			end->tcp = -1;
			event("gone", i, "text", (const uint8_t *)"", 0);
		}
	}
}

static void accept_one(int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	watch_ends(); /* it may be the same client, back */
	for (unsigned i = 0; fd >= 0 && i < victim.clients; i++) {
		if (victim.end[i].tcp < 0) {
			exchange(i, fd);
			return;
		}
	}
	if (fd >= 0)
		close(fd);
}

static void serve(int listener)
{
	struct pollfd readable[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = listener, .events = POLLIN}};
	struct ibv_wc wc;

	for (;;) {
		while (ibv_poll_cq(victim.cq, 1, &wc) > 0)
			complete(&wc);
		watch_ends();
		if (poll(readable, listener < 0 ? 1 : 2, 1) < 0)
			victim_die("poll");
		if (readable[0].revents != 0 && !read_commands())
			return;
		if (listener >= 0 && readable[1].revents != 0)
			accept_one(listener);
	}
}

int main(int argc, char **argv)
{
	static const struct option all[] = {
		{"device", 1, NULL, 'd'}, {"address", 1, NULL, 'a'}, {"random-psn", 0, NULL, 'r'},
		{"own-pd", 0, NULL, 'o'}, {"windows", 0, NULL, 'w'}, {"clients", 1, NULL, 'c'},
		{"region", 1, NULL, 'R'}, {"mtu", 1, NULL, 'm'},     {NULL, 0, NULL, 0},
	};
	int which;

	while ((which = getopt_long(argc, argv, "", all, NULL)) != -1) {
		switch (which) {
		case 'd': victim.device = optarg; break;
		case 'a': victim.address = optarg; break;
		case 'r': victim.random_psn = true; break;
		case 'o': victim.shared_pd = false; break;
		case 'w': victim.windows = true; break;
		case 'm': victim.mtu = (uint32_t)atoi(optarg); break;
		case 'R': victim.region_size = (uint32_t)atoi(optarg); break;
		case 'c': victim.clients = (unsigned)atoi(optarg); break;
		default: return 2;
		}
	}
	bool server = optind + 2 == argc && strcmp(argv[optind], "serve") == 0;
	if ((!server && optind + 3 != argc) || victim.address == NULL || victim.clients > MAX_CLIENTS)
		return 2;
	host = server ? NULL : argv[optind + 1];
	port = argv[argc - 1];
	setvbuf(stdout, NULL, _IOLBF, 0);
	victim_open(&victim);
	for (unsigned i = 0; i < victim.clients; i++)
		victim_make(&victim, i);
	int listener = server ? open_tcp(true) : -1;
	if (server)
		puts("{\"event\": \"listening\"}");
	else
		exchange(0, open_tcp(false));
	serve(listener);
	return 0;
}
