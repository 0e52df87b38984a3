/* SPDX-License-Identifier: Apache-2.0 */
/* A program's own memory: bounds and bad input. */
#include "probe_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static bool is_sealed(const struct rig *rig)
{
	return rig->client_options.seal != SRDMA_SEAL_OFF;
}

static void bad_registrations(struct rig *rig)
{
	struct srdma_memory *memory;
	long page = sysconf(_SC_PAGESIZE);
	char *read_only = mmap(NULL, (size_t)page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int file = open("/dev/null", O_RDONLY);
	char data[8];

	CHECK(read_only != MAP_FAILED && file >= 0);
	EXPECT(srdma_memory_register(rig->device, NULL, 8, 0, &memory), -EINVAL);
	EXPECT(srdma_memory_register(rig->device, data, 0, 0, &memory), -EINVAL);
	EXPECT(srdma_memory_register(rig->device, data, SIZE_MAX, 0, &memory), -EINVAL);
	EXPECT(srdma_memory_register(rig->device, data, 8, IBV_ACCESS_MW_BIND, &memory), -EINVAL);
	EXPECT(srdma_memory_register(rig->device, read_only, (size_t)page, IBV_ACCESS_LOCAL_WRITE, &memory), -EFAULT);
	EXPECT(srdma_memory_register(rig->device, read_only, (size_t)page, IBV_ACCESS_REMOTE_WRITE, &memory), -EFAULT);
	EXPECT(srdma_memory_register_dmabuf(rig->device, -1, 0, 8, 0, &memory), -EINVAL);
	EXPECT(srdma_memory_register_dmabuf(rig->device, file, 0, 0, 0, &memory), -EINVAL);
	EXPECT(srdma_memory_register_dmabuf(rig->device, file, 1, SIZE_MAX, 0, &memory), -EINVAL);
	EXPECT(srdma_memory_register_dmabuf(rig->device, file, 0, 8, 4096, &memory), -EINVAL);
	/* No dmabuf: what a device that takes one says is its own. */
	CHECK(srdma_memory_register_dmabuf(rig->device, file, 0, (size_t)page, 0, &memory) < 0);
	EXPECT(munmap(read_only, (size_t)page), 0);
	EXPECT(srdma_memory_register(rig->device, read_only, (size_t)page, 0, &memory), -EFAULT);
	close(file);
	memory = NULL;
	srdma_memory_unref(&memory);
}

static void bad_offers(struct rig *rig, struct srdma_conn *conn, char *data)
{
	struct srdma_memory *memory = memory_registered(rig, data, MEMORY_SIZE, IBV_ACCESS_REMOTE_READ);
	char name[SRDMA_REGION_NAME_SIZE + 1];
	uint32_t id = 0, other;

	memset(name, 'n', sizeof name);
	name[SRDMA_REGION_NAME_SIZE] = 0;
	EXPECT(srdma_conn_offer(conn, memory, 0, MEMORY_SIZE, IBV_ACCESS_REMOTE_READ, name, &id), -EINVAL);
	EXPECT(srdma_conn_offer(conn, memory, 0, MEMORY_SIZE, IBV_ACCESS_REMOTE_READ, "a\nb", &id), -EINVAL);
	EXPECT(srdma_conn_offer(conn, memory, 0, MEMORY_SIZE, 0, "x", &id), -EINVAL);
	EXPECT(srdma_conn_offer(conn, memory, 0, MEMORY_SIZE, IBV_ACCESS_REMOTE_READ | IBV_ACCESS_LOCAL_WRITE, "x", &id), -EINVAL);
	EXPECT(srdma_conn_offer(conn, memory, 0, MEMORY_SIZE, IBV_ACCESS_REMOTE_WRITE, "x", &id), -EACCES);
	EXPECT(srdma_conn_offer(conn, memory, 0, 0, IBV_ACCESS_REMOTE_READ, "x", &id), -ERANGE);
	EXPECT(srdma_conn_offer(conn, memory, 1, MEMORY_SIZE, IBV_ACCESS_REMOTE_READ, "x", &id), -ERANGE);
	EXPECT(srdma_conn_offer(conn, memory, UINT64_MAX, 2, IBV_ACCESS_REMOTE_READ, "x", &id), -ERANGE);
	if (is_sealed(rig)) {
		struct srdma_memory *words = memory_registered(rig, data, MEMORY_SIZE, IBV_ACCESS_REMOTE_ATOMIC);

		EXPECT(srdma_conn_offer(conn, words, 0, 8, IBV_ACCESS_REMOTE_ATOMIC, "x", &id), -EOPNOTSUPP);
		srdma_memory_unref(&words);
	}
	EXPECT(srdma_conn_withdraw(conn, 1), -ENXIO);
	EXPECT(srdma_conn_offer(conn, memory, 0, MEMORY_SIZE, IBV_ACCESS_REMOTE_READ, "once", &id), 0);
	EXPECT(srdma_conn_offer(conn, memory, 0, MEMORY_SIZE, IBV_ACCESS_REMOTE_READ, "once", &other), -EEXIST);
	for (int i = 1; i < SRDMA_REGIONS_MAX; i++)
		EXPECT(srdma_conn_offer(conn, memory, 0, MEMORY_SIZE, IBV_ACCESS_REMOTE_READ, NULL, &other), 0);
	EXPECT(srdma_conn_offer(conn, memory, 0, MEMORY_SIZE, IBV_ACCESS_REMOTE_READ, NULL, &other), -ENOSPC);
	EXPECT(srdma_conn_withdraw(conn, id), 0);
	EXPECT(srdma_conn_withdraw(conn, id), -ENXIO);
	EXPECT(srdma_conn_forget(conn, memory), 0);
	EXPECT(srdma_conn_forget(conn, memory), 0);
	EXPECT(srdma_conn_withdraw(conn, other), -ENXIO);
	srdma_memory_unref(&memory);
	CHECK(memory == NULL);
}

static void expect_post(struct srdma_conn *conn, const struct srdma_request *request, int error)
{
	EXPECT(srdma_conn_post(conn, request), error);
	CHECK(srdma_error_text()[0] != 0);
}

/* Found before anything is posted: the connection goes on. */
static void bad_requests(struct rig *rig, struct srdma_conn *conn, char *data, uint32_t region)
{
	struct srdma_memory *memory = memory_registered(rig, data, MEMORY_SIZE, 0);
	struct srdma_memory *landing = memory_registered(rig, data, MEMORY_SIZE, IBV_ACCESS_LOCAL_WRITE);
	struct srdma_piece pieces[SRDMA_PIECES_MAX + 1], bad = {0};
	struct srdma_request good, request;

	for (size_t i = 0; i <= SRDMA_PIECES_MAX; i++)
		pieces[i] = memory_piece(memory, 0, 8);
	srdma_request_init(&good);
	good.region = region;
	good.pieces = pieces;
	good.piece_count = 1;
#define BAD(error, ...) (request = good, __VA_ARGS__, expect_post(conn, &request, error))
	BAD(-EINVAL, request.size = 0);
	BAD(-EINVAL, request.kind = (enum srdma_request_kind)99);
	BAD(-EINVAL, request.pieces = NULL);
	BAD(-EINVAL, request.pieces = &bad);
	BAD(-E2BIG, request.piece_count = SRDMA_PIECES_MAX + 1);
	BAD(-ENXIO, request.region = region + 1);
	BAD(-ENXIO, request.region = region + 65536);
	BAD(-ERANGE, request.offset = MEMORY_SIZE - 7);
	BAD(-ERANGE, request.offset = UINT64_MAX);
	BAD(-ERANGE, pieces[0].offset = MEMORY_SIZE - 7);
	BAD(-ERANGE, pieces[0].offset = UINT64_MAX);
	pieces[0] = memory_piece(memory, 0, UINT64_MAX);
	BAD(-ERANGE, request.piece_count = 2);
	pieces[0] = memory_piece(NULL, 0, 8);
	BAD(-EINVAL, (void)0);
	pieces[0] = memory_piece(memory, 0, 8);
	BAD(-EACCES, request.kind = SRDMA_REQUEST_READ);
	pieces[0].memory = landing;
	BAD(is_sealed(rig) ? -EOPNOTSUPP : -EACCES, request.kind = SRDMA_REQUEST_FETCH_ADD);
	if (!is_sealed(rig)) {
		BAD(-EINVAL, request.kind = SRDMA_REQUEST_COMPARE_SWAP, request.piece_count = 2);
		pieces[0].length = 4;
		BAD(-EINVAL, request.kind = SRDMA_REQUEST_FETCH_ADD);
	}
#undef BAD
	EXPECT(srdma_conn_forget(conn, memory), 0);
	srdma_memory_unref(&memory);
	srdma_memory_unref(&landing);
}

void mode_memory_arguments(struct rig *rig, char **args)
{
	static char data[MEMORY_SIZE];
	struct srdma_conn *client, *accepted;
	struct srdma_memory *memory = memory_registered(rig, data, MEMORY_SIZE, REMOTE_ALL);
	struct srdma_peer_region region;
	struct srdma_notice notice;
	uint64_t changes = 0, address;
	uint32_t id, lkey;

	(void)args;
	bad_registrations(rig);
	rig_pair(rig, &client, &accepted);
	EXPECT(srdma_conn_offer(client, memory, 0, MEMORY_SIZE, REMOTE_ALL, "x", &id), -EOPNOTSUPP);
	EXPECT(srdma_conn_find_region(client, "x", 0, &region), -EOPNOTSUPP);
	EXPECT(srdma_conn_wait_regions(client, &changes, 0), -EOPNOTSUPP);
	EXPECT(srdma_conn_recv_notice(client, &notice, 0), -EOPNOTSUPP);
	EXPECT(srdma_conn_local_memory(client, memory, &address, &lkey), -EOPNOTSUPP);
	EXPECT(srdma_conn_region_at(client, 0, &region), -ENOENT);
	srdma_conn_free(&client);
	srdma_conn_free(&accepted);

	memory_agree(rig);
	rig_pair(rig, &client, &accepted);
	EXPECT(srdma_conn_find_region(client, NULL, 0, &region), -EINVAL);
	EXPECT(srdma_conn_find_region(client, "", 0, &region), -EINVAL);
	EXPECT(srdma_conn_find_region(client, "x", 0, &region), -EAGAIN);
	EXPECT(srdma_conn_find_region(client, "x", 20, &region), -ETIMEDOUT);
	EXPECT(srdma_conn_wait_regions(client, &changes, 0), -EAGAIN);
	EXPECT(srdma_conn_recv_notice(client, &notice, 0), -EAGAIN);
	bad_offers(rig, accepted, data);
	EXPECT(srdma_conn_send(accepted, "m", 1, -1), 0);
	/* The withdrawals are confirmed when this end is in calls. */
	EXPECT(srdma_conn_wait(client, -1), 0);
	EXPECT(srdma_conn_recv_notice(client, &notice, -1), -ENOMSG);
	while (srdma_conn_offer(accepted, memory, 0, MEMORY_SIZE, REMOTE_ALL, "x", &id) == -ENOSPC) {
		EXPECT(srdma_conn_find_region(accepted, "none", 5, &region), -ETIMEDOUT);
		srdma_conn_wait_regions(client, &changes, 5);
	}
	EXPECT(srdma_conn_find_region(client, "x", -1, &region), 0);
	CHECK(region.id == id && region.length == MEMORY_SIZE && region.access == REMOTE_ALL && strcmp(region.name, "x") == 0);
	CHECK((region.rkey == 0) == is_sealed(rig));
	bad_requests(rig, client, data, id);
	srdma_conn_free(&client);
	EXPECT(srdma_conn_offer(accepted, memory, 0, MEMORY_SIZE, REMOTE_ALL, "y", &id), 0);
	srdma_conn_free(&accepted);
	srdma_memory_unref(&memory);
}
