/* SPDX-License-Identifier: Apache-2.0 */
/* Only the secure bring-up: TLS, certificates and random PSNs from the library, the queue pair is the program's own.
 * One side offers memory, the other writes into it with its own work request.
 * usage: raw PORT         accepts one client; ca.crt, server.crt and server.key lie in the working folder
 *        raw HOST PORT    connects; ca.crt, client.crt and client.key lie in the working folder */
#include <securdma.h>
#include <stdint.h>
#include <stdio.h>

#define REGION_SIZE 4096

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

/* Plain verbs on the connected queue pair: RDMA write of a buffer that is registered here, in the connection's PD. */
static int write_own(struct srdma_conn *conn)
{
	static char text[] = "written by a work request of my own";
	struct ibv_mr *mr = ibv_reg_mr(srdma_conn_pd(conn), text, sizeof text, 0);
	struct ibv_sge sge = {.addr = (uintptr_t)text, .length = sizeof text, .lkey = mr ? mr->lkey : 0};
	struct ibv_send_wr wr = {.sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_RDMA_WRITE, .send_flags = IBV_SEND_SIGNALED};
	struct ibv_send_wr *bad;
	struct ibv_wc wc = {.status = IBV_WC_GENERAL_ERR};
	size_t room;
	int n = 0;

	if (!mr)
		return SRDMA_EVERBS;
	if (srdma_conn_peer_region(conn, &wr.wr.rdma.remote_addr, &wr.wr.rdma.rkey, &room) == 0 &&
	    room >= sizeof text && ibv_post_send(srdma_conn_qp(conn), &wr, &bad) == 0)
		while ((n = ibv_poll_cq(srdma_conn_send_cq(conn), 1, &wc)) == 0)
			;
	ibv_dereg_mr(mr);
	return n == 1 && wc.status == IBV_WC_SUCCESS ? 0 : SRDMA_EVERBS;
}

/* Nothing but the peer's disconnect ends the wait of a raw connection in order; then what it wrote is there. */
static int show_written(struct srdma_conn *conn)
{
	int ret = srdma_conn_wait(conn, 60000);

	if (ret != SRDMA_ECLOSED)
		return ret;
	printf("the peer wrote: %.*s\n", REGION_SIZE, (const char *)srdma_conn_region(conn));
	return 0;
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
	if (accepts) {
		options.region_size = REGION_SIZE;
		options.region_access = IBV_ACCESS_REMOTE_WRITE;
	}
	ret = srdma_device_open(NULL, &device);
	if (ret == 0)
		ret = accepts ? accept_one(argv[1], device, &options, &conn) : connect_to(argv[1], argv[2], device, &options, &conn);
	if (ret == 0)
		ret = accepts ? show_written(conn) : write_own(conn);
	if (ret == 0)
		ret = srdma_conn_disconnect(conn, NULL, SRDMA_DEFAULT_TIMEOUT);
	if (ret != 0)
		fprintf(stderr, "raw: %s: %s\n", srdma_strerror(ret), srdma_error_text());
	srdma_conn_free(&conn);
	srdma_device_unref(&device);
	return ret != 0;
}
