/* SPDX-License-Identifier: Apache-2.0 */
/* Sends the log to syslog(3), with its events. */
#include <securdma.h>
#include <syslog.h>

void to_syslog(const struct srdma_log_record *record, void *arg)
{
	static const int levels[] = {LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG};

	(void)arg;
	syslog(levels[record->level], "%s: %s", record->event, record->text);
	for (size_t i = 0; i < record->field_count; i++)
		if (record->fields[i]->text)
			syslog(LOG_DEBUG, "  %s=%s", record->fields[i]->name, record->fields[i]->text);
}

void begin_log(void)
{
	srdma_log_set(SRDMA_LOG_INFO, to_syslog, NULL);
}
