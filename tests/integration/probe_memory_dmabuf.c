/* SPDX-License-Identifier: Apache-2.0 */
/* A program's own memory: DMA buffers. */
#include "probe_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/udmabuf.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

/* A DMA buffer of MEMORY_SIZE bytes of memory that this process sees at *bytes. -1: the system makes none. */
static int make_dmabuf(char **bytes)
{
	int device = open("/dev/udmabuf", O_RDWR | O_CLOEXEC), memory, fd;
	struct udmabuf_create create = {.flags = UDMABUF_FLAGS_CLOEXEC, .size = MEMORY_SIZE};

	if (device < 0)
		return -1;
	memory = memfd_create("dmabuf", MFD_ALLOW_SEALING | MFD_CLOEXEC);
	CHECK(memory >= 0 && ftruncate(memory, MEMORY_SIZE) == 0 && fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK) == 0);
	*bytes = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
	CHECK(*bytes != MAP_FAILED);
	create.memfd = (uint32_t)memory;
	fd = ioctl(device, UDMABUF_CREATE, &create);
	CHECK(fd >= 0);
	close(memory);
	close(device);
	return fd;
}

static void expect_dmabuf(struct rig *rig, int fd, uint64_t offset, size_t length, int error)
{
	struct srdma_memory *memory;

	EXPECT(srdma_memory_register_dmabuf(rig->device, fd, offset, length, IBV_ACCESS_REMOTE_READ, &memory), error);
	CHECK(srdma_error_text()[0] != 0);
}

/* The peer writes into a part of a buffer and reads it; this end writes from it. */
static void use_dmabuf(struct rig *rig, struct srdma_memory *memory, char *bytes)
{
	static char data[MEMORY_SIZE];
	struct srdma_conn *ends[2];
	struct srdma_memory *plain = memory_registered(rig, data, MEMORY_SIZE, REMOTE_ALL);
	struct srdma_peer_region region;
	struct srdma_request request;
	struct srdma_piece piece;
	uint32_t id;

	rig_pair(rig, &ends[0], &ends[1]);
	EXPECT(srdma_conn_offer(ends[1], memory, 100, 9000, REMOTE_ALL, "dmabuf", &id), 0);
	EXPECT(srdma_conn_find_region(ends[0], "dmabuf", -1, &region), 0);
	CHECK(region.length == 9000 && region.address < 4096);
	fill(data, 9000, 5);
	piece = memory_piece(plain, 0, 9000);
	memory_post(ends[0], &request, SRDMA_REQUEST_WRITE, region.id, 0, &piece, 1);
	/* The memory was registered from its byte 4096 on. */
	CHECK(is_filled(bytes + 4096 + 100, 9000, 5) && bytes[4096 + 99] == 0 && bytes[4096 + 9100] == 0);
	fill(bytes + 4096 + 100, 9000, 6);
	memory_post(ends[0], &request, SRDMA_REQUEST_READ, region.id, 0, &piece, 1);
	CHECK(is_filled(data, 9000, 6));
	EXPECT(srdma_conn_offer(ends[0], plain, 0, MEMORY_SIZE, REMOTE_ALL, "plain", &id), 0);
	EXPECT(srdma_conn_find_region(ends[1], "plain", -1, &region), 0);
	fill(bytes, MEMORY_SIZE, 7);
	piece = memory_piece(memory, 0, 5000);
	memory_post(ends[1], &request, SRDMA_REQUEST_WRITE, region.id, 3, &piece, 1);
	CHECK(memcmp(data + 3, bytes + 4096, 5000) == 0);
	EXPECT(srdma_conn_withdraw(ends[1], 1), 0);
	for (int i = 0; i < 2; i++)
		srdma_conn_free(&ends[i]);
	srdma_memory_unref(&plain);
}

void mode_memory_dmabuf(struct rig *rig, char **args)
{
	struct srdma_conn *client, *accepted;
	struct srdma_memory *memory;
	char *bytes;
	uint32_t id;
	int fd = make_dmabuf(&bytes), ret;

	fact(rig, "dmabuf", fd >= 0);
	if (fd < 0)
		return;
	memory_agree(rig);
	rig->server_conn.region_size = 0;
	ret = srdma_memory_register_dmabuf(rig->device, fd, 4096, MEMORY_SIZE - 4096, REMOTE_ALL, &memory);
	fact(rig, "registered", ret);
	fact_text(rig, "error", ret == 0 ? "" : srdma_error_text());
	if (ret == 0) {
		expect_dmabuf(rig, fd, 0, MEMORY_SIZE + 1, SRDMA_EVERBS);
		expect_dmabuf(rig, fd, MEMORY_SIZE, 1, SRDMA_EVERBS);
		close(fd); /* The memory has its own. */
		use_dmabuf(rig, memory, bytes);
		rig->client_options.seal = rig->server_conn.seal = SRDMA_SEAL_REQUIRED;
		rig_pair(rig, &client, &accepted);
		EXPECT(srdma_conn_offer(accepted, memory, 0, 8, IBV_ACCESS_REMOTE_READ, "x", &id), -EOPNOTSUPP);
		srdma_conn_free(&client);
		srdma_conn_free(&accepted);
		srdma_memory_unref(&memory);
	}
	EXPECT(munmap(bytes, MEMORY_SIZE), 0);
}
