/* SPDX-License-Identifier: Apache-2.0 */
/* The change to a new epoch, phase by phase, at an end whose device and peer are the test: over all arrows of the diagram in
 * docs/ARCHITECTURE.md, "Renewal of a connection", and with every frame in every phase. */
#include "test.h"

#include "end_rig.h"

#include "clock.h"
#include "log.h"
#include "psn.h"

enum { REGION = 4096, PATIENCE_MS = 30000, ARROWS = 16 };

static struct end_rig rig;
static struct ibv_qp fresh; /* the next queue pair */
static struct srdma_qp_peer connected_to;
static uint32_t connected_psn;
static unsigned resets;

/* ---- the device ------------------------------------------------------------------------------------------------ */

uint64_t __wrap_srdma_device_sweeps(struct srdma_device *device)
{
	return 0;
}

bool __wrap_srdma_device_watches(const struct srdma_device *device)
{
	return false;
}

int __wrap_srdma_qp_pool_take(struct srdma_qp_pool *pool, const struct srdma_qp *like, struct srdma_qp *out)
{
	*out = *like;
	out->verbs = &fresh;
	return 0;
}

int __wrap_srdma_qp_ready_to_receive(struct srdma_qp *qp, const struct srdma_qp_peer *peer)
{
	connected_to = *peer;
	return 0;
}

int __wrap_srdma_qp_ready_to_send(struct srdma_qp *qp, uint32_t psn, uint8_t rd_initiator)
{
	connected_psn = psn;
	rig.failed = false;
	return 0;
}

int __wrap_srdma_qp_reset(struct srdma_qp *qp)
{
	resets++;
	return 0;
}

/* ---- the walk -------------------------------------------------------------------------------------------------- */

/* Which arrows each end has gone along, and where it is, as the test has seen it. */
struct walker {
	enum srdma_epoch_phase at;
	bool walked[ARROWS];
};

static struct {
	struct walker end, peer;
	struct srdma_epoch_frame last; /* of the end */
} seen;

/* Along the arrow that has this frame: it must be there, and start where the walker is. */
static void walk(struct walker *walker, enum srdma_frame_type frame)
{
	size_t count;
	const struct srdma_epoch_arrow *arrows = srdma_epoch_arrows(&count);

	for (size_t i = 0; i < count; i++) {
		if (arrows[i].from != walker->at || arrows[i].frame != frame)
			continue;
		walker->at = arrows[i].to;
		walker->walked[i] = true;
		return;
	}
	fail_msg("no arrow for frame %u from %s", frame, srdma_epoch_phase_name(walker->at));
}

static void note_frame(void *arg, const uint8_t *frame, size_t length)
{
	struct srdma_frame_header header;

	assert_int_equal(srdma_frame_header_decode(frame, &header), 0);
	walk(&seen.end, header.type);
	assert_int_equal(seen.end.at, rig.conn->epoch.change.phase);
	assert_int_equal(srdma_epoch_decode(header.type, frame + SRDMA_FRAME_HEADER, length - SRDMA_FRAME_HEADER, &seen.last), 0);
}

/* The end has gone as far as it can; both are where they were seen to go. */
static void check_phases(void)
{
	static const struct srdma_epoch_change none;

	if (seen.end.at == SRDMA_PHASE_CONNECTED && seen.peer.at == SRDMA_PHASE_CONNECTED) {
		walk(&seen.end, 0);
		walk(&seen.peer, 0);
		/* One assignment ends it. */
		assert_memory_equal(&rig.conn->epoch.change, &none, sizeof none);
		assert_false(rig.conn->queues.held || rig.conn->queues.stopped);
	}
	assert_int_equal(rig.conn->status, 0);
	assert_int_equal(rig.conn->epoch.change.phase, seen.end.at);
	assert_int_equal(rig.conn->epoch.change.peer_phase, seen.peer.at);
}

static struct srdma_epoch_frame body_of(enum srdma_frame_type type)
{
	struct srdma_epoch_frame body = {.number = atomic_load(&rig.conn->epoch.number) + 1,
					 .reason = SRDMA_EPOCH_TIME,
					 .qpn = 0x77,
					 .psn = 0x123456,
					 .sends = rig.conn->queues.sends_posted};

	/* A message of the peer's is still on its way: nothing is quiet yet. */
	if (type == SRDMA_FRAME_EPOCH_BEGIN)
		body.sends = rig.conn->queues.sends_arrived + 1;
	return body;
}

static void inject(enum srdma_frame_type type, const struct srdma_epoch_frame *body)
{
	rig.frame_length = srdma_epoch_encode(rig.frame, type, body);
	srdma_conn_progress(rig.conn, true);
}

static void say_body(enum srdma_frame_type type, const struct srdma_epoch_frame *body)
{
	walk(&seen.peer, type);
	inject(type, body);
	check_phases();
}

static void say(enum srdma_frame_type type)
{
	struct srdma_epoch_frame body = body_of(type);

	say_body(type, &body);
}

static int delete_end(void **state)
{
	rig_delete(&rig);
	return 0;
}

/* In the place of the one before. */
static void begin_end(void)
{
	rig_delete(&rig);
	seen.end.at = seen.peer.at = SRDMA_PHASE_GOING;
	rig_new(&rig, REGION, REGION);
	rig.on_frame = note_frame;
	fresh = (struct ibv_qp){.context = &rig.context, .qp_num = 0x99};
	rig.qp.qp_num = 0x98;
	rig.conn->own.features = rig.conn->peer.features = SRDMA_FEATURE_EPOCHS;
	rig.conn->options.epoch_ms = 0;
	resets = 0;
	srdma_epoch_start(rig.conn);
}

/* ---- steps of a change ----------------------------------------------------------------------------------------- */

static void end_asks(void)
{
	assert_int_equal(srdma_conn_renew(rig.conn), 0);
	srdma_conn_progress(rig.conn, false);
	check_phases();
}

static void peer_asks(void)
{
	say(SRDMA_FRAME_EPOCH_REQUEST);
}

/* Not at once: an epoch has its shortest time. */
static void end_begins(void)
{
	uint64_t deadline = srdma_deadline(PATIENCE_MS);

	while (seen.end.at < SRDMA_PHASE_BEGUN && srdma_deadline_left_ms(deadline) > 0)
		srdma_conn_progress(rig.conn, false);
	check_phases();
}

static void end_fails(void)
{
	assert_int_equal(srdma_epoch_break(rig.conn, srdma_fail(SRDMA_EVERBS, "for the test")), 0);
	check_phases();
}

static void peer_begins(void)
{
	say(SRDMA_FRAME_EPOCH_BEGIN);
}

/* The message that is on its way: now all is quiet. */
static void message_arrives(void)
{
	assert_true(rig_deliver(&rig, RIG_MESSAGE, "m", 1));
	srdma_conn_progress(rig.conn, false);
	check_phases();
}

static void peer_tells(void)
{
	say(SRDMA_FRAME_EPOCH_PARAMETERS);
}

static void peer_connects(void)
{
	say(SRDMA_FRAME_EPOCH_READY);
}

typedef void step_fn(void);

/* Ways through a change, from the beginning to the end of it. */
static step_fn *const ways[][8] = {
	{end_asks, peer_begins, message_arrives, peer_tells, peer_connects},
	{end_asks, peer_begins, peer_tells, message_arrives, peer_connects},
	{peer_asks, end_begins, peer_begins, message_arrives, peer_tells, peer_connects},
	{end_asks, peer_asks, end_begins, peer_begins, message_arrives, peer_tells, peer_connects},
	{end_fails, peer_begins, peer_tells, peer_connects},
	{end_asks, end_fails, peer_begins, peer_tells, peer_connects},
};
#define WAYS (COUNT(ways))

/* ---- tests ----------------------------------------------------------------------------------------------------- */

TEST(connection_goes_along_every_arrow)
{
	size_t count;
	const struct srdma_epoch_arrow *arrows = srdma_epoch_arrows(&count);

	assert_true(count <= ARROWS);
	for (size_t way = 0; way < WAYS; way++) {
		uint32_t psn;

		begin_end();
		psn = rig.conn->own.psn;
		for (size_t i = 0; ways[way][i]; i++)
			ways[way][i]();
		assert_int_equal(seen.end.at, SRDMA_PHASE_GOING);
		assert_int_equal(atomic_load(&rig.conn->epoch.number), 1);
		assert_int_equal(rig.conn->qp.verbs->qp_num, 0x99);
		assert_int_equal(connected_to.qpn, 0x77);
		assert_int_equal(connected_to.psn, 0x123456);
		assert_int_equal(connected_psn, rig.conn->own.psn);
		assert_int_not_equal(rig.conn->own.psn, psn);
	}
	for (size_t i = 0; i < count; i++) {
		const char *from = srdma_epoch_phase_name(arrows[i].from), *to = srdma_epoch_phase_name(arrows[i].to);

		if (!seen.end.walked[i] || !seen.peer.walked[i])
			fail_msg("%s has not gone from %s to %s", seen.end.walked[i] ? "the peer" : "the end", from, to);
	}
}

TEST(several_changes_follow_each_other)
{
	begin_end();
	for (unsigned round = 1; round <= 5; round++) {
		end_asks();
		peer_begins();
		message_arrives();
		peer_tells();
		peer_connects();
		assert_int_equal(atomic_load(&rig.conn->epoch.number), round);
		assert_int_equal(srdma_queues_consume(&rig.conn->queues), 0);
	}
}

/* The table lists the frames that an end may send; this says which frames its peer then expects. */
static bool is_due(enum srdma_frame_type type)
{
	enum srdma_epoch_phase end = seen.end.at, peer = seen.peer.at;

	switch (type) {
	case SRDMA_FRAME_EPOCH_REQUEST: return peer == SRDMA_PHASE_GOING || end >= SRDMA_PHASE_BEGUN;
	case SRDMA_FRAME_EPOCH_BEGIN: return peer < SRDMA_PHASE_BEGUN && end >= SRDMA_PHASE_ASKED;
	case SRDMA_FRAME_EPOCH_PARAMETERS: return peer == SRDMA_PHASE_BEGUN && end >= SRDMA_PHASE_BEGUN;
	default: return peer == SRDMA_PHASE_TOLD && end >= SRDMA_PHASE_TOLD;
	}
}

/* The first `steps` of a way, then a frame. */
static void try_frame(size_t way, size_t steps, enum srdma_frame_type type)
{
	struct srdma_epoch_frame body;
	bool due;

	begin_end();
	for (size_t i = 0; i < steps; i++)
		ways[way][i]();
	due = is_due(type);
	body = body_of(type);
	/* One that asks twice with one number is refused for that. */
	if (type == SRDMA_FRAME_EPOCH_REQUEST && rig.conn->epoch.last_request == body.number)
		due = false;
	inject(type, &body);
	if (rig.conn->status != (due ? 0 : SRDMA_EPROTOCOL))
		fail_msg("frame %u after %zu steps of way %zu, the end %s, the peer %s: %d", type, steps, way,
			 srdma_epoch_phase_name(seen.end.at), srdma_epoch_phase_name(seen.peer.at), rig.conn->status);
}

TEST(frame_that_is_not_due_ends_the_connection_in_every_phase)
{
	static const enum srdma_frame_type frames[] = {SRDMA_FRAME_EPOCH_REQUEST, SRDMA_FRAME_EPOCH_BEGIN, SRDMA_FRAME_EPOCH_PARAMETERS,
						       SRDMA_FRAME_EPOCH_READY};

	for (size_t way = 0; way < WAYS; way++)
		for (size_t steps = 0; steps == 0 || ways[way][steps - 1]; steps++)
			for (size_t i = 0; i < COUNT(frames); i++)
				try_frame(way, steps, frames[i]);
}

TEST(frame_of_another_number_ends_the_connection)
{
	struct srdma_epoch_frame body;

	for (unsigned number = 0; number < 4; number++) {
		begin_end();
		end_asks();
		body = body_of(SRDMA_FRAME_EPOCH_BEGIN);
		body.number = number;
		inject(SRDMA_FRAME_EPOCH_BEGIN, &body);
		assert_int_equal(rig.conn->status, number == 1 ? 0 : SRDMA_EPROTOCOL);
	}
}

TEST(used_up_psns_keep_the_queue_pair_once)
{
	struct srdma_epoch_frame body;

	begin_end();
	for (unsigned round = 0; round < 2; round++) {
		rig.conn->queues.psns_used = rig.conn->options.epoch_psns / 8 * 7 + 1;
		srdma_conn_progress(rig.conn, false);
		check_phases();
		assert_int_equal(seen.last.reason, SRDMA_EPOCH_COUNT);
		body = body_of(SRDMA_FRAME_EPOCH_BEGIN);
		body.reason = SRDMA_EPOCH_COUNT;
		say_body(SRDMA_FRAME_EPOCH_BEGIN, &body);
		message_arrives();
		peer_tells();
		peer_connects();
		assert_int_equal(resets, 1);
		assert_int_equal(rig.conn->qp.verbs->qp_num, round == 0 ? 0x98 : 0x99);
	}
}

/* ---- the document ---------------------------------------------------------------------------------------------- */

struct drawn {
	char from[32], to[32], label[256];
};

/* The arrows of the diagram; where it starts is returned in `start`. */
static size_t read_diagram(struct drawn *drawn, size_t room, char start[32])
{
	FILE *file = fopen(ARCHITECTURE, "r");
	char line[1024];
	bool inside = false;
	size_t count = 0;

	assert_non_null(file);
	start[0] = 0;
	while (fgets(line, sizeof line, file)) {
		if (strncmp(line, "stateDiagram", 12) == 0)
			inside = true;
		else if (strncmp(line, "```", 3) == 0 && inside)
			break;
		else if (inside && sscanf(line, " [*] --> %31[a-z]", start) == 0) {
			assert_true(count < room);
			assert_int_equal(sscanf(line, " %31[a-z] --> %31[a-z]: %255[^\n]", drawn[count].from, drawn[count].to, drawn[count].label), 3);
			count++;
		}
	}
	fclose(file);
	return count;
}

static const char *frame_name(enum srdma_frame_type frame)
{
	switch (frame) {
	case SRDMA_FRAME_EPOCH_REQUEST: return "EPOCH_REQUEST sent";
	case SRDMA_FRAME_EPOCH_BEGIN: return "EPOCH_BEGIN sent";
	case SRDMA_FRAME_EPOCH_PARAMETERS: return "EPOCH_PARAMETERS sent";
	default: return "EPOCH_READY sent";
	}
}

TEST(document_draws_what_the_code_does)
{
	struct drawn drawn[ARROWS];
	char start[32];
	size_t count, lines = read_diagram(drawn, ARROWS, start);
	const struct srdma_epoch_arrow *arrows = srdma_epoch_arrows(&count);

	assert_string_equal(start, srdma_epoch_phase_name(SRDMA_PHASE_GOING));
	assert_int_equal(lines, count);
	for (size_t i = 0; i < count; i++) {
		const char *from = srdma_epoch_phase_name(arrows[i].from), *to = srdma_epoch_phase_name(arrows[i].to);
		size_t at = 0;

		while (at < lines && (strcmp(drawn[at].from, from) != 0 || strcmp(drawn[at].to, to) != 0))
			at++;
		if (at == lines)
			fail_msg("docs/ARCHITECTURE.md does not draw the arrow from %s to %s", from, to);
		if (arrows[i].frame ? !strstr(drawn[at].label, frame_name(arrows[i].frame)) : strstr(drawn[at].label, " sent") != NULL)
			fail_msg("the label from %s to %s names another frame: %s", from, to, drawn[at].label);
	}
}

RUN_TESTS_EACH(NULL, delete_end)
