/* SPDX-License-Identifier: Apache-2.0 */
#include "expiry.h"

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
