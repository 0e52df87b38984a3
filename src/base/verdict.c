/* SPDX-License-Identifier: Apache-2.0 */
#include "verdict.h"

#include "log.h"

#include <stdarg.h>
#include <stdio.h>

void srdma_verdict_take(struct srdma_verdict *verdict, enum srdma_check_result result, int error, const char *advice, const char *format,
			...)
{
	va_list args;

	if (verdict->text[0] && result <= verdict->result)
		return;
	verdict->result = result;
	verdict->error = result != SRDMA_CHECK_FAIL ? 0 : error != 0 ? error : SRDMA_ECONFIG;
	snprintf(verdict->advice, sizeof verdict->advice, "%s", advice ? advice : "");
	va_start(args, format);
	vsnprintf(verdict->text, sizeof verdict->text, format, args);
	va_end(args);
}

void srdma_bench_report(struct srdma_bench *bench, const char *what, const struct srdma_verdict *verdict)
{
	const struct srdma_check check = {
		.size = sizeof check,
		.result = verdict->result,
		.what = what,
		.text = verdict->text,
		.advice = verdict->advice[0] ? verdict->advice : NULL,
		.error = verdict->error,
	};

	if (!verdict->text[0])
		return;
	if (bench->fn)
		bench->fn(&check, bench->arg);
	if (verdict->result != SRDMA_CHECK_FAIL || bench->error != 0)
		return;
	bench->error = verdict->error;
	snprintf(bench->text, sizeof bench->text, "%s%s%s", verdict->text, check.advice ? "; " : "", verdict->advice);
}

int srdma_bench_end(const struct srdma_bench *bench)
{
	return bench->error == 0 ? 0 : srdma_fail(bench->error, "%s", bench->text);
}
