/* SPDX-License-Identifier: Apache-2.0 */
#include "policy.h"

#include "log.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

#define WORD_SIZE 256

/* A number, or what `find` makes of a name. */
static bool parse_number(const char *word, unsigned long *number)
{
	char *end;

	if (word[0] < '0' || word[0] > '9')
		return false;
	errno = 0;
	*number = strtoul(word, &end, 10);
	return errno == 0 && *end == '\0' && *number < UINT32_MAX;
}

static int add(void **list, size_t *count, size_t size, const void *value)
{
	char *grown = realloc(*list, (*count + 1) * size);

	if (!grown)
		return srdma_fail(-ENOMEM, "out of memory");
	memcpy(grown + *count * size, value, size);
	*list = grown;
	++*count;
	return 0;
}

static int add_group(struct policy_users *users, const char *word)
{
	const struct group *group;
	unsigned long number;
	void *list = users->gids;
	gid_t gid;
	int ret;

	if (parse_number(word, &number)) {
		gid = (gid_t)number;
	} else {
		group = getgrnam(word);
		if (!group)
			return srdma_fail(-EINVAL, "there is no group '%s' on this host", word);
		gid = group->gr_gid;
	}
	ret = add(&list, &users->gid_count, sizeof gid, &gid);
	users->gids = list;
	return ret;
}

static int add_user(struct policy_users *users, const char *word)
{
	const struct passwd *user;
	unsigned long number;
	void *list = users->uids;
	uid_t uid;
	int ret;

	if (parse_number(word, &number)) {
		uid = (uid_t)number;
	} else {
		user = getpwnam(word);
		if (!user)
			return srdma_fail(-EINVAL, "there is no user '%s' on this host", word);
		uid = user->pw_uid;
	}
	ret = add(&list, &users->uid_count, sizeof uid, &uid);
	users->uids = list;
	return ret;
}

int policy_users_parse(const char *text, struct policy_users *out)
{
	struct policy_users users = {.all = !text};
	int ret = 0;

	for (const char *at = text ? text : ""; ret == 0 && *at;) {
		size_t skip = strspn(at, ", \t"), length = strcspn(at + skip, ", \t");
		char word[WORD_SIZE];

		at += skip;
		if (length == 0)
			break;
		if (length >= sizeof word) {
			ret = srdma_fail(-EINVAL, "'%.40s...' is too long for a user's name", at);
			break;
		}
		memcpy(word, at, length);
		word[length] = '\0';
		at += length;
		if (strcmp(word, "*") == 0)
			users.all = true;
		else
			ret = word[0] == '@' ? add_group(&users, word + 1) : add_user(&users, word);
	}
	if (ret != 0)
		policy_users_free(&users);
	else
		*out = users;
	return ret;
}

void policy_users_free(struct policy_users *users)
{
	free(users->uids);
	free(users->gids);
	*users = (struct policy_users){0};
}

static bool has_user(const struct policy_users *users, const struct policy_subject *subject)
{
	if (users->all)
		return true;
	for (size_t i = 0; i < users->uid_count; i++)
		if (users->uids[i] == subject->uid)
			return true;
	for (size_t i = 0; i < users->gid_count; i++) {
		if (users->gids[i] == subject->gid)
			return true;
		for (size_t j = 0; j < subject->group_count; j++)
			if (users->gids[i] == subject->groups[j])
				return true;
	}
	return false;
}

static int by_name(const void *a, const void *b)
{
	const struct policy_peer *x = a, *y = b;

	return strcmp(x->name, y->name);
}

void policy_sort(struct policy *policy)
{
	if (policy->peer_count > 0)
		qsort(policy->peers, policy->peer_count, sizeof *policy->peers, by_name);
}

const struct policy_peer *policy_find(const struct policy *policy, const char *name)
{
	char *key_name = (char *)(uintptr_t)name;
	const struct policy_peer key = {.name = key_name};

	return policy->peer_count > 0 ? bsearch(&key, policy->peers, policy->peer_count, sizeof *policy->peers, by_name) : NULL;
}

const char *policy_problem(const struct policy *policy, const char *peer, const struct policy_subject *subject)
{
	const struct policy_peer *listed = policy_find(policy, peer);

	if (listed && listed->deny)
		return "it denies connections with that host (deny in its [peer] section)";
	if (!listed && policy->only_listed_peers)
		return "it has no [peer] section for that host (only-listed-peers)";
	if (!has_user(listed ? &listed->users : &policy->users, subject))
		return "the program's user may not connect with that host (users)";
	return NULL;
}

bool policy_requires_encryption(const struct policy *policy, const char *peer)
{
	const struct policy_peer *listed = policy_find(policy, peer);

	return policy->require_encryption || (listed && listed->require_encryption);
}

bool policy_requires_encryption_of_some(const struct policy *policy)
{
	for (size_t i = 0; i < policy->peer_count; i++)
		if (policy->peers[i].require_encryption)
			return true;
	return policy->require_encryption;
}

void policy_free(struct policy *policy)
{
	for (size_t i = 0; i < policy->peer_count; i++) {
		free(policy->peers[i].name);
		policy_users_free(&policy->peers[i].users);
	}
	free(policy->peers);
	policy_users_free(&policy->users);
	*policy = (struct policy){0};
}
