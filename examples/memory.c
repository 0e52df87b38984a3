/* SPDX-License-Identifier: Apache-2.0 */
/* One file, mapped once, is offered to many clients, who read it by RDMA straight from the page cache; and a client that reads it.
 * usage: memory PORT FILE         serves until SIGINT or SIGTERM; ca.crt, server.crt and server.key lie in the working folder
 *        memory get HOST PORT     writes the file to standard output; ca.crt, client.crt and client.key lie in the working folder */
#include <errno.h>
#include <fcntl.h>
#include <securdma_memory.h>
#include <securdma_server.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct file {
	struct srdma_memory *memory;
	size_t size;
};

/* ---- the server ------------------------------------------------------------------------------------------------ */

static int offer_file(struct srdma_conn *conn, void **client_arg, void *arg)
{
	const struct file *file = arg;
	uint32_t id;

	(void)client_arg;
	return srdma_conn_offer(conn, file->memory, 0, file->size, IBV_ACCESS_REMOTE_READ, "file", &id);
}

static int serve_until_a_signal(struct file *file, const char *port, struct srdma_device *device, const sigset_t *signals)
{
	struct srdma_tls_server_options tls;
	struct srdma_server_options options;
	struct srdma_conn_options conn;
	struct srdma_tls_context *context = NULL;
	struct srdma_server *server = NULL;
	int ret, number;

	srdma_tls_server_options_init(&tls);
	tls.cert_file = "server.crt";
	tls.key_file = "server.key";
	tls.client_ca_file = "ca.crt";
	srdma_server_conn_options_init(&conn);
	conn.named_regions = true;
	srdma_server_options_init(&options);
	options.port = port;
	options.conn = &conn;
	options.on_connect = offer_file;
	options.arg = file;
	ret = srdma_tls_server_new(&tls, &context);
	if (ret == 0)
		ret = srdma_server_start(&options, context, device, &server);
	srdma_tls_context_unref(&context);
	if (ret != 0)
		return ret;
	sigwait(signals, &number);
	srdma_server_stop(&server);
	return 0;
}

static int serve(const char *port, const char *path, struct srdma_device *device, const sigset_t *signals)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), ret;
	struct file file = {0};
	struct stat status;
	void *data;

	if (fd < 0 || fstat(fd, &status) != 0) {
		perror(path);
		return -ENOENT;
	}
	file.size = status.st_size > 0 ? (size_t)status.st_size : 1;
	data = mmap(NULL, file.size, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (data == MAP_FAILED) {
		perror(path);
		return -ENOMEM;
	}
	/* A read-only mapping is enough for what the clients may do. */
	ret = srdma_memory_register(device, data, file.size, IBV_ACCESS_REMOTE_READ, &file.memory);
	if (ret == 0)
		ret = serve_until_a_signal(&file, port, device, signals);
	srdma_memory_unref(&file.memory);
	munmap(data, file.size);
	return ret;
}

/* ---- a client -------------------------------------------------------------------------------------------------- */

static int read_part(struct srdma_conn *conn, uint32_t region, uint64_t offset, struct srdma_memory *memory, size_t length)
{
	struct srdma_request request;
	struct srdma_piece piece;
	uint64_t cookie;
	int ret;

	srdma_piece_init(&piece);
	piece.memory = memory;
	piece.length = length;
	srdma_request_init(&request);
	request.kind = SRDMA_REQUEST_READ;
	request.region = region;
	request.offset = offset;
	request.pieces = &piece;
	request.piece_count = 1;
	ret = srdma_conn_post(conn, &request);
	if (ret == 0)
		ret = srdma_conn_complete(conn, &cookie, 1, SRDMA_DEFAULT_TIMEOUT);
	return ret < 0 ? ret : 0;
}

static int copy_out(struct srdma_conn *conn, struct srdma_device *device)
{
	static char buffer[65536];
	struct srdma_peer_region region;
	struct srdma_memory *memory = NULL;
	int ret = srdma_conn_find_region(conn, "file", SRDMA_DEFAULT_TIMEOUT, &region);

	if (ret == 0)
		ret = srdma_memory_register(device, buffer, sizeof buffer, IBV_ACCESS_LOCAL_WRITE, &memory);
	for (uint64_t done = 0; ret == 0 && done < region.length;) {
		size_t length = region.length - done < sizeof buffer ? (size_t)(region.length - done) : sizeof buffer;

		ret = read_part(conn, region.id, done, memory, length);
		if (ret == 0)
			done += fwrite(buffer, 1, length, stdout);
	}
	srdma_memory_unref(&memory);
	return ret;
}

static int get(const char *host, const char *port, struct srdma_device *device)
{
	struct srdma_tls_client_options tls;
	struct srdma_conn_options options;
	struct srdma_tls_context *context = NULL;
	struct srdma_conn *conn = NULL;
	int ret;

	srdma_tls_client_options_init(&tls);
	tls.ca_file = "ca.crt";
	tls.cert_file = "client.crt";
	tls.key_file = "client.key";
	srdma_conn_options_init(&options);
	options.named_regions = true;
	ret = srdma_tls_client_new(&tls, &context);
	if (ret == 0)
		ret = srdma_conn_connect(host, port, context, device, &options, &conn);
	if (ret == 0)
		ret = copy_out(conn, device);
	if (ret == 0)
		ret = srdma_conn_disconnect(conn, NULL, SRDMA_DEFAULT_TIMEOUT);
	srdma_conn_free(&conn);
	srdma_tls_context_unref(&context);
	return ret;
}

int main(int argc, char **argv)
{
	struct srdma_device *device = NULL;
	bool gets = argc == 4 && strcmp(argv[1], "get") == 0;
	sigset_t signals;
	int ret;

	if (!gets && argc != 3) {
		fprintf(stderr, "usage: memory PORT FILE | memory get HOST PORT\n");
		return 2;
	}
	/* Before the library starts threads. */
	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	if (!gets)
		pthread_sigmask(SIG_BLOCK, &signals, NULL);
	ret = srdma_device_open(NULL, &device);
	if (ret == 0)
		ret = gets ? get(argv[2], argv[3], device) : serve(argv[1], argv[2], device, &signals);
	if (ret != 0)
		fprintf(stderr, "memory: %s: %s\n", srdma_strerror(ret), srdma_error_text());
	srdma_device_unref(&device);
	return ret != 0;
}
