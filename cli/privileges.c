/* SPDX-License-Identifier: Apache-2.0 */
#include "serve.h"

#include "cli.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

int privileges_freeze(void)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)
		return CLI_EXIT_OK;
	return cli_failed(CLI_EXIT_FAILED, "cannot set no_new_privs: %s", strerror(errno));
}

static int find(const struct settings *settings, uid_t *uid, gid_t *gid)
{
	const struct passwd *user = getpwnam(settings->user);
	const struct group *group;

	if (!user)
		return cli_failed(CLI_EXIT_USAGE, "user: there is no user %s", settings->user);
	*uid = user->pw_uid;
	*gid = user->pw_gid;
	if (settings->group) {
		group = getgrnam(settings->group);
		if (!group)
			return cli_failed(CLI_EXIT_USAGE, "group: there is no group %s", settings->group);
		*gid = group->gr_gid;
	}
	if (*uid == 0)
		return cli_failed(CLI_EXIT_USAGE, "user: %s is root; name another user, or none", settings->user);
	return CLI_EXIT_OK;
}

static int change(uid_t uid, gid_t gid)
{
	if (setgroups(1, &gid) != 0 || setresgid(gid, gid, gid) != 0 || setresuid(uid, uid, uid) != 0)
		return cli_failed(CLI_EXIT_FAILED, "cannot become user %u, group %u: %s", (unsigned)uid, (unsigned)gid, strerror(errno));
	/* It must not come back: capabilities go with the user. */
	if (setuid(0) == 0 || seteuid(0) == 0 || (gid != 0 && setgid(0) == 0))
		return cli_failed(CLI_EXIT_FAILED, "the process could become root again after it switched to user %u, so it exits",
				  (unsigned)uid);
	return CLI_EXIT_OK;
}

/* What SIGHUP will want to read again. */
static void warn_of_unreadable(const struct settings *settings)
{
	const char *const files[] = {settings->config_file, settings->cert_file, settings->key_file, settings->server_tls.client_ca_file,
				     settings->server_tls.client_crl_file};

	for (size_t i = 0; i < sizeof files / sizeof *files; i++)
		if (files[i] && access(files[i], R_OK) != 0)
			cli_log(SRDMA_LOG_WARN, "user %s cannot read %s: a reload (SIGHUP) will fail", settings->user,
				files[i]);
}

int privileges_drop(const struct settings *settings)
{
	uid_t uid = (uid_t)-1;
	gid_t gid = (gid_t)-1;
	int code;

	if (!settings->user && settings->group)
		return cli_failed(CLI_EXIT_USAGE, "group: --group needs --user");
	if (!settings->user)
		return CLI_EXIT_OK;
	code = find(settings, &uid, &gid);
	if (code != CLI_EXIT_OK)
		return code;
	if (geteuid() != 0) {
		uid_t real, effective, saved;

		if (getresuid(&real, &effective, &saved) == 0 && real == uid && effective == uid && saved == uid)
			return CLI_EXIT_OK;
		return cli_failed(CLI_EXIT_USAGE, "user: only root can switch to user %s; start the server as root or as that user",
				  settings->user);
	}
	code = change(uid, gid);
	if (code == CLI_EXIT_OK)
		warn_of_unreadable(settings);
	return code;
}
