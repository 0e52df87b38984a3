/* SPDX-License-Identifier: Apache-2.0 */
/* The result of a check of one thing: of several findings, the worst is the verdict. */
#ifndef SRDMA_VERDICT_H
#define SRDMA_VERDICT_H

#include "securdma_cert.h"

struct srdma_verdict {
	enum srdma_check_result result;
	int error;    /* of a failure */
	char text[512], advice[512]; /* advice "": none */
};

/* Replaces the verdict, with its text, by a worse one; of several equally bad results the first one counts. An `error`
 * of 0 stands for SRDMA_ECONFIG; `advice` NULL: none. */
void srdma_verdict_take(struct srdma_verdict *verdict, enum srdma_check_result result, int error, const char *advice, const char *format,
			...) __attribute__((format(printf, 5, 6)));

/* The receiver of verdicts, and the first failure among them. */
struct srdma_bench {
	srdma_check_fn *fn; /* NULL: no receiver */
	void *arg;
	int error;
	char text[1088];
};
void srdma_bench_report(struct srdma_bench *bench, const char *what, const struct srdma_verdict *verdict);
/* 0, or the error of the first failure, with its text as the thread's last error. */
int srdma_bench_end(const struct srdma_bench *bench);

#endif
