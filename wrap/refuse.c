/* SPDX-License-Identifier: Apache-2.0 */
#include "refuse.h"

#include "link.h"
#include "message.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

const char *refuse_gid_text(const uint8_t gid[16], uint32_t lid, char text[REFUSE_GID])
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff}, none[16];

	if (memcmp(gid, none, sizeof none) == 0)
		snprintf(text, REFUSE_GID, "LID %u", lid);
	else if (memcmp(gid, mapped, sizeof mapped) == 0)
		inet_ntop(AF_INET, gid + 12, text, REFUSE_GID);
	else
		inet_ntop(AF_INET6, gid, text, REFUSE_GID);
	return text;
}

int refuse(struct report_record *record, const char *kind, bool told, const char *what, const char *why)
{
	bool observe = link_observes();

	message("%s %s: %s", observe ? "would refuse to" : "refused to", what, why);
	if (!told) {
		struct local_event event = {.refused = !observe};

		snprintf(event.what, sizeof event.what, "%s", kind);
		snprintf(event.text, sizeof event.text, "%.200s: %.300s", what, why);
		link_tell(&event, sizeof event, LOCAL_EVENT);
	}
	if (record) {
		record->kind = observe ? REPORT_OBSERVED : REPORT_REFUSED;
		snprintf(record->text, sizeof record->text, "%.200s: %.300s", what, why);
		report_append(record);
	}
	if (observe)
		return 0;
	errno = EACCES;
	return EACCES;
}
