/* SPDX-License-Identifier: Apache-2.0 */
#include "top_table.h"

#include <stdbool.h>
#include <string.h>

#define GAP 1
/* Up to 9999999 as it is; 999.9P is no wider. */
#define NUMBER 7

/* `drop`: the column with the highest goes first when there is no room for all; 0: it stays. */
static const struct column {
	const char *title, *short_title;
	int least, best;
	int drop;
	bool left; /* aligned */
} columns[TOP_COLUMNS] = {
	[TOP_CLIENT] = {"client", "client", 6, 8, 0, false},
	[TOP_NAME] = {"name", "name", 10, 20, 3, true},
	[TOP_ADDRESS] = {"address", "address", 21, 24, 4, true},
	[TOP_WORKER] = {"worker", "worker", 6, 6, 5, false},
	[TOP_IN] = {"in/s", "in/s", NUMBER, 10, 2, false},
	[TOP_OUT] = {"out/s", "out/s", NUMBER, 10, 1, false},
	[TOP_BYTES_IN] = {"bytes in/s", "B in/s", NUMBER, 12, 0, false},
	[TOP_BYTES_OUT] = {"bytes out/s", "B out/s", NUMBER, 12, 0, false},
};

static int used(const struct top_table *table)
{
	int width = -GAP;

	for (int i = 0; i < TOP_COLUMNS; i++)
		width += table->widths[i] > 0 ? table->widths[i] + GAP : 0;
	return width;
}

static bool drop_one(struct top_table *table)
{
	int worst = -1;

	for (int i = 0; i < TOP_COLUMNS; i++)
		if (table->widths[i] > 0 && columns[i].drop > 0 && (worst < 0 || columns[i].drop > columns[worst].drop))
			worst = i;
	if (worst < 0)
		return false;
	table->widths[worst] = 0;
	return true;
}

void top_table_fit(struct top_table *table, int width)
{
	table->width = width;
	for (int i = 0; i < TOP_COLUMNS; i++)
		table->widths[i] = width > 0 ? columns[i].least : columns[i].best;
	while (width > 0 && used(table) > width && drop_one(table))
		;
	/* The remaining room makes the columns wider, the names first. */
	for (int i = 0; width > 0 && i < TOP_COLUMNS; i++) {
		int left = width - used(table), more = columns[i].best - columns[i].least;

		if (table->widths[i] > 0 && left > 0)
			table->widths[i] += more < left ? more : left;
	}
}

static void format_number(double value, int width, char *text, size_t size)
{
	static const char units[] = "kMGTP";
	int unit = -1;

	if (snprintf(text, size, "%.0f", value) <= width)
		return;
	while (units[unit + 1] && (unit < 0 || value >= 999.95)) {
		value /= 1000;
		unit++;
	}
	snprintf(text, size, "%.1f%c", value, units[unit]);
}

/* Bytes of the first characters of a UTF-8 text, at most `*characters`, which becomes how many they are. */
static int cut(const char *text, int *characters)
{
	int bytes = 0, count = 0;

	while (text[bytes] && count < *characters) {
		for (bytes++; (text[bytes] & 0xc0) == 0x80; bytes++)
			;
		count++;
	}
	*characters = count;
	return bytes;
}

static void put_cell(int column, int width, const char *text, char *line, size_t size)
{
	size_t length = strlen(line);
	int shown = width, bytes = cut(text, &shown), before = columns[column].left ? 0 : width - shown;

	snprintf(line + length, size - length, "%s%*s%.*s%*s", length > 0 ? " " : "", before, "", bytes, text, width - shown - before, "");
}

static void put_line(const struct top_table *table, const char *line, FILE *file)
{
	int most = table->width > 0 ? table->width : (int)strlen(line);

	fprintf(file, "%.*s", cut(line, &most), line);
}

void top_table_print_header(const struct top_table *table, FILE *file)
{
	char line[512] = "";

	for (int i = 0; i < TOP_COLUMNS; i++)
		if (table->widths[i] > 0)
			put_cell(i, table->widths[i],
				 (int)strlen(columns[i].title) <= table->widths[i] ? columns[i].title : columns[i].short_title, line,
				 sizeof line);
	put_line(table, line, file);
}

void top_table_print_row(const struct top_table *table, const struct top_row *row, FILE *file)
{
	char line[512] = "", number[512];

	for (int i = 0; i < TOP_COLUMNS; i++) {
		if (table->widths[i] == 0)
			continue;
		if (i >= TOP_IN)
			format_number(row->rates[i - TOP_IN], table->widths[i], number, sizeof number);
		put_cell(i, table->widths[i], i >= TOP_IN ? number : row->texts[i], line, sizeof line);
	}
	put_line(table, line, file);
}

void top_table_print_text(const struct top_table *table, const char *text, FILE *file)
{
	int length = (int)strlen(text);

	if (table->width > 3 && length > table->width)
		fprintf(file, "%.*s...", table->width - 3, text);
	else
		put_line(table, text, file);
}
