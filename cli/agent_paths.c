/* SPDX-License-Identifier: Apache-2.0 */
#include "agent_command.h"

#include "local.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONTROL_NAME "agent.control"

/* "/run/securdma/agent.sock". */
static char *default_socket(void)
{
	const char *folder = getenv("RUNTIME_DIRECTORY"), *of_user = getenv("XDG_RUNTIME_DIR");
	const char *name = strrchr(LOCAL_SOCKET, '/');
	char *path = NULL;
	int n;

	/* systemd's may be a list, with colons; it is the folder "securdma" already. */
	if (folder && folder[0] == '/')
		n = asprintf(&path, "%.*s%s", (int)strcspn(folder, ":"), folder, name);
	else if (geteuid() != 0 && of_user && of_user[0] == '/')
		n = asprintf(&path, "%s/%s", of_user, LOCAL_SOCKET);
	else
		n = asprintf(&path, "/run/%s", LOCAL_SOCKET);
	return n < 0 ? NULL : path;
}

char *agent_socket_path(const struct settings *settings)
{
	return settings->agent.socket ? strdup(settings->agent.socket) : default_socket();
}

char *agent_control_path(const struct settings *settings)
{
	char *socket, *slash, *path = NULL;

	if (settings->agent.control)
		return strdup(settings->agent.control);
	socket = agent_socket_path(settings);
	if (!socket)
		return NULL;
	slash = strrchr(socket, '/');
	if (asprintf(&path, "%.*s%s", slash ? (int)(slash + 1 - socket) : 0, socket, CONTROL_NAME) < 0)
		path = NULL;
	free(socket);
	return path;
}
