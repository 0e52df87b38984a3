/* SPDX-License-Identifier: Apache-2.0 */
/* Only the secure bring-up: TLS, certificates and random PSNs from the library, the queue pair and the memory are the program's own.
 * One side tells the other where its memory is, by a control message over TLS. The other writes into it with its own work request.
 * usage: raw PORT         accepts one client; ca.crt, server.crt and server.key lie in the working folder
 *        raw HOST PORT    connects; ca.crt, client.crt and client.key lie in the working folder */
#include <endian.h>
#include <securdma.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Where the memory is; big-endian, as the peer may be another machine. */
struct place {
	uint64_t address;
	uint32_t rkey;
	uint32_t size;
};

static int accept_one(const char *port, struct srdma_device *device, const struct srdma_conn_options *options, struct srdma_conn **conn)
{
	struct srdma_tls_server_options tls;
	struct srdma_tls_context *context = NULL;
	struct srdma_listener *listener = NULL;
	int socket = -1, ret;

	srdma_tls_server_options_init(&tls);
	tls.cert_file = "server.crt";
	tls.key_file = "server.key";
	tls.client_ca_file = "ca.crt";
	ret = srdma_tls_server_new(&tls, &context);
	if (ret == 0)
		ret = srdma_listener_listen(NULL, port, &listener);
	if (ret == 0)
		ret = socket = srdma_listener_accept(listener, 60000);
	if (ret >= 0)
		ret = srdma_conn_accept(socket, context, device, options, NULL, NULL, conn);
	srdma_listener_free(&listener);
	srdma_tls_context_unref(&context);
	return ret;
}

static int connect_to(const char *host, const char *port, struct srdma_device *device, const struct srdma_conn_options *options,
		      struct srdma_conn **conn)
{
	struct srdma_tls_client_options tls;
	struct srdma_tls_context *context = NULL;
	int ret;

	srdma_tls_client_options_init(&tls);
	tls.ca_file = "ca.crt";
	tls.cert_file = "client.crt";
	tls.key_file = "client.key";
	ret = srdma_tls_client_new(&tls, &context);
	if (ret == 0)
		ret = srdma_conn_connect(host, port, context, device, options, conn);
	srdma_tls_context_unref(&context);
	return ret;
}

/* Writes `text` to the place by RDMA, from a buffer that is registered in the connection's protection domain. */
static int write_text(struct srdma_conn *conn, const struct place *place, char *text, uint32_t size)
{
	struct ibv_mr *mr = ibv_reg_mr(srdma_conn_pd(conn), text, size, 0);
	struct ibv_sge sge = {.addr = (uintptr_t)text, .length = size, .lkey = mr ? mr->lkey : 0};
	struct ibv_send_wr wr = {.sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_RDMA_WRITE, .send_flags = IBV_SEND_SIGNALED};
	struct ibv_send_wr *bad;
	struct ibv_wc wc = {.status = IBV_WC_GENERAL_ERR};
	int n = 0;

	if (!mr)
		return SRDMA_EVERBS;
	wr.wr.rdma.remote_addr = be64toh(place->address);
	wr.wr.rdma.rkey = be32toh(place->rkey);
	if (size <= be32toh(place->size) && ibv_post_send(srdma_conn_qp(conn), &wr, &bad) == 0)
		while ((n = ibv_poll_cq(srdma_conn_send_cq(conn), 1, &wc)) == 0)
			;
	ibv_dereg_mr(mr);
	return n == 1 && wc.status == IBV_WC_SUCCESS ? 0 : SRDMA_EVERBS;
}

static int write_to_peer(struct srdma_conn *conn)
{
	static char text[] = "written by a work request of my own";
	struct place place;
	size_t length;
	int ret = srdma_conn_control_recv(conn, &place, sizeof place, &length, SRDMA_DEFAULT_TIMEOUT);

	if (ret == 0)
		ret = length == sizeof place ? write_text(conn, &place, text, sizeof text) : SRDMA_EPROTOCOL;
	return ret == 0 ? srdma_conn_control_send(conn, "done", 4, SRDMA_DEFAULT_TIMEOUT) : ret;
}

/* The peer's control message comes after its write has completed, so what it wrote is there. */
static int lend_memory(struct srdma_conn *conn)
{
	static char memory[4096];
	struct ibv_mr *mr = ibv_reg_mr(srdma_conn_pd(conn), memory, sizeof memory, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
	struct place place = {htobe64((uintptr_t)memory), htobe32(mr ? mr->rkey : 0), htobe32(sizeof memory)};
	char answer[SRDMA_CONTROL_MESSAGE_MAX];
	size_t length;
	int ret;

	if (!mr)
		return SRDMA_EVERBS;
	ret = srdma_conn_control_send(conn, &place, sizeof place, SRDMA_DEFAULT_TIMEOUT);
	if (ret == 0)
		ret = srdma_conn_control_recv(conn, answer, sizeof answer, &length, SRDMA_DEFAULT_TIMEOUT);
	ibv_dereg_mr(mr);
	if (ret == 0)
		printf("the peer wrote: %.*s\n", (int)strnlen(memory, sizeof memory), memory);
	return ret;
}

int main(int argc, char **argv)
{
	struct srdma_conn_options options;
	struct srdma_device *device = NULL;
	struct srdma_conn *conn = NULL;
	bool accepts = argc == 2;
	int ret;

	if (argc < 2 || argc > 3) {
		fprintf(stderr, "usage: raw PORT | raw HOST PORT\n");
		return 2;
	}
	srdma_conn_options_init(&options);
	options.raw = true;
	options.control_messages = true;
	ret = srdma_device_open(NULL, &device);
	if (ret == 0)
		ret = accepts ? accept_one(argv[1], device, &options, &conn) : connect_to(argv[1], argv[2], device, &options, &conn);
	if (ret == 0)
		ret = accepts ? lend_memory(conn) : write_to_peer(conn);
	if (ret == 0)
		ret = srdma_conn_disconnect(conn, NULL, SRDMA_DEFAULT_TIMEOUT);
	if (ret != 0)
		fprintf(stderr, "raw: %s: %s\n", srdma_strerror(ret), srdma_error_text());
	srdma_conn_free(&conn);
	srdma_device_unref(&device);
	return ret != 0;
}
