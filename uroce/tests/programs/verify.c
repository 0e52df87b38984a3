/* SPDX-License-Identifier: Apache-2.0 */
/* verify: see --help. In each round both ends post work on all queue pairs at once, then check what arrived, what was
 * read, what the completions say and that nothing else was touched. */
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <arpa/inet.h>

#include "verify.h"

static const char usage[] =
	"usage: verify [option...]          server\n"
	"       verify [option...] HOST     client; its options from --mtu on hold for both\n"
	"  --device NAME      (the first)\n"
	"  --gid N            GID index (0)\n"
	"  --port N           TCP port (18600); 0 as server: any, printed\n"
	"  --events           sleep until completions come\n"
	"  --structs          post by ibv_post_send alone, not by ibv_wr_start too\n"
	"  --deadline SECONDS for each step (60)\n"
	"  --mtu BYTES        path MTU (1024)\n"
	"  --type rc|uc       (rc)\n"
	"  --sizes A,B,...    of messages\n"
	"  --ops A,B,...      send send-imm write write-imm read cas faa (all)\n"
	"  --iterations N     rounds with mixed operations and sizes, after one for each operation and size (20)\n"
	"  --qps N            (2)\n"
	"  --depth N          messages per queue pair, direction and round (8)\n"
	"  --timeout N        4.096 us * 2^N (17: half a second, for machines that are busy)\n"
	"  --retry N          (7)\n"
	"  --seed N           (1)\n"
	"  --lose kill|stop|mute  in the end the server is killed, stopped, or was never heard (fault injection): the\n"
	"                     client checks that its work fails in time\n"
	"Exit status: 0 all right; 1 wrong data or completion, or the other end failed; 2 usage; 3 a deadline "
	"passed.\n";

static enum side my_side = SERVER;

void fail(int status, const char *format, ...)
{
	va_list arguments;

	fprintf(stderr, "verify: %s: ", my_side == CLIENT ? "client" : "server");
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	exit(status);
}

/* ---- one round ---- */

/* Where a round stands: which completions each queue pair still waits for. */
struct progress {
	uint32_t sends; /* next slot whose completion is due; depth: none */
	uint32_t receives;
	bool signaled[MAX_DEPTH];
};

static const uint8_t untouched = 0x5a;

static void prepare(struct end *end, uint32_t round, struct progress *progress)
{
	const struct plan *plan = end->plan;
	enum side peer = end->side == SERVER ? CLIENT : SERVER;

	memset(end->source, untouched, end->total);
	memset(end->target, untouched, end->total);
	for (uint32_t qp = 0; qp < plan->qps; qp++) {
		memset(&progress[qp], 0, sizeof progress[qp]);
		for (uint32_t slot = 0; slot < plan->depth; slot++) {
			struct item mine = plan_item(plan, round, end->side, qp, slot);
			struct item theirs = plan_item(plan, round, peer, qp, slot);
			size_t at = slot_offset(end, qp, slot);

			if (mine.op != READ && !is_atomic(mine.op))
				fill(end->source + at, mine.size, mine.key);
			if (theirs.op == READ || is_atomic(theirs.op))
				fill(end->target + at, theirs.size, theirs.key);
			if (takes_receive(theirs.op))
				end_post_receive(end, qp, slot, &theirs);
		}
	}
}

/* The next slot, from `slot` on, that a completion is due for. */
static uint32_t next_send(const struct progress *progress, uint32_t slot, uint32_t depth)
{
	while (slot < depth && !progress->signaled[slot])
		slot++;
	return slot;
}

static uint32_t next_receive(const struct end *end, uint32_t round, uint32_t qp, uint32_t slot)
{
	enum side peer = end->side == SERVER ? CLIENT : SERVER;

	while (slot < end->plan->depth && !takes_receive(plan_item(end->plan, round, peer, qp, slot).op))
		slot++;
	return slot;
}

static void check_send(const struct item *item, const struct ibv_wc *wc)
{
	static const enum ibv_wc_opcode opcodes[OPERATIONS] = {IBV_WC_SEND,       IBV_WC_SEND,      IBV_WC_RDMA_WRITE,
							       IBV_WC_RDMA_WRITE, IBV_WC_RDMA_READ, IBV_WC_COMP_SWAP,
							       IBV_WC_FETCH_ADD};

	if (wc->opcode != opcodes[item->op])
		fail(EXIT_BAD_DATA, "%s of %u bytes completed as opcode %d", operation_names[item->op], item->size,
		     (int)wc->opcode);
}

static void check_receive(const struct item *item, const struct ibv_wc *wc)
{
	bool imm = item->op != SEND;
	enum ibv_wc_opcode opcode = item->op == WRITE_IMM ? IBV_WC_RECV_RDMA_WITH_IMM : IBV_WC_RECV;

	if (wc->opcode != opcode)
		fail(EXIT_BAD_DATA, "%s received as opcode %d", operation_names[item->op], (int)wc->opcode);
	if (wc->byte_len != item->size)
		fail(EXIT_BAD_DATA, "%s: byte_len %u instead of %u", operation_names[item->op], wc->byte_len,
		     item->size);
	if (imm != !!(wc->wc_flags & IBV_WC_WITH_IMM) || (imm && wc->imm_data != htonl(item->choices)))
		fail(EXIT_BAD_DATA, "%s of %u bytes: wrong immediate data", operation_names[item->op], item->size);
}

/* Completions come in the order of posting, exactly the ones that are due. */
static void take(struct end *end, uint32_t round, struct progress *progress, const struct ibv_wc *wc)
{
	uint32_t qp = (uint32_t)(wc->wr_id >> 32), slot = (uint32_t)wc->wr_id & 0x7fffffff;
	bool receive = wc->wr_id >> 31 & 1;
	const struct plan *plan = end->plan;

	if (qp >= plan->qps || slot >= plan->depth)
		fail(EXIT_BAD_DATA, "completion with wr_id %#" PRIx64, wc->wr_id);
	enum side sender = receive == (end->side == SERVER) ? CLIENT : SERVER;
	struct item item = plan_item(plan, round, sender, qp, slot);

	if (wc->status != IBV_WC_SUCCESS)
		fail(EXIT_BAD_DATA, "round %u, queue pair %u, slot %u, %s of %s of %u bytes: %s", round, qp, slot,
		     receive ? "receive" : "send", operation_names[item.op], item.size, ibv_wc_status_str(wc->status));
	if (wc->qp_num != end->qp[qp]->qp_num)
		fail(EXIT_BAD_DATA, "completion with a foreign qp_num");
	uint32_t *due = receive ? &progress[qp].receives : &progress[qp].sends;

	if (slot != *due)
		fail(EXIT_BAD_DATA, "round %u, queue pair %u: %s %u completed, %u was due", round, qp,
		     receive ? "receive" : "send", slot, *due);
	if (receive) {
		check_receive(&item, wc);
		*due = next_receive(end, round, qp, slot + 1);
	} else {
		check_send(&item, wc);
		*due = next_send(&progress[qp], slot + 1, plan->depth);
	}
}

static bool all_done(const struct end *end, const struct progress *progress)
{
	for (uint32_t qp = 0; qp < end->plan->qps; qp++) {
		if (progress[qp].sends < end->plan->depth || progress[qp].receives < end->plan->depth)
			return false;
	}
	return true;
}

static void report_hang(const struct end *end, uint32_t round, const struct progress *progress)
{
	for (uint32_t qp = 0; qp < end->plan->qps; qp++) {
		const struct progress *p = &progress[qp];

		if (p->sends < end->plan->depth || p->receives < end->plan->depth) {
			struct item send = plan_item(end->plan, round, end->side, qp, p->sends);

			fail(EXIT_DEADLINE,
			     "hang in round %u, queue pair %u: waits for send %u (%s, %u bytes) and receive %u of %u",
			     round, qp, p->sends, operation_names[send.op], send.size, p->receives, end->plan->depth);
		}
	}
}

static void run_messages(struct end *end, uint32_t round, struct progress *progress)
{
	const struct plan *plan = end->plan;
	struct item items[MAX_DEPTH];
	struct ibv_wc wc[16];

	for (uint32_t qp = 0; qp < plan->qps; qp++) {
		for (uint32_t slot = 0; slot < plan->depth; slot++)
			items[slot] = plan_item(plan, round, end->side, qp, slot);
		end_post_items(end, qp, items, progress[qp].signaled);
		progress[qp].sends = next_send(&progress[qp], 0, plan->depth);
		progress[qp].receives = next_receive(end, round, qp, 0);
	}
	while (!all_done(end, progress)) {
		int n = end_poll(end, wc, 16);

		for (int i = 0; i < n; i++)
			take(end, round, progress, &wc[i]);
		if (n == 0 && !deadline_left())
			report_hang(end, round, progress);
	}
	if (ibv_poll_cq(end->cq, 1, wc))
		fail(EXIT_BAD_DATA, "round %u: one completion too many", round);
}

static void expect_data(const uint8_t *bytes, size_t stride, const struct item *item, size_t length, const char *where)
{
	ssize_t at = differs(bytes, length, item->key);

	if (at >= 0)
		fail(EXIT_BAD_DATA, "%s of %u bytes: %s differs at byte %zd", operation_names[item->op], item->size,
		     where, at);
	at = differs_from_byte(bytes + length, stride - length, untouched);
	if (at >= 0)
		fail(EXIT_BAD_DATA, "%s of %u bytes: %s was touched %zd bytes behind its end",
		     operation_names[item->op], item->size, where, at);
}

static void expect_word(const uint8_t *bytes, uint64_t wanted, const struct item *item, const char *where)
{
	uint64_t word;

	memcpy(&word, bytes, sizeof word);
	if (word != wanted)
		fail(EXIT_BAD_DATA, "%s: %s is %#" PRIx64 " instead of %#" PRIx64, operation_names[item->op], where,
		     word, wanted);
}

/* What a message of this end left in `source`, and one of the peer in `target`. */
static void check_slot(struct end *end, uint32_t round, uint32_t qp, uint32_t slot)
{
	const struct plan *plan = end->plan;
	enum side peer = end->side == SERVER ? CLIENT : SERVER;
	struct item mine = plan_item(plan, round, end->side, qp, slot), theirs = plan_item(plan, round, peer, qp, slot);
	size_t at = slot_offset(end, qp, slot);

	if (!end_posts_inline(end, &mine)) /* what was inline, its sender has used again */
		expect_data(end->source + at, end->stride, &mine, mine.size, "the sender's buffer");
	if (!is_atomic(theirs.op)) {
		expect_data(end->target + at, end->stride, &theirs, theirs.size, "the receiver's buffer");
		return;
	}
	uint64_t before = mix(theirs.key), after;

	if (theirs.op == FETCH_ADD)
		after = before + mix(theirs.key + 1);
	else
		after = theirs.choices >> 20 & 1 ? before : mix(theirs.key + 2);
	expect_word(end->target + at, after, &theirs, "the target");
	memcpy(end->target + at, &before, sizeof before);
	expect_data(end->target + at, end->stride, &theirs, 8, "the target");
}

/* What the device's thread does for the peer comes after one message of the socket, and before another, and completes nothing here.
 * ThreadSanitizer does not know, and needs to see the device's lock taken. */
static void order_memory(struct end *end)
{
	struct ibv_qp_attr attr;
	struct ibv_qp_init_attr init;

	if (ibv_query_qp(end->qp[0], &attr, IBV_QP_STATE, &init))
		fail(EXIT_BAD_DATA, "ibv_query_qp failed");
}

static uint64_t run_round(struct end *end, uint32_t round, struct progress *progress)
{
	const struct plan *plan = end->plan;
	uint64_t bytes = 0;

	deadline_start();
	prepare(end, round, progress);
	order_memory(end);
	wire_barrier(end->fd, round << 1);
	run_messages(end, round, progress);
	wire_barrier(end->fd, round << 1 | 1);
	order_memory(end);
	for (uint32_t qp = 0; qp < plan->qps; qp++) {
		for (uint32_t slot = 0; slot < plan->depth; slot++) {
			check_slot(end, round, qp, slot);
			bytes += plan_item(plan, round, end->side, qp, slot).size;
		}
	}
	return bytes;
}

static int run(struct end *end)
{
	const struct plan *plan = end->plan;
	uint32_t rounds = plan->lose == LOSE_MUTE ? 0 : plan_rounds(plan);
	struct progress *progress = calloc(plan->qps, sizeof *progress);
	uint64_t bytes = 0, began = now_ns();

	if (!progress)
		fail(EXIT_USAGE, "no memory");
	wire_barrier(end->fd, UINT32_MAX);
	printf("connected\n");
	fflush(stdout);
	for (uint32_t round = 0; round < rounds; round++)
		bytes += run_round(end, round, progress);
	free(progress);
	deadline_start();
	wire_barrier(end->fd, UINT32_MAX - 1);
	printf("verified: %u rounds, %" PRIu64 " messages, %" PRIu64 " bytes sent, %.1f s\n", rounds,
	       (uint64_t)rounds * plan->qps * plan->depth, bytes, (double)(now_ns() - began) / 1e9);
	fflush(stdout);
	if (plan->lose)
		return end->side == SERVER ? lose_as_server(end) : lose_as_client(end);
	return 0;
}

/* ---- options ---- */

static uint32_t number(const char *name, const char *text, uint32_t min, uint32_t max)
{
	char *end;
	unsigned long value = strtoul(text, &end, 0);

	if (!*text || *end || *text == '-' || value < min || value > max)
		fail(EXIT_USAGE, "--%s takes a number from %u to %u, not '%s'", name, min, max, text);
	return (uint32_t)value;
}

static uint32_t choice(const char *name, const char *text, const char *const *names, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		if (!strcmp(text, names[i]))
			return i;
	}
	fail(EXIT_USAGE, "--%s: '%s' is none of its values", name, text);
}

static void set_sizes(struct plan *plan, char *text)
{
	char *rest = NULL;

	plan->sizes = 0;
	for (char *word = strtok_r(text, ",", &rest); word; word = strtok_r(NULL, ",", &rest)) {
		if (plan->sizes == MAX_SIZES)
			fail(EXIT_USAGE, "--sizes: at most %d", MAX_SIZES);
		plan->size[plan->sizes++] = number("sizes", word, 0, 1u << 28);
	}
	if (!plan->sizes)
		fail(EXIT_USAGE, "--sizes: none");
}

static void set_operations(struct plan *plan, char *text)
{
	char *rest = NULL;

	plan->operations = 0;
	for (char *word = strtok_r(text, ",", &rest); word; word = strtok_r(NULL, ",", &rest))
		plan->operations |= 1u << choice("ops", word, operation_names, OPERATIONS);
}

static const struct option long_options[] = {
	{"device", required_argument, NULL, 'd'},   {"gid", required_argument, NULL, 'g'},
	{"port", required_argument, NULL, 'p'},     {"events", no_argument, NULL, 'e'},
	{"structs", no_argument, NULL, 'P'},
	{"deadline", required_argument, NULL, 'D'}, {"mtu", required_argument, NULL, 'm'},
	{"type", required_argument, NULL, 'c'},     {"sizes", required_argument, NULL, 's'},
	{"ops", required_argument, NULL, 'o'},      {"iterations", required_argument, NULL, 'n'},
	{"qps", required_argument, NULL, 'q'},      {"depth", required_argument, NULL, 't'},
	{"timeout", required_argument, NULL, 'T'},  {"retry", required_argument, NULL, 'r'},
	{"seed", required_argument, NULL, 'S'},     {"lose", required_argument, NULL, 'l'},
	{"help", no_argument, NULL, 'h'},           {NULL, 0, NULL, 0}};

static void set_option(int option, struct options *options, struct plan *plan)
{
	static const char *const mtus[] = {"256", "512", "1024", "2048", "4096"};
	static const char *const types[] = {"rc", "uc"};
	static const char *const loses[] = {"", "kill", "stop", "mute", "dead"};

	switch (option) {
	case 'd': options->device = optarg; break;
	case 'g': options->gid = number("gid", optarg, 0, 255); break;
	case 'p': options->port = optarg; break;
	case 'e': options->events = true; break;
	case 'P': options->structs = true; break;
	case 'D': deadline_seconds = number("deadline", optarg, 1, 86400); break;
	case 'm': plan->mtu = IBV_MTU_256 + choice("mtu", optarg, mtus, 5); break;
	case 'c': plan->unreliable = choice("type", optarg, types, 2); break;
	case 's': set_sizes(plan, optarg); break;
	case 'o': set_operations(plan, optarg); break;
	case 'n': plan->iterations = number("iterations", optarg, 0, 1000000); break;
	case 'q': plan->qps = number("qps", optarg, 1, MAX_QPS); break;
	case 't': plan->depth = number("depth", optarg, 1, MAX_DEPTH); break;
	case 'T': plan->timeout = number("timeout", optarg, 1, 31); break;
	case 'r': plan->retry = number("retry", optarg, 0, 7); break;
	case 'S': plan->seed = number("seed", optarg, 0, UINT32_MAX); break;
	case 'l': plan->lose = choice("lose", optarg, loses, 5); break;
	case 'h': fputs(usage, stdout); exit(0);
	default: fputs(usage, stderr); exit(EXIT_USAGE);
	}
}

static void parse(int argc, char **argv, struct options *options, struct plan *plan)
{
	char sizes[] = "0,1,3,8,64,255,256,257,1000,1023,1024,1025,4095,4096,4097,10000,65536,65539,300001";
	int option;

	set_sizes(plan, sizes);
	while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1)
		set_option(option, options, plan);
	if (argc - optind > 1) {
		fputs(usage, stderr);
		exit(EXIT_USAGE);
	}
	options->host = argv[optind];
	if (plan->unreliable)
		plan->operations &= 1u << SEND | 1u << SEND_IMM | 1u << WRITE | 1u << WRITE_IMM;
	if (!plan->operations)
		fail(EXIT_USAGE, "--ops: none that this type of connection has");
}

int main(int argc, char **argv)
{
	struct plan plan = {.seed = 1,
			    .operations = (1u << OPERATIONS) - 1,
			    .iterations = 20,
			    .qps = 2,
			    .depth = 8,
			    .mtu = IBV_MTU_1024,
			    .timeout = PATIENT_TIMEOUT,
			    .retry = PATIENT_RETRY};
	struct options options = {.port = "18600"};
	struct end end = {.plan = &plan};

	parse(argc, argv, &options, &plan);
	end.side = my_side = options.host ? CLIENT : SERVER;
	end.gid_index = options.gid;
	end.events = options.events;
	end.structs = options.structs;
	if (end.side == SERVER) {
		int listener = wire_listen(options.port);

		deadline_start();
		end.fd = wire_accept(listener);
		deadline_start();
		wire_plan_receive(end.fd, &plan);
	} else {
		deadline_start();
		end.fd = wire_connect(options.host, options.port);
		wire_plan_send(end.fd, &plan);
	}
	end_open(&end, &options);
	end_connect(&end);
	int status = run(&end);

	end_close(&end);
	close(end.fd);
	return status;
}
