/* SPDX-License-Identifier: Apache-2.0 */
/* The table of `securdma top`: as many columns as a width has room for, and each line within it. */
#ifndef CLI_TOP_TABLE_H
#define CLI_TOP_TABLE_H

#include <stdio.h>

enum top_column { TOP_CLIENT, TOP_NAME, TOP_ADDRESS, TOP_WORKER, TOP_IN, TOP_OUT, TOP_BYTES_IN, TOP_BYTES_OUT, TOP_COLUMNS };

struct top_row {
	const char *texts[TOP_WORKER + 1]; /* by column */
	double rates[TOP_COLUMNS - TOP_IN]; /* likewise, from TOP_IN on */
};

struct top_table {
	int width;                /* of the lines; 0: there is no limit */
	int widths[TOP_COLUMNS];  /* 0: left out */
};

void top_table_fit(struct top_table *table, int width);
/* Lines without their end. */
void top_table_print_header(const struct top_table *table, FILE *file);
void top_table_print_row(const struct top_table *table, const struct top_row *row, FILE *file);
/* Any other text, cut where the line ends. */
void top_table_print_text(const struct top_table *table, const char *text, FILE *file);

#endif
