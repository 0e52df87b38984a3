/* SPDX-License-Identifier: Apache-2.0 */
#include "serve_files.h"

#include "cli.h"
#include "copy_session.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* For threads that wait for a disk when the server ends. */
#define END_SECONDS 10
#define RETRY_MS 1000

struct named_area {
	char *name; /* NULL: for all others */
	struct files_area area;
};

/* What the settings say; it never changes. */
struct rules {
	struct named_area *areas;
	size_t count;
	unsigned copies, copies_per_identity;
	int setup_ms;
};

/* For a client that was let in, and is not connected yet: without it, two could be let in for one copy that may still run. */
struct place {
	struct place *next;
	int64_t until; /* the set-up's deadline */
	char name[SRDMA_NAME_SIZE];
};

struct serve_files {
	struct rules *start;   /* which the sandbox goes by */
	pthread_mutex_t mutex; /* guards all below */
	pthread_cond_t ended;
	struct rules *rules;
	struct copy_session *running; /* a list */
	unsigned count;
	struct place *places;  /* a list */
};

bool serve_files_wanted(const struct settings *settings)
{
	bool wanted = settings->files_directory != NULL;

	for (size_t i = 0; i < settings->identities.count; i++)
		wanted = wanted || settings->identities.items[i].files_directory;
	return wanted;
}

/* ---- rules ----------------------------------------------------------------------------------------------------- */

static void rules_free(struct rules *rules)
{
	for (size_t i = 0; rules && i < rules->count; i++) {
		free(rules->areas[i].name);
		free(rules->areas[i].area.folder);
	}
	if (rules)
		free(rules->areas);
	free(rules);
}

static bool add_area(struct rules *rules, const struct settings *settings, const struct identity *identity)
{
	struct named_area *named = &rules->areas[rules->count++];
	const char *folder = identity && identity->files_directory ? identity->files_directory : settings->files_directory;
	int64_t rights = identity && identity->files_rights >= 0 ? identity->files_rights : settings->files_rights;
	int64_t quota = identity && identity->files_quota >= 0 ? identity->files_quota : settings->files_quota;

	*named = (struct named_area){.area = {.rights = (unsigned)rights,
					      .quota = (uint64_t)quota,
					      .timeout_ms = (int)settings->conn.timeout_ms,
					      .partial_days = (unsigned)settings->files_partial_days}};
	named->name = identity ? strdup(identity->name) : NULL;
	named->area.folder = folder ? strdup(folder) : NULL;
	return (!identity || named->name) && (!folder || named->area.folder);
}

static struct rules *rules_new(const struct settings *settings)
{
	struct rules *rules = calloc(1, sizeof *rules);
	bool good;

	if (!rules)
		return NULL;
	rules->copies = (unsigned)settings->files_copies;
	rules->copies_per_identity = (unsigned)(settings->files_copies_per_identity ? settings->files_copies_per_identity : (settings->files_copies + 1) / 2);
	rules->setup_ms = (int)settings->conn.setup_timeout_ms;
	rules->areas = calloc(settings->identities.count + 1, sizeof *rules->areas);
	good = rules->areas && add_area(rules, settings, NULL);
	for (size_t i = 0; good && i < settings->identities.count; i++)
		good = add_area(rules, settings, &settings->identities.items[i]);
	if (!good) {
		rules_free(rules);
		return NULL;
	}
	return rules;
}

static const struct files_area *find_area(const struct rules *rules, const char *name)
{
	for (size_t i = 1; i < rules->count; i++)
		if (strcmp(rules->areas[i].name, name) == 0)
			return &rules->areas[i].area;
	return &rules->areas[0].area;
}

static int check_folder(const char *where, const char *folder)
{
	struct stat status;
	int fd;

	if (folder[0] != '/')
		return cli_failed(CLI_EXIT_USAGE, "%s: %s: give an absolute path", where, folder);
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &status) != 0)
		return cli_failed(CLI_EXIT_USAGE, "%s: cannot open the folder %s: %s; make it, or let the server's user read it", where, folder,
				  strerror(errno));
	close(fd);
	return CLI_EXIT_OK;
}

int serve_files_check(const struct settings *settings)
{
	int code = CLI_EXIT_OK;

	if (!serve_files_wanted(settings))
		return code;
	if (settings->conn.region_size < SRDMA_STREAM_REGION_MIN || !(settings->conn.region_access & IBV_ACCESS_REMOTE_WRITE))
		return cli_failed(CLI_EXIT_USAGE,
				  "[files]: clients copy through their memory regions: set region-size to %d or more, and region-access to rw or w",
				  SRDMA_STREAM_REGION_MIN);
	if (settings->files_directory)
		code = check_folder("[files] directory", settings->files_directory);
	for (size_t i = 0; i < settings->identities.count && code == CLI_EXIT_OK; i++)
		if (settings->identities.items[i].files_directory)
			code = check_folder("[identity] files-directory", settings->identities.items[i].files_directory);
	return code;
}

static bool is_below(const char *folder, const char *top)
{
	size_t length = top ? strlen(top) : 0;

	while (length > 1 && top[length - 1] == '/')
		length--;
	return top && strncmp(folder, top, length) == 0 && (folder[length] == '\0' || folder[length] == '/') && !strstr(folder, "/..");
}

static bool is_known(const struct rules *start, const char *folder)
{
	bool known = !folder;

	for (size_t i = 0; i < start->count; i++)
		known = known || is_below(folder, start->areas[i].area.folder);
	return known;
}

const char *serve_files_new_folder(const struct serve_files *files, const struct settings *settings)
{
	if (settings->no_sandbox)
		return NULL;
	if (!is_known(files->start, settings->files_directory))
		return settings->files_directory;
	for (size_t i = 0; i < settings->identities.count; i++)
		if (!is_known(files->start, settings->identities.items[i].files_directory))
			return settings->identities.items[i].files_directory;
	return NULL;
}

int serve_files_new(const struct settings *settings, struct serve_files **out)
{
	struct serve_files *files = calloc(1, sizeof *files);
	pthread_condattr_t attributes;

	if (!files)
		return -ENOMEM;
	files->start = rules_new(settings);
	files->rules = rules_new(settings);
	if (!files->start || !files->rules) {
		rules_free(files->start);
		rules_free(files->rules);
		free(files);
		return -ENOMEM;
	}
	pthread_mutex_init(&files->mutex, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&files->ended, &attributes);
	pthread_condattr_destroy(&attributes);
	*out = files;
	return 0;
}

int serve_files_set(struct serve_files *files, const struct settings *settings)
{
	struct rules *rules = rules_new(settings), *old;

	if (!rules)
		return -ENOMEM;
	pthread_mutex_lock(&files->mutex);
	old = files->rules;
	files->rules = rules;
	pthread_mutex_unlock(&files->mutex);
	rules_free(old);
	return 0;
}

void serve_files_free(struct serve_files **files)
{
	struct serve_files *old = *files;
	struct timespec until;
	unsigned left;
	int ret = 0;

	*files = NULL;
	if (!old)
		return;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += END_SECONDS;
	pthread_mutex_lock(&old->mutex);
	while (old->count > 0 && ret == 0)
		ret = pthread_cond_timedwait(&old->ended, &old->mutex, &until);
	left = old->count;
	pthread_mutex_unlock(&old->mutex);
	/* A thread that a disk holds still uses it; the process ends with it. */
	if (left > 0)
		return;
	rules_free(old->rules);
	rules_free(old->start);
	while (old->places) {
		struct place *place = old->places;

		old->places = place->next;
		free(place);
	}
	pthread_mutex_destroy(&old->mutex);
	pthread_cond_destroy(&old->ended);
	free(old);
}

/* ---- clients --------------------------------------------------------------------------------------------------- */

/* The mutex is held. */
static bool may_copy(const struct serve_files *files, const char *name)
{
	const struct files_area *area = find_area(files->rules, name);

	return area->folder && area->rights != 0;
}

/* Places whose clients have not come in time are free again. The mutex is held. */
static void drop_old_places(struct serve_files *files)
{
	struct place **at = &files->places;
	int64_t now = cli_now_ms();

	while (*at) {
		struct place *place = *at;

		if (place->until > now) {
			at = &place->next;
			continue;
		}
		*at = place->next;
		free(place);
	}
}

/* Why this client can't copy now, but may later; NULL: it can. The mutex is held. */
static const char *find_busy(struct serve_files *files, const char *name)
{
	unsigned all = files->count, same = 0;

	drop_old_places(files);
	for (const struct copy_session *session = files->running; session; session = session->next)
		same += strcmp(session->name, name) == 0;
	for (const struct place *place = files->places; place; place = place->next) {
		all++;
		same += strcmp(place->name, name) == 0;
	}
	if (all >= files->rules->copies)
		return "as many copies run on this server as it allows; try again later";
	if (same >= files->rules->copies_per_identity)
		return "as many copies of yours run on this server as it allows; try again later";
	return NULL;
}

/* The mutex is held. Errors: -ENOMEM. */
static int take_place(struct serve_files *files, const char *name)
{
	struct place *place = calloc(1, sizeof *place);

	if (!place)
		return -ENOMEM;
	snprintf(place->name, sizeof place->name, "%s", name);
	place->until = cli_now_ms() + files->rules->setup_ms;
	place->next = files->places;
	files->places = place;
	return 0;
}

/* Its client has come. False: it took too long. The mutex is held. */
static bool give_place_up(struct serve_files *files, const char *name)
{
	struct place **at = &files->places, *place;

	while (*at && strcmp((*at)->name, name) != 0)
		at = &(*at)->next;
	place = *at;
	if (!place)
		return false;
	*at = place->next;
	free(place);
	return true;
}

static int admit(void *state, const struct srdma_admit_request *request, struct srdma_reject *reject)
{
	struct serve_files *files = state;
	const char *busy = NULL;
	bool may;
	int ret = 0;

	pthread_mutex_lock(&files->mutex);
	may = may_copy(files, request->peer_name);
	if (may)
		busy = find_busy(files, request->peer_name);
	if (may && !busy)
		ret = take_place(files, request->peer_name);
	pthread_mutex_unlock(&files->mutex);
	if (may && !busy)
		return ret;
	snprintf(reject->text, sizeof reject->text, "%s", may ? busy : "this server lets you neither read nor write files");
	if (busy) {
		/* The client tries again by itself. */
		reject->reason = SRDMA_REJECT_BUSY;
		reject->retry_after_ms = RETRY_MS;
	}
	return -1;
}

/* In the thread of a copy, whose work is over. */
static void forget(struct copy_session *session, void *arg)
{
	struct serve_files *files = arg;
	struct copy_session **at = &files->running;

	pthread_mutex_lock(&files->mutex);
	while (*at != session)
		at = &(*at)->next;
	*at = session->next;
	files->count--;
	pthread_cond_broadcast(&files->ended);
	pthread_mutex_unlock(&files->mutex);
}

static int connect_client(void *state, struct srdma_conn *conn, const void *data, size_t size, void **client)
{
	struct serve_files *files = state;
	struct srdma_conn_info info;
	struct copy_session *session = NULL;
	int ret = -EINVAL;

	if (size != FILES_KEY_SIZE)
		return ret;
	srdma_conn_get_info(conn, &info);
	pthread_mutex_lock(&files->mutex);
	if (!may_copy(files, info.peer_name))
		ret = -EACCES;
	else if (!give_place_up(files, info.peer_name) && find_busy(files, info.peer_name))
		ret = -EBUSY;
	else
		ret = copy_session_new(conn, data, find_area(files->rules, info.peer_name), forget, files, &session);
	if (ret == 0) {
		session->next = files->running;
		files->running = session;
		files->count++;
	}
	pthread_mutex_unlock(&files->mutex);
	/* Its end needs the mutex. */
	if (ret == 0)
		ret = copy_session_start(session);
	*client = session;
	if (ret < 0)
		cli_log(SRDMA_LOG_WARN, "client %llu: cannot begin its copy: %s", (unsigned long long)info.client_id, srdma_strerror(ret));
	return ret;
}

const struct service serve_files_service = {
	.word = SERVE_FILES_WORD,
	.admit = admit,
	.connect = connect_client,
	.stream = copy_session_stream,
	.wake = copy_session_wake,
	.disconnect = copy_session_disconnect,
};
