/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include "top_table.h"

/* A line of text, a row, or else the header. It stays until the third one after it. */
static const char *line_of(const struct top_table *table, const struct top_row *row, const char *text)
{
	static char lines[3][1024];
	static int next;
	char *line = memset(lines[next++ % 3], 0, sizeof lines[0]);
	FILE *file = fmemopen(line, sizeof lines[0], "w");

	assert_non_null(file);
	if (text)
		top_table_print_text(table, text, file);
	else if (row)
		top_table_print_row(table, row, file);
	else
		top_table_print_header(table, file);
	fclose(file);
	return line;
}

static const struct top_row busy = {
	.texts = {"18446744073709551615", "a certificate with quite a long common name", "[2001:db8:1234:5678:9abc:def0:1234:5678]:65535", "1023"},
	.rates = {1234567, 12345678, 98765432109, 1.8e19},
};
static const struct top_row idle = {.texts = {"7", "client one", "255.255.255.255:65535", "0"}, .rates = {0, 1, 999, 1500}};

TEST(no_line_is_longer_than_the_terminal)
{
	for (int width = 1; width <= 300; width++) {
		struct top_table table;
		const char *text = "clients 1000000/1000000, pending 1000, accepted 100000000, lost 1000000, draining";

		top_table_fit(&table, width);
		for (int i = 0; i < 4; i++) {
			const char *line = line_of(&table, i == 0 ? &busy : i == 1 ? &idle : NULL, i == 3 ? text : NULL);

			assert_true(strlen(line) <= (size_t)width);
		}
	}
}

static bool has(const struct top_table *table, enum top_column column)
{
	return table->widths[column] > 0;
}

/* The columns that say most about a client stay longest. */
TEST(columns_go_one_by_one)
{
	int columns_before = TOP_COLUMNS;
	struct top_table table;

	for (int width = 150; width > 0; width--) {
		int columns = 0;

		top_table_fit(&table, width);
		for (int i = 0; i < TOP_COLUMNS; i++)
			columns += table.widths[i] > 0;
		assert_true(columns == columns_before || columns == columns_before - 1);
		columns_before = columns;
		assert_true(has(&table, TOP_CLIENT) && has(&table, TOP_BYTES_IN) && has(&table, TOP_BYTES_OUT));
		assert_true(width < 80 || columns == TOP_COLUMNS);
	}
	assert_int_equal(columns_before, 3);
	top_table_fit(&table, 60);
	assert_true(has(&table, TOP_NAME) && has(&table, TOP_OUT) && !has(&table, TOP_WORKER) && !has(&table, TOP_ADDRESS));
}

TEST(whole_address_fits_in_eighty_columns)
{
	struct top_table table;
	const char *line;

	top_table_fit(&table, 80);
	line = line_of(&table, &idle, NULL);
	assert_text_says(line, "255.255.255.255:65535");
	assert_text_says(line, "client one");
}

TEST(large_rates_are_shortened_only_where_they_have_to_be)
{
	struct top_table table;
	const char *line;

	top_table_fit(&table, 80);
	line = line_of(&table, &busy, NULL);
	assert_text_says(line, " 1234567 ");
	assert_text_says(line, " 12.3M");
	assert_text_says(line, " 98.8G");
	top_table_fit(&table, 0);
	line = line_of(&table, &busy, NULL);
	assert_text_says(line, "12345678");
	assert_text_says(line, "98765432109");
}

/* A name has as many columns as characters, and is never cut within one. */
TEST(names_are_counted_in_characters)
{
	const struct top_row plain = {.texts = {"1", "Jorg", "a", "0"}}, row = {.texts = {"1", "J\xc3\xb6rg", "a", "0"}},
			     longer = {.texts = {"1", "\xc3\xb6\xc3\xb6\xc3\xb6\xc3\xb6\xc3\xb6\xc3\xb6\xc3\xb6\xc3\xb6\xc3\xb6\xc3\xb6\xc3\xb6\xc3\xb6", "a", "0"}};
	struct top_table table;
	size_t length;

	top_table_fit(&table, 60);
	length = strlen(line_of(&table, &plain, NULL));
	assert_int_equal(strlen(line_of(&table, &row, NULL)), length + 1);
	/* Each of its characters is two bytes. */
	assert_int_equal(strlen(line_of(&table, &longer, NULL)), length + (table.widths[TOP_NAME] < 12 ? table.widths[TOP_NAME] : 12));
}

RUN_TESTS(NULL, NULL)
