/* SPDX-License-Identifier: Apache-2.0 */
/* Where a server may connect to by TCP: the ports of its tunnels' targets. Landlock of Linux 6.7 and later limits that; a filter of system
 * calls cannot, since it does not see addresses. */
#include "cli.h"
#include "landlock.h"
#include "serve.h"

#include <errno.h>
#include <unistd.h>

/* As in linux/landlock.h, which may be older than the kernel. */
#define RULE_NET_PORT     2
#define NET_CONNECT_TCP   (1u << 1)
#define VERSION_WITH_PORTS 4

struct ruleset {
	uint64_t files, net;
};

struct port_rule {
	uint64_t access, port;
};

static bool limited;

static int allow(int rules, const struct tunnel_targets *targets)
{
	for (size_t i = 0; i < targets->count; i++) {
		const struct port_rule rule = {NET_CONNECT_TCP, tunnel_target_port(&targets->items[i])};

		if (syscall(LANDLOCK_ADD_RULE, rules, RULE_NET_PORT, &rule, 0) != 0)
			return -errno;
	}
	return 0;
}

int sandbox_limit_connects(const struct settings *settings)
{
	const struct ruleset ruleset = {.net = NET_CONNECT_TCP};
	long version = landlock_version();
	int rules, ret;

	if (version < VERSION_WITH_PORTS) {
		cli_log(SRDMA_LOG_DEBUG, "the kernel cannot limit where the server connects to (Landlock of Linux 6.7)");
		return 0;
	}
	rules = (int)syscall(LANDLOCK_CREATE_RULESET, &ruleset, sizeof ruleset, 0);
	if (rules < 0)
		return -errno;
	ret = allow(rules, &settings->tunnel_targets);
	ret = landlock_enforce(rules, ret);
	limited = ret == 0;
	return ret;
}

bool sandbox_limits_connects(void)
{
	return limited;
}
