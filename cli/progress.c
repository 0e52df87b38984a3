/* SPDX-License-Identifier: Apache-2.0 */
#include "progress.h"

#include "cli.h"

#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define BAR_MS   200
#define PLAIN_MS 1000

void progress_bytes(double bytes, char *text, size_t size)
{
	static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
	size_t unit = 0;

	while (bytes >= 999.5 && unit + 1 < sizeof units / sizeof *units) {
		bytes /= 1000;
		unit++;
	}
	snprintf(text, size, unit > 0 && bytes < 99.95 ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
}

void progress_start(struct progress *progress, enum progress_form form, const struct files_report *report)
{
	*progress = (struct progress){.form = form, .report = report, .start = cli_now_ms()};
	progress->shown = progress->start;
}

void progress_clear(struct progress *progress)
{
	if (progress->on_line)
		fputs("\r\033[K", stderr);
	progress->on_line = false;
}

static void time_left(double seconds, char *text, size_t size)
{
	unsigned long long whole = (unsigned long long)seconds;

	if (whole >= 3600)
		snprintf(text, size, "%llu:%02llu:%02llu left", whole / 3600, whole / 60 % 60, whole % 60);
	else
		snprintf(text, size, "%llu:%02llu left", whole / 60, whole % 60);
}

static void draw_bar(double share, size_t width)
{
	size_t full = (size_t)(share * (double)width);

	fputc('[', stderr);
	for (size_t i = 0; i < width; i++)
		fputc(i < full ? '=' : i == full ? '>' : ' ', stderr);
	fputs("] ", stderr);
}

/* The state in words; the bar stands before them. */
static void show(struct progress *progress, uint64_t done)
{
	const struct files_report *report = progress->report;
	uint64_t total = report->total_bytes;
	double share = total > 0 ? (double)(done < total ? done : total) / (double)total : 0;
	char now[16], all[16], rate[16], left[40] = "", text[160];
	struct winsize window = {.ws_col = 80};
	int used;

	progress_bytes((double)done, now, sizeof now);
	progress_bytes((double)total, all, sizeof all);
	progress_bytes(progress->rate, rate, sizeof rate);
	if (total > done && progress->rate > 0)
		time_left((double)(total - done) / progress->rate, left, sizeof left);
	if (total > 0)
		used = snprintf(text, sizeof text, "%3.0f%% %s of %s, %s/s %s", share * 100, now, all, rate, left);
	else
		used = snprintf(text, sizeof text, "%s, %llu file%s, %s/s", now, (unsigned long long)report->files, CLI_S(report->files), rate);
	if (progress->form == PROGRESS_PLAIN) {
		fprintf(stderr, "securdma: %s\n", text);
		return;
	}
	ioctl(STDERR_FILENO, TIOCGWINSZ, &window);
	fputc('\r', stderr);
	if (total > 0 && window.ws_col > used + 14)
		draw_bar(share, (size_t)(window.ws_col - used - 4) < 40 ? (size_t)(window.ws_col - used - 4) : 40);
	fprintf(stderr, "%.*s\033[K", window.ws_col > 1 ? window.ws_col - 1 : 79, text);
	progress->on_line = true;
}

void progress_update(struct progress *progress)
{
	int64_t now, passed;
	double late;

	if (progress->form == PROGRESS_NONE)
		return;
	now = cli_now_ms();
	passed = now - progress->shown;
	if (passed < (progress->form == PROGRESS_BAR ? BAR_MS : PLAIN_MS))
		return;
	/* What was there already says nothing of the rate. */
	late = (double)(progress->report->bytes - progress->shown_bytes) * 1000 / (double)passed;
	progress->rate = progress->rate > 0 ? progress->rate * 0.8 + late * 0.2 : late;
	progress->shown = now;
	progress->shown_bytes = progress->report->bytes;
	show(progress, progress->report->bytes + progress->report->bytes_kept);
}
