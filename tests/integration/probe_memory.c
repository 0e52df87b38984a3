/* SPDX-License-Identifier: Apache-2.0 */
/* A program's own memory: regions with names, requests of several pieces, notices, atomic operations. */
#include "probe.h"
#include "securdma_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/udmabuf.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SIZE = 64 * 1024, REMOTE_ALL = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ };

/* The end that offers, in a thread of its own: all calls need both programs to be in calls of the library. */
struct offering {
	struct rig *rig;
	struct srdma_conn *conn;
	pthread_t thread;
	atomic_bool over;
	char *data;
	struct srdma_memory *memory;
	uint32_t ids[3];
	int status; /* of its last call */
};

static bool is_sealed(const struct rig *rig)
{
	return rig->client_options.seal != SRDMA_SEAL_OFF;
}

static struct srdma_memory *registered(struct rig *rig, void *data, size_t size, unsigned access)
{
	struct srdma_memory *memory;

	EXPECT(srdma_memory_register(rig->device, data, size, access, &memory), 0);
	return memory;
}

static void note_release(void *arg)
{
	atomic_fetch_add((atomic_int *)arg, 1);
}

static void agree(struct rig *rig)
{
	rig->client_options.named_regions = rig->server_conn.named_regions = true;
}

static void post(struct srdma_conn *conn, struct srdma_request *request, enum srdma_request_kind kind, uint32_t region, uint64_t offset,
		 const struct srdma_piece *pieces, size_t count)
{
	uint64_t cookie = 0;
	int ret;

	srdma_request_init(request);
	request->kind = kind;
	request->region = region;
	request->offset = offset;
	request->pieces = pieces;
	request->piece_count = count;
	request->cookie = 77;
	/* A renewal may be under way. */
	while ((ret = srdma_conn_post(conn, request)) == -EAGAIN)
		srdma_conn_wait(conn, 10);
	EXPECT(ret, 0);
	EXPECT(srdma_conn_complete(conn, &cookie, 1, -1), 1);
	EXPECT(cookie, 77);
}

static struct srdma_piece piece_of(struct srdma_memory *memory, uint64_t offset, uint64_t length)
{
	struct srdma_piece piece;

	srdma_piece_init(&piece);
	piece.memory = memory;
	piece.offset = offset;
	piece.length = length;
	return piece;
}

/* ---- bounds and bad input -------------------------------------------------------------------------------------- */

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
	struct srdma_memory *memory = registered(rig, data, SIZE, IBV_ACCESS_REMOTE_READ);
	char name[SRDMA_REGION_NAME_SIZE + 1];
	uint32_t id = 0, other;

	memset(name, 'n', sizeof name);
	name[SRDMA_REGION_NAME_SIZE] = 0;
	EXPECT(srdma_conn_offer(conn, memory, 0, SIZE, IBV_ACCESS_REMOTE_READ, name, &id), -EINVAL);
	EXPECT(srdma_conn_offer(conn, memory, 0, SIZE, IBV_ACCESS_REMOTE_READ, "a\nb", &id), -EINVAL);
	EXPECT(srdma_conn_offer(conn, memory, 0, SIZE, 0, "x", &id), -EINVAL);
	EXPECT(srdma_conn_offer(conn, memory, 0, SIZE, IBV_ACCESS_REMOTE_READ | IBV_ACCESS_LOCAL_WRITE, "x", &id), -EINVAL);
	EXPECT(srdma_conn_offer(conn, memory, 0, SIZE, IBV_ACCESS_REMOTE_WRITE, "x", &id), -EACCES);
	EXPECT(srdma_conn_offer(conn, memory, 0, 0, IBV_ACCESS_REMOTE_READ, "x", &id), -ERANGE);
	EXPECT(srdma_conn_offer(conn, memory, 1, SIZE, IBV_ACCESS_REMOTE_READ, "x", &id), -ERANGE);
	EXPECT(srdma_conn_offer(conn, memory, UINT64_MAX, 2, IBV_ACCESS_REMOTE_READ, "x", &id), -ERANGE);
	if (is_sealed(rig)) {
		struct srdma_memory *words = registered(rig, data, SIZE, IBV_ACCESS_REMOTE_ATOMIC);

		EXPECT(srdma_conn_offer(conn, words, 0, 8, IBV_ACCESS_REMOTE_ATOMIC, "x", &id), -EOPNOTSUPP);
		srdma_memory_unref(&words);
	}
	EXPECT(srdma_conn_withdraw(conn, 1), -ENXIO);
	EXPECT(srdma_conn_offer(conn, memory, 0, SIZE, IBV_ACCESS_REMOTE_READ, "once", &id), 0);
	EXPECT(srdma_conn_offer(conn, memory, 0, SIZE, IBV_ACCESS_REMOTE_READ, "once", &other), -EEXIST);
	for (int i = 1; i < SRDMA_REGIONS_MAX; i++)
		EXPECT(srdma_conn_offer(conn, memory, 0, SIZE, IBV_ACCESS_REMOTE_READ, NULL, &other), 0);
	EXPECT(srdma_conn_offer(conn, memory, 0, SIZE, IBV_ACCESS_REMOTE_READ, NULL, &other), -ENOSPC);
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
	struct srdma_memory *memory = registered(rig, data, SIZE, 0), *landing = registered(rig, data, SIZE, IBV_ACCESS_LOCAL_WRITE);
	struct srdma_piece pieces[SRDMA_PIECES_MAX + 1], bad = {0};
	struct srdma_request good, request;

	for (size_t i = 0; i <= SRDMA_PIECES_MAX; i++)
		pieces[i] = piece_of(memory, 0, 8);
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
	BAD(-ERANGE, request.offset = SIZE - 7);
	BAD(-ERANGE, request.offset = UINT64_MAX);
	BAD(-ERANGE, pieces[0].offset = SIZE - 7);
	BAD(-ERANGE, pieces[0].offset = UINT64_MAX);
	pieces[0] = piece_of(memory, 0, UINT64_MAX);
	BAD(-ERANGE, request.piece_count = 2);
	pieces[0] = piece_of(NULL, 0, 8);
	BAD(-EINVAL, (void)0);
	pieces[0] = piece_of(memory, 0, 8);
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
	static char data[SIZE];
	struct srdma_conn *client, *accepted;
	struct srdma_memory *memory = registered(rig, data, SIZE, REMOTE_ALL);
	struct srdma_peer_region region;
	struct srdma_notice notice;
	uint64_t changes = 0, address;
	uint32_t id, lkey;

	(void)args;
	bad_registrations(rig);
	rig_pair(rig, &client, &accepted);
	EXPECT(srdma_conn_offer(client, memory, 0, SIZE, REMOTE_ALL, "x", &id), -EOPNOTSUPP);
	EXPECT(srdma_conn_find_region(client, "x", 0, &region), -EOPNOTSUPP);
	EXPECT(srdma_conn_wait_regions(client, &changes, 0), -EOPNOTSUPP);
	EXPECT(srdma_conn_recv_notice(client, &notice, 0), -EOPNOTSUPP);
	EXPECT(srdma_conn_local_memory(client, memory, &address, &lkey), -EOPNOTSUPP);
	EXPECT(srdma_conn_region_at(client, 0, &region), -ENOENT);
	srdma_conn_free(&client);
	srdma_conn_free(&accepted);

	agree(rig);
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
	while (srdma_conn_offer(accepted, memory, 0, SIZE, REMOTE_ALL, "x", &id) == -ENOSPC) {
		EXPECT(srdma_conn_find_region(accepted, "none", 5, &region), -ETIMEDOUT);
		srdma_conn_wait_regions(client, &changes, 5);
	}
	EXPECT(srdma_conn_find_region(client, "x", -1, &region), 0);
	CHECK(region.id == id && region.length == SIZE && region.access == REMOTE_ALL && strcmp(region.name, "x") == 0);
	CHECK((region.rkey == 0) == is_sealed(rig));
	bad_requests(rig, client, data, id);
	srdma_conn_free(&client);
	EXPECT(srdma_conn_offer(accepted, memory, 0, SIZE, REMOTE_ALL, "y", &id), 0);
	srdma_conn_free(&accepted);
	srdma_memory_unref(&memory);
}

/* ---- use ------------------------------------------------------------------------------------------------------- */

/* Offers three regions of one memory and answers each message with what the message says. */
static void *offer_and_echo(void *arg)
{
	struct offering *o = arg;
	char message[64];
	size_t n;

	EXPECT(srdma_conn_offer(o->conn, o->memory, 0, SIZE, REMOTE_ALL, "all", &o->ids[0]), 0);
	EXPECT(srdma_conn_offer(o->conn, o->memory, 100, 5000, IBV_ACCESS_REMOTE_READ, "part", &o->ids[1]), 0);
	EXPECT(srdma_conn_offer(o->conn, o->memory, 0, 64, IBV_ACCESS_REMOTE_WRITE, NULL, &o->ids[2]), 0);
	while ((o->status = srdma_conn_recv(o->conn, message, sizeof message, &n, -1)) == 0 || o->status == -ENOMSG) {
		struct srdma_notice notice;

		if (o->status == -ENOMSG) {
			EXPECT(srdma_conn_recv_notice(o->conn, &notice, 0), 0);
			memcpy(message, &notice.value, 4);
			memcpy(message + 4, &notice.length, 8);
			memcpy(message + 12, o->data, 8); /* as it is at this moment */
			n = 20;
		} else if (message[0] == 'w') {
			EXPECT(srdma_conn_withdraw(o->conn, o->ids[1]), 0);
		}
		if (srdma_conn_send(o->conn, message, n, -1) != 0)
			break;
	}
	return NULL;
}

static void begin(struct rig *rig, struct offering *o, struct srdma_conn **client)
{
	static char data[SIZE] __attribute__((aligned(8)));

	agree(rig);
	*o = (struct offering){.rig = rig, .data = data};
	rig_pair(rig, client, &o->conn);
	o->memory = registered(rig, data, SIZE, REMOTE_ALL);
	EXPECT(pthread_create(&o->thread, NULL, offer_and_echo, o), 0);
}

static void end(struct offering *o, struct srdma_conn **client)
{
	rig_leave(client);
	EXPECT(pthread_join(o->thread, NULL), 0);
	EXPECT(o->status, SRDMA_ECLOSED);
	srdma_conn_free(&o->conn);
	srdma_memory_unref(&o->memory);
}

static void check_write_and_read(struct rig *rig, struct srdma_conn *conn, const struct srdma_peer_region *region, unsigned round)
{
	static char out[SIZE], in[SIZE];
	struct srdma_memory *from = registered(rig, out, SIZE, 0), *to = registered(rig, in, SIZE, IBV_ACCESS_LOCAL_WRITE);
	struct srdma_piece pieces[4];
	struct srdma_request request;

	fill(out, SIZE, round);
	memset(in, 0, sizeof in);
	/* In pieces of another order here than there. */
	pieces[0] = piece_of(from, 30000, 20000);
	pieces[1] = piece_of(from, 0, 1);
	pieces[2] = piece_of(from, 7, 0);
	pieces[3] = piece_of(from, 1, 9999);
	post(conn, &request, SRDMA_REQUEST_WRITE, region->id, 17, pieces, 4);
	pieces[0] = piece_of(to, 50000, 5);
	pieces[1] = piece_of(to, 0, 19995);
	pieces[2] = piece_of(to, 20000, 10000);
	post(conn, &request, SRDMA_REQUEST_READ, region->id, 17, pieces, 3);
	CHECK(memcmp(in + 50000, out + 30000, 5) == 0 && memcmp(in, out + 30005, 19995) == 0);
	CHECK(memcmp(in + 20000, out, 10000) == 0 && in[19995] == 0 && in[30000] == 0);
	post(conn, &request, SRDMA_REQUEST_WRITE, region->id, region->length, NULL, 0);
	EXPECT(srdma_conn_forget(conn, from), 0);
	srdma_memory_unref(&from);
	srdma_memory_unref(&to); /* the connection lets go of it by itself */
}

/* A notice comes after the bytes of its write, and in order with messages. */
static void check_notice(struct rig *rig, struct srdma_conn *conn, const struct srdma_peer_region *region, uint32_t value)
{
	char out[8], answer[64];
	struct srdma_memory *from = registered(rig, out, sizeof out, 0);
	struct srdma_piece piece = piece_of(from, 0, sizeof out);
	struct srdma_request request;
	uint64_t length, cookie;
	size_t n;
	int ret;

	fill(out, sizeof out, value);
	EXPECT(srdma_conn_send(conn, "before", 6, -1), 0);
	srdma_request_init(&request);
	request.kind = SRDMA_REQUEST_WRITE_NOTIFY;
	request.region = region->id;
	request.pieces = &piece;
	request.piece_count = 1;
	request.notice = value;
	while ((ret = srdma_conn_post(conn, &request)) == -EAGAIN)
		srdma_conn_wait(conn, 10);
	EXPECT(ret, 0);
	EXPECT(srdma_conn_send(conn, "after", 5, -1), 0);
	EXPECT(srdma_conn_recv(conn, answer, sizeof answer, &n, -1), 0);
	CHECK(n == 6 && memcmp(answer, "before", 6) == 0);
	EXPECT(srdma_conn_recv(conn, answer, sizeof answer, &n, -1), 0);
	memcpy(&length, answer + 4, 8);
	CHECK(n == 20 && memcmp(answer, &value, 4) == 0 && length == 8 && memcmp(answer + 12, out, 8) == 0);
	EXPECT(srdma_conn_recv(conn, answer, sizeof answer, &n, -1), 0);
	CHECK(n == 5 && memcmp(answer, "after", 5) == 0);
	EXPECT(srdma_conn_complete(conn, &cookie, 1, -1), 1);
	EXPECT(srdma_conn_forget(conn, from), 0);
	srdma_memory_unref(&from);
}

/* As often as it takes for the given number of renewals. */
void mode_memory_use(struct rig *rig, char **args)
{
	unsigned wanted = (unsigned)atoi(args[0]);
	struct offering o;
	struct srdma_conn *conn;
	struct srdma_peer_region all, part, other;
	struct srdma_conn_info info;
	struct srdma_memory *memory;
	struct srdma_request request;
	struct srdma_piece piece;
	uint64_t changes = 0;
	static char in[SIZE];
	char answer[64];
	unsigned round = 0;
	size_t n;

	begin(rig, &o, &conn);
	EXPECT(srdma_conn_find_region(conn, "part", -1, &part), 0);
	EXPECT(srdma_conn_find_region(conn, "all", -1, &all), 0);
	while (srdma_conn_region_at(conn, 2, &other) != 0)
		EXPECT(srdma_conn_wait_regions(conn, &changes, -1), 0);
	CHECK(other.name[0] == 0 && other.length == 64 && other.access == IBV_ACCESS_REMOTE_WRITE);
	EXPECT(srdma_conn_region_at(conn, 0, &other), 0);
	CHECK(other.id == all.id && part.length == 5000);
	do {
		check_write_and_read(rig, conn, &all, ++round);
		check_notice(rig, conn, &all, round * 0x01010101u);
		srdma_conn_get_info(conn, &info);
	} while (info.epoch < wanted || round < 3);

	/* The part is a part of the same memory, and only to be read. */
	memory = registered(rig, in, SIZE, IBV_ACCESS_LOCAL_WRITE);
	piece = piece_of(memory, 0, 5000);
	post(conn, &request, SRDMA_REQUEST_READ, part.id, 0, &piece, 1);
	CHECK(memcmp(in, o.data + 100, 5000) == 0);
	EXPECT((request.kind = SRDMA_REQUEST_WRITE, srdma_conn_post(conn, &request)), -EACCES);
	changes = 3;
	EXPECT(srdma_conn_send(conn, "withdraw", 8, -1), 0);
	EXPECT(srdma_conn_wait_regions(conn, &changes, -1), 0);
	EXPECT(srdma_conn_get_region(conn, part.id, &other), -ENXIO);
	EXPECT((request.kind = SRDMA_REQUEST_READ, srdma_conn_post(conn, &request)), -ENXIO);
	EXPECT(srdma_conn_recv(conn, answer, sizeof answer, &n, -1), 0);
	check_notice(rig, conn, &all, 5);
	EXPECT(srdma_conn_forget(conn, memory), 0);
	srdma_memory_unref(&memory);
	fact(rig, "epochs", info.epoch);
	end(&o, &conn);
}

/* ---- the end of a memory --------------------------------------------------------------------------------------- */

/* The program's references go first: the connection lets go as soon as it can, and the peer loses the region. */
void mode_memory_release(struct rig *rig, char **args)
{
	static char data[SIZE];
	struct srdma_conn *client, *accepted;
	struct srdma_memory *memory = registered(rig, data, SIZE, REMOTE_ALL), *more;
	struct srdma_peer_region region;
	atomic_int released = 0;
	uint64_t changes = 1, deadline = clock_ms() + 15000 * (unsigned)rig->scale;
	uint32_t id;

	(void)args;
	agree(rig);
	srdma_memory_on_release(memory, note_release, &released);
	more = srdma_memory_ref(memory);
	srdma_memory_unref(&more);
	EXPECT(released, 0);
	rig_pair(rig, &client, &accepted);
	EXPECT(srdma_conn_offer(accepted, memory, 0, SIZE, REMOTE_ALL, "x", &id), 0);
	EXPECT(srdma_conn_find_region(client, "x", -1, &region), 0);
	srdma_memory_unref(&memory);
	EXPECT(released, 0);
	while (!released && clock_ms() < deadline)
		EXPECT(srdma_conn_find_region(accepted, "none", 5, &region), -ETIMEDOUT);
	EXPECT(released, 1);
	EXPECT(srdma_conn_wait_regions(client, &changes, -1), 0);
	EXPECT(srdma_conn_get_region(client, id, &region), -ENXIO);
	/* Or with the connection. */
	memory = registered(rig, data, SIZE, REMOTE_ALL);
	srdma_memory_on_release(memory, note_release, &released);
	EXPECT(srdma_conn_offer(accepted, memory, 0, SIZE, REMOTE_ALL, "y", &id), 0);
	srdma_memory_unref(&memory);
	srdma_conn_free(&accepted);
	EXPECT(released, 2);
	srdma_conn_free(&client);
}

/* ---- withdrawn in use ------------------------------------------------------------------------------------------ */

static void *offer_and_withdraw(void *arg)
{
	struct offering *o = arg;
	struct srdma_peer_region region;

	EXPECT(srdma_conn_offer(o->conn, o->memory, 0, SIZE, REMOTE_ALL, "x", &o->ids[0]), 0);
	/* Until the writes are under way. */
	while (!o->over && o->status == 0) {
		int ret = srdma_conn_find_region(o->conn, "none", 1, &region);

		o->status = ret == -ETIMEDOUT ? 0 : ret;
	}
	if (o->status == 0)
		o->status = srdma_conn_withdraw(o->conn, o->ids[0]);
	/* Whatever came is in place: from here on nothing changes any more. */
	memset(o->data, 0, SIZE);
	while (o->status == 0 || o->status == -ETIMEDOUT)
		o->status = srdma_conn_find_region(o->conn, "none", 100, &region);
	for (size_t i = 0; i < SIZE; i++)
		CHECK(o->data[i] == 0);
	srdma_conn_free(&o->conn); /* which tells the peer */
	return NULL;
}

void mode_memory_withdraw(struct rig *rig, char **args)
{
	static char data[SIZE], out[SIZE];
	struct offering o = {.rig = rig, .data = data};
	struct srdma_conn *conn;
	struct srdma_memory *memory = registered(rig, out, SIZE, 0);
	struct srdma_peer_region region;
	struct srdma_request request;
	struct srdma_piece piece = piece_of(memory, 0, SIZE);
	uint64_t cookies[16];
	int ret = 0;

	(void)args;
	agree(rig);
	memset(out, 'x', sizeof out);
	rig_pair(rig, &conn, &o.conn);
	o.memory = registered(rig, data, SIZE, REMOTE_ALL);
	EXPECT(pthread_create(&o.thread, NULL, offer_and_withdraw, &o), 0);
	EXPECT(srdma_conn_find_region(conn, "x", -1, &region), 0);
	srdma_request_init(&request);
	request.region = region.id;
	request.pieces = &piece;
	request.piece_count = 1;
	/* The region goes at some moment: either a post says so, or what was under way ends the connection. */
	for (unsigned i = 0; ret >= 0 || ret == -EAGAIN; i++) {
		ret = srdma_conn_post(conn, &request);
		if (i == 20)
			atomic_store(&o.over, true);
		if (ret == -EAGAIN)
			ret = srdma_conn_complete(conn, cookies, 16, 5000 * rig->scale);
	}
	fact(rig, "error", ret);
	srdma_conn_free(&conn);
	EXPECT(pthread_join(o.thread, NULL), 0);
	srdma_memory_unref(&o.memory);
	srdma_memory_unref(&memory);
}

/* ---- atomic operations ----------------------------------------------------------------------------------------- */

static uint64_t atomic_now(struct srdma_conn *conn, enum srdma_request_kind kind, uint32_t region, struct srdma_piece *piece, uint64_t *result,
			   uint64_t operand, uint64_t compare)
{
	struct srdma_request request;
	uint64_t cookie;
	int ret;

	srdma_request_init(&request);
	request.kind = kind;
	request.region = region;
	request.offset = 8;
	request.pieces = piece;
	request.piece_count = 1;
	request.operand = operand;
	request.compare = compare;
	while ((ret = srdma_conn_post(conn, &request)) == -EAGAIN)
		srdma_conn_wait(conn, 10);
	EXPECT(ret, 0);
	EXPECT(srdma_conn_complete(conn, &cookie, 1, -1), 1);
	return *result;
}

static void *serve_until_over(void *arg)
{
	struct offering *o = arg;
	struct srdma_peer_region region;

	while ((o->status = srdma_conn_find_region(o->conn, "none", 20, &region)) == -ETIMEDOUT)
		;
	return NULL;
}

/* Adds across renewals, so that each is executed once. */
void mode_memory_atomics(struct rig *rig, char **args)
{
	static uint64_t words[2], result;
	struct offering o = {.rig = rig};
	struct srdma_conn *conn;
	struct srdma_memory *there = registered(rig, words, sizeof words, IBV_ACCESS_REMOTE_ATOMIC), *here = registered(rig, &result, 8, IBV_ACCESS_LOCAL_WRITE);
	struct srdma_piece piece = piece_of(here, 0, 8);
	struct srdma_conn_info info;
	struct srdma_peer_region region;
	uint64_t sum = 0;

	(void)args;
	agree(rig);
	rig_pair(rig, &conn, &o.conn);
	EXPECT(srdma_conn_offer(o.conn, there, 0, sizeof words, IBV_ACCESS_REMOTE_ATOMIC, "words", &o.ids[0]), 0);
	EXPECT(pthread_create(&o.thread, NULL, serve_until_over, &o), 0);
	EXPECT(srdma_conn_find_region(conn, "words", -1, &region), 0);
	do {
		EXPECT(atomic_now(conn, SRDMA_REQUEST_FETCH_ADD, region.id, &piece, &result, 3, 0), sum);
		sum += 3;
		srdma_conn_get_info(conn, &info);
	} while (sum < 30 || info.epoch < 2);
	EXPECT(words[1], sum);
	EXPECT(atomic_now(conn, SRDMA_REQUEST_COMPARE_SWAP, region.id, &piece, &result, 5, sum), sum);
	EXPECT(atomic_now(conn, SRDMA_REQUEST_COMPARE_SWAP, region.id, &piece, &result, 9, sum), 5);
	CHECK(words[0] == 0 && words[1] == 5);
	rig_leave(&conn);
	EXPECT(pthread_join(o.thread, NULL), 0);
	srdma_conn_free(&o.conn);
	srdma_memory_unref(&there);
	srdma_memory_unref(&here);
}

/* The queue pair fails while an addition is under way: whether it was executed or not, it is not executed twice. */
static bool add_and_break(struct rig *rig, uint64_t *word)
{
	static uint64_t result;
	struct offering o = {.rig = rig};
	struct ibv_qp_attr error = {.qp_state = IBV_QPS_ERR};
	struct srdma_conn *conn;
	struct srdma_memory *there = registered(rig, word, sizeof *word, IBV_ACCESS_REMOTE_ATOMIC), *here = registered(rig, &result, 8, IBV_ACCESS_LOCAL_WRITE);
	struct srdma_piece piece = piece_of(here, 0, 8);
	struct srdma_peer_region region;
	struct srdma_request request;
	uint64_t cookie;
	int ret;

	rig_pair(rig, &conn, &o.conn);
	EXPECT(srdma_conn_offer(o.conn, there, 0, sizeof *word, IBV_ACCESS_REMOTE_ATOMIC, "word", &o.ids[0]), 0);
	EXPECT(pthread_create(&o.thread, NULL, serve_until_over, &o), 0);
	EXPECT(srdma_conn_find_region(conn, "word", -1, &region), 0);
	srdma_request_init(&request);
	request.kind = SRDMA_REQUEST_FETCH_ADD;
	request.region = region.id;
	request.pieces = &piece;
	request.piece_count = 1;
	request.operand = 1;
	EXPECT(srdma_conn_post(conn, &request), 0);
	EXPECT(ibv_modify_qp(srdma_conn_qp(conn), &error, IBV_QP_STATE), 0);
	ret = srdma_conn_complete(conn, &cookie, 1, -1);
	CHECK(ret == 1 || (ret == SRDMA_EVERBS && strstr(srdma_error_text(), "it is not repeated")));
	srdma_conn_free(&conn);
	EXPECT(pthread_join(o.thread, NULL), 0);
	srdma_conn_free(&o.conn);
	srdma_memory_unref(&there);
	srdma_memory_unref(&here);
	return ret == SRDMA_EVERBS;
}

void mode_memory_broken(struct rig *rig, char **args)
{
	static uint64_t word;
	bool seen = false;

	(void)args;
	agree(rig);
	for (int i = 0; i < 20 && !seen; i++) {
		word = 0;
		seen = add_and_break(rig, &word);
		CHECK(word <= 1);
	}
	CHECK(seen);
}

/* ---- servers --------------------------------------------------------------------------------------------------- */

static struct srdma_memory *served;

static int offer_to_client(struct srdma_conn *conn, void **client_arg, void *arg)
{
	uint32_t id;

	(void)client_arg;
	(void)arg;
	return srdma_conn_offer(conn, served, 0, SIZE, REMOTE_ALL, "served", &id);
}

static int answer_notice(struct srdma_conn *conn, const struct srdma_notice *notice, char *reason, void *client_arg, void *arg)
{
	(void)client_arg;
	(void)arg;
	if (notice->value == 13) {
		strcpy(reason, "an unlucky number");
		return -EPERM;
	}
	return srdma_conn_send(conn, &notice->value, 4, 0);
}

static int count_regions(struct srdma_conn *conn, char *reason, void *client_arg, void *arg)
{
	struct srdma_peer_region region;
	char found = srdma_conn_find_region(conn, "client's", 0, &region) == 0;

	(void)reason;
	(void)client_arg;
	(void)arg;
	return srdma_conn_send(conn, &found, 1, 0);
}

static void notify(struct srdma_conn *conn, uint32_t region, uint32_t value)
{
	struct srdma_request request;

	srdma_request_init(&request);
	request.kind = SRDMA_REQUEST_WRITE_NOTIFY;
	request.region = region;
	request.notice = value;
	EXPECT(srdma_conn_post(conn, &request), 0);
}

void mode_memory_server(struct rig *rig, char **args)
{
	static char data[SIZE], own[64];
	struct srdma_memory *memory = registered(rig, own, sizeof own, IBV_ACCESS_REMOTE_READ);
	struct srdma_conn *conn[3];
	struct srdma_peer_region region;
	struct srdma_conn_info info;
	uint32_t value, id;
	char found;
	size_t n;

	(void)args;
	agree(rig);
	served = registered(rig, data, SIZE, REMOTE_ALL);
	rig->server_options.on_connect = offer_to_client;
	rig->server_options.on_notice = answer_notice;
	rig->server_options.on_regions = count_regions;
	rig_serve(rig);
	for (int i = 0; i < 3; i++) {
		conn[i] = rig_connect(rig);
		EXPECT(srdma_conn_find_region(conn[i], "served", -1, &region), 0);
		check_write_and_read(rig, conn[i], &region, (unsigned)i);
		notify(conn[i], region.id, 7);
		EXPECT(srdma_conn_recv(conn[i], &value, 4, &n, -1), 0);
		EXPECT(value, 7);
		EXPECT(srdma_conn_offer(conn[i], memory, 0, sizeof own, IBV_ACCESS_REMOTE_READ, "client's", &id), 0);
		EXPECT(srdma_conn_recv(conn[i], &found, 1, &n, -1), 0);
		EXPECT(found, 1);
		EXPECT(srdma_conn_withdraw(conn[i], id), 0);
		EXPECT(srdma_conn_recv(conn[i], &found, 1, &n, -1), 0);
		EXPECT(found, 0);
	}
	notify(conn[0], region.id, 13);
	EXPECT(srdma_conn_recv(conn[0], &value, 4, &n, -1), SRDMA_ECLOSED);
	srdma_conn_get_info(conn[0], &info);
	fact_text(rig, "close_reason", info.close_reason);
	for (int i = 0; i < 3; i++)
		rig_leave(&conn[i]);
	srdma_memory_unref(&memory);
	rig_stop(rig, 0);
	srdma_memory_unref(&served);
}

/* ---- raw connections ------------------------------------------------------------------------------------------- */

void mode_memory_raw(struct rig *rig, char **args)
{
	static char data[SIZE], out[64] = "by a work request of my own";
	struct srdma_conn *client, *accepted;
	struct srdma_memory *there = registered(rig, data, SIZE, REMOTE_ALL), *here = registered(rig, out, sizeof out, 0);
	struct srdma_peer_region region;
	struct ibv_send_wr wr = {.opcode = IBV_WR_RDMA_WRITE, .send_flags = IBV_SEND_SIGNALED, .num_sge = 1}, *bad;
	struct ibv_sge sge = {.length = sizeof out};
	struct srdma_request request;
	struct ibv_wc wc;
	uint32_t id;
	int n;

	(void)args;
	agree(rig);
	rig->client_options.raw = rig->server_conn.raw = true;
	rig->server_conn.region_size = 0;
	rig_pair(rig, &client, &accepted);
	EXPECT(srdma_conn_offer(accepted, there, 1000, 500, REMOTE_ALL, "raw", &id), 0);
	EXPECT(srdma_conn_find_region(client, "raw", -1, &region), 0);
	EXPECT(srdma_conn_local_memory(client, here, &sge.addr, &sge.lkey), 0);
	srdma_request_init(&request);
	EXPECT(srdma_conn_post(client, &request), -EOPNOTSUPP);
	wr.sg_list = &sge;
	wr.wr.rdma.remote_addr = region.address + 17;
	wr.wr.rdma.rkey = region.rkey;
	EXPECT(ibv_post_send(srdma_conn_qp(client), &wr, &bad), 0);
	while ((n = ibv_poll_cq(srdma_conn_send_cq(client), 1, &wc)) == 0)
		;
	CHECK(n == 1 && wc.status == IBV_WC_SUCCESS && strcmp(data + 1017, out) == 0);
	/* Beyond the region is beyond the key. */
	wr.wr.rdma.remote_addr = region.address + 500 - sizeof out + 1;
	EXPECT(ibv_post_send(srdma_conn_qp(client), &wr, &bad), 0);
	while ((n = ibv_poll_cq(srdma_conn_send_cq(client), 1, &wc)) == 0)
		;
	CHECK(n == 1 && wc.status == IBV_WC_REM_ACCESS_ERR);
	srdma_conn_free(&client);
	srdma_conn_free(&accepted);
	srdma_memory_unref(&there);
	srdma_memory_unref(&here);
}

/* ---- DMA buffers ----------------------------------------------------------------------------------------------- */

/* A DMA buffer of SIZE bytes of memory that this process sees at *bytes. -1: the system makes none. */
static int make_dmabuf(char **bytes)
{
	int device = open("/dev/udmabuf", O_RDWR | O_CLOEXEC), memory, fd;
	struct udmabuf_create create = {.flags = UDMABUF_FLAGS_CLOEXEC, .size = SIZE};

	if (device < 0)
		return -1;
	memory = memfd_create("dmabuf", MFD_ALLOW_SEALING | MFD_CLOEXEC);
	CHECK(memory >= 0 && ftruncate(memory, SIZE) == 0 && fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK) == 0);
	*bytes = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
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
	static char data[SIZE];
	struct srdma_conn *ends[2];
	struct srdma_memory *plain = registered(rig, data, SIZE, REMOTE_ALL);
	struct srdma_peer_region region;
	struct srdma_request request;
	struct srdma_piece piece;
	uint32_t id;

	rig_pair(rig, &ends[0], &ends[1]);
	EXPECT(srdma_conn_offer(ends[1], memory, 100, 9000, REMOTE_ALL, "dmabuf", &id), 0);
	EXPECT(srdma_conn_find_region(ends[0], "dmabuf", -1, &region), 0);
	CHECK(region.length == 9000 && region.address < 4096);
	fill(data, 9000, 5);
	piece = piece_of(plain, 0, 9000);
	post(ends[0], &request, SRDMA_REQUEST_WRITE, region.id, 0, &piece, 1);
	/* The memory was registered from its byte 4096 on. */
	CHECK(is_filled(bytes + 4096 + 100, 9000, 5) && bytes[4096 + 99] == 0 && bytes[4096 + 9100] == 0);
	fill(bytes + 4096 + 100, 9000, 6);
	post(ends[0], &request, SRDMA_REQUEST_READ, region.id, 0, &piece, 1);
	CHECK(is_filled(data, 9000, 6));
	EXPECT(srdma_conn_offer(ends[0], plain, 0, SIZE, REMOTE_ALL, "plain", &id), 0);
	EXPECT(srdma_conn_find_region(ends[1], "plain", -1, &region), 0);
	fill(bytes, SIZE, 7);
	piece = piece_of(memory, 0, 5000);
	post(ends[1], &request, SRDMA_REQUEST_WRITE, region.id, 3, &piece, 1);
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
	agree(rig);
	rig->server_conn.region_size = 0;
	ret = srdma_memory_register_dmabuf(rig->device, fd, 4096, SIZE - 4096, REMOTE_ALL, &memory);
	fact(rig, "registered", ret);
	fact_text(rig, "error", ret == 0 ? "" : srdma_error_text());
	if (ret == 0) {
		expect_dmabuf(rig, fd, 0, SIZE + 1, SRDMA_EVERBS);
		expect_dmabuf(rig, fd, SIZE, 1, SRDMA_EVERBS);
		close(fd); /* The memory has its own. */
		use_dmabuf(rig, memory, bytes);
		rig->client_options.seal = rig->server_conn.seal = SRDMA_SEAL_REQUIRED;
		rig_pair(rig, &client, &accepted);
		EXPECT(srdma_conn_offer(accepted, memory, 0, 8, IBV_ACCESS_REMOTE_READ, "x", &id), -EOPNOTSUPP);
		srdma_conn_free(&client);
		srdma_conn_free(&accepted);
		srdma_memory_unref(&memory);
	}
	EXPECT(munmap(bytes, SIZE), 0);
}

/* ---- a peer of another make ------------------------------------------------------------------------------------ */

/* Offers a region, and tells what ended the connection. */
void mode_memory_accept(struct rig *rig, char **args)
{
	static char data[4096];
	struct srdma_memory *memory = registered(rig, data, sizeof data, IBV_ACCESS_REMOTE_READ);
	struct srdma_listener *listener;
	struct srdma_conn *conn;
	struct srdma_peer_region region;
	uint32_t id;
	int socket, ret;

	rig->server_conn.named_regions = true;
	rig->server_conn.region_size = 0;
	EXPECT(srdma_listener_listen(NULL, args[0], &listener), 0);
	socket = srdma_listener_accept(listener, 15000 * rig->scale);
	CHECK(socket >= 0);
	EXPECT(srdma_conn_accept(socket, rig->server_tls, rig->device, &rig->server_conn, NULL, NULL, &conn), 0);
	srdma_listener_free(&listener);
	EXPECT(srdma_conn_offer(conn, memory, 0, sizeof data, IBV_ACCESS_REMOTE_READ, "offered", &id), 0);
	do {
		srdma_conn_wait(conn, 100);
		ret = srdma_conn_withdraw_region(conn);
	} while (ret == -ENXIO);
	fact_text(rig, "error", srdma_error_text());
	EXPECT(srdma_conn_find_region(conn, "none", 0, &region), ret);
	srdma_conn_free(&conn);
	srdma_memory_unref(&memory);
}

/* Connects, offers a region, and leaves. */
void mode_memory_connect(struct rig *rig, char **args)
{
	static char data[4096];
	struct srdma_memory *memory = registered(rig, data, sizeof data, IBV_ACCESS_REMOTE_READ);
	struct srdma_conn *conn;
	uint32_t id;

	rig->client_options.named_regions = true;
	EXPECT(srdma_conn_connect(rig->host, args[0], rig->client_tls, rig->device, &rig->client_options, &conn), 0);
	EXPECT(srdma_conn_offer(conn, memory, 0, sizeof data, IBV_ACCESS_REMOTE_READ, "offered", &id), 0);
	rig_leave(&conn);
	srdma_memory_unref(&memory);
}
