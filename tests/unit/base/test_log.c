/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include "log.h"

#define LONG 3000

/* A copy of the last record, whose memory is gone after the callback. */
static struct {
	unsigned count;
	char event[64], line[2048], texts[SRDMA_FIELDS_MAX][LONG + 1];
	bool security;
	size_t field_count;
	int64_t numbers[SRDMA_FIELDS_MAX];
} got;

static void take_record(const struct srdma_log_record *record, void *arg)
{
	assert_ptr_equal(arg, &got);
	got.count++;
	got.security = record->security;
	got.field_count = record->field_count;
	strcpy(got.event, record->event);
	strcpy(got.line, record->text);
	for (size_t i = 0; i < record->field_count; i++) {
		strcpy(got.texts[i], record->fields[i]->text ? record->fields[i]->text : "");
		got.numbers[i] = record->fields[i]->number;
	}
}

static void take_text(const struct srdma_log_record *record, void *arg)
{
	got.count++;
	strcpy(got.line, record->text);
}

static int listen_to_log(void **state)
{
	memset(&got, 0, sizeof got);
	srdma_log_set(SRDMA_LOG_INFO, take_record, &got);
	return 0;
}

TEST(event_comes_with_its_fields_and_its_text)
{
	const struct srdma_log_field fields[] = {SRDMA_FIELD_TEXT("a", "b"), SRDMA_FIELD_NUMBER("n", 7), SRDMA_FIELD_TEXT("e", "")};
	const struct srdma_event event = {SRDMA_LOG_WARN, "some.event", true, fields, 3};

	srdma_log_event(&event, "it has %d", 3);
	assert_int_equal(got.count, 1);
	assert_string_equal(got.event, "some.event");
	assert_string_equal(got.line, "it has 3");
	assert_true(got.security);
	assert_int_equal(got.field_count, 3);
	assert_string_equal(got.texts[0], "b");
	assert_int_equal(got.numbers[1], 7);
	assert_string_equal(got.texts[2], "");
}

TEST(line_of_text_is_a_record_without_fields)
{
	srdma_log(SRDMA_LOG_INFO, "plain");
	assert_string_equal(got.event, SRDMA_LOG_PLAIN);
	assert_string_equal(got.line, "plain");
	assert_int_equal(got.field_count, 0);
	srdma_log(SRDMA_LOG_DEBUG, "too quiet");
	assert_int_equal(got.count, 1);
}

TEST(text_of_a_peer_neither_forges_a_line_nor_controls_a_terminal)
{
	const struct srdma_log_field fields[] = {SRDMA_FIELD_TEXT("name", "x\n\x1b[2J\xff")};
	const struct srdma_event event = {SRDMA_LOG_INFO, "some.event", false, fields, 1};

	srdma_log_event(&event, "name %s", fields[0].text);
	assert_string_equal(got.texts[0], "x??[2J?");
	assert_string_equal(got.line, "name x??[2J?");
}

TEST(long_texts_are_cut_and_the_rest_is_empty)
{
	static char text[LONG + 1];
	struct srdma_log_field fields[SRDMA_FIELDS_MAX];
	const struct srdma_event event = {SRDMA_LOG_INFO, "some.event", false, fields, SRDMA_FIELDS_MAX};

	memset(text, 'x', LONG);
	for (size_t i = 0; i < SRDMA_FIELDS_MAX; i++)
		fields[i] = SRDMA_FIELD_TEXT("x", text);
	srdma_log_event(&event, "%s", text);
	assert_int_equal(got.field_count, SRDMA_FIELDS_MAX);
	assert_int_equal(strlen(got.texts[0]), 2047);
	for (size_t i = 1; i < SRDMA_FIELDS_MAX; i++)
		assert_string_equal(got.texts[i], "");
	assert_int_equal(strlen(got.line), 1023);
}

TEST(program_that_wants_lines_gets_the_text_of_events)
{
	const struct srdma_event event = {SRDMA_LOG_INFO, "some.event", false, NULL, 0};

	srdma_log_set(SRDMA_LOG_INFO, take_text, NULL);
	srdma_log_event(&event, "text");
	assert_int_equal(got.count, 1);
	assert_string_equal(got.line, "text");
}

TEST(last_error_alone_has_the_text)
{
	srdma_fail(-EINVAL, "the first");
	assert_int_equal(srdma_again("a sign"), -EAGAIN);
	assert_string_equal(srdma_error_text(), "the call would have to wait for a sign");
	assert_string_equal(srdma_error_text(), "the call would have to wait for a sign");
	srdma_again("a second sign");
	srdma_fail(-EINVAL, "the last");
	assert_string_equal(srdma_error_text(), "the last");
	srdma_again("a third sign");
	srdma_error_prefix("before: ");
	assert_string_equal(srdma_error_text(), "before: the call would have to wait for a third sign");
}

RUN_TESTS_EACH(listen_to_log, NULL)
