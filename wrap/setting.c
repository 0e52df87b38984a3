/* SPDX-License-Identifier: Apache-2.0 */
#include "setting.h"

#include "local.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TIMEOUT_MS = 2000, TIMEOUT_MOST_MS = 60000 };

static struct setting read_once;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* A user's agent, if there is one; else the host's. */
static void find_agent(char *path, size_t size)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	int length = runtime && *runtime == '/' ? snprintf(path, size, "%s/%s", runtime, LOCAL_SOCKET) : -1;

	if (length < 0 || (size_t)length >= size || access(path, F_OK) != 0)
		snprintf(path, size, "/run/%s", LOCAL_SOCKET);
}

static void read_environment(void)
{
	const char *agent = getenv("SECURDMA_AGENT"), *mode = getenv("SECURDMA_WRAP_MODE");
	const char *timeout = getenv("SECURDMA_WRAP_TIMEOUT_MS");
	const char *encryption = getenv("SECURDMA_WRAP_REQUIRE_ENCRYPTION"), *report = getenv("SECURDMA_WRAP_REPORT");

	/* A path that is too long leads nowhere, so that nothing is let through by another agent. */
	if (agent && *agent)
		snprintf(read_once.agent, sizeof read_once.agent, "%s", agent);
	else
		find_agent(read_once.agent, sizeof read_once.agent);
	read_once.observe = mode && strcmp(mode, "observe") == 0;
	read_once.timeout_ms = timeout ? atoi(timeout) : 0;
	if (read_once.timeout_ms < 1 || read_once.timeout_ms > TIMEOUT_MOST_MS)
		read_once.timeout_ms = TIMEOUT_MS;
	read_once.require_encryption = encryption && strcmp(encryption, "1") == 0;
	snprintf(read_once.report, sizeof read_once.report, "%s", report ? report : "");
}

__attribute__((constructor)) static void read_early(void)
{
	pthread_once(&once, read_environment);
}

const struct setting *setting(void)
{
	pthread_once(&once, read_environment);
	return &read_once;
}
