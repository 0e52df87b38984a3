/* SPDX-License-Identifier: Apache-2.0 */
#include "expiry.h"

#include "cli.h"

#include <time.h>

int64_t expiry_days(int64_t not_after)
{
	int64_t left = not_after - (int64_t)time(NULL);

	return left >= 0 ? left / 86400 : -1 - (-left) / 86400;
}

void expiry_format(int64_t not_after, char *text, size_t size)
{
	time_t when = (time_t)not_after;
	struct tm utc;

	if (!gmtime_r(&when, &utc) || strftime(text, size, "%Y-%m-%d", &utc) == 0)
		text[0] = '\0';
}

/* A clock that is wrong mostly is by hours. */
static void format_time(int64_t when, char *text, size_t size)
{
	time_t seconds = (time_t)when;
	struct tm utc;

	if (!gmtime_r(&seconds, &utc) || strftime(text, size, "%Y-%m-%dT%H:%M:%SZ", &utc) == 0)
		text[0] = '\0';
}

void expiry_warn(const char *cert_file)
{
	struct srdma_cert_info info;
	char day[32];
	int64_t days;

	if (srdma_cert_read(cert_file, &info) < 0)
		return;
	if (info.not_before > (int64_t)time(NULL)) {
		format_time(info.not_before, day, sizeof day);
		cli_log(SRDMA_LOG_ERROR,
			"certificate %s is not valid before %s: peers will refuse it until then; check this machine's clock, or make a new one "
			"with 'securdma cert'",
			cert_file, day);
		return;
	}
	days = expiry_days(info.not_after);
	expiry_format(info.not_after, day, sizeof day);
	if (days < 0)
		cli_log(SRDMA_LOG_ERROR,
			"certificate %s expired on %s: peers will refuse it; make a new one with 'securdma cert'",
			cert_file, day);
	else if (days < EXPIRY_WARN_DAYS)
		cli_log(SRDMA_LOG_WARN,
			"certificate %s expires in %lld days, on %s; make a new one with 'securdma cert'", cert_file,
			(long long)days, day);
}
