/* SPDX-License-Identifier: Apache-2.0 */
#include "crew.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

#define THREADS_MAX 4
#define STACK_SIZE  ((size_t)256 << 10)

struct files_crew {
	pthread_t threads[THREADS_MAX];
	unsigned count;
	pthread_mutex_t mutex; /* guards all below */
	pthread_cond_t begun, ended;
	void (*work)(void *arg, size_t index);
	void *arg;
	size_t next, total, done; /* pieces: to begin with, in all, over */
	bool over;
};

static void *help(void *arg)
{
	struct files_crew *crew = arg;

	pthread_mutex_lock(&crew->mutex);
	while (!crew->over) {
		if (crew->next == crew->total) {
			pthread_cond_wait(&crew->begun, &crew->mutex);
			continue;
		}
		size_t index = crew->next++;

		pthread_mutex_unlock(&crew->mutex);
		crew->work(crew->arg, index);
		pthread_mutex_lock(&crew->mutex);
		if (++crew->done == crew->total)
			pthread_cond_signal(&crew->ended);
	}
	pthread_mutex_unlock(&crew->mutex);
	return NULL;
}

static unsigned wanted_threads(void)
{
	cpu_set_t processors;
	int count = sched_getaffinity(0, sizeof processors, &processors) == 0 ? CPU_COUNT(&processors) : THREADS_MAX;

	return count < THREADS_MAX ? (unsigned)count : THREADS_MAX;
}

int files_crew_new(struct files_crew **out)
{
	struct files_crew *crew = calloc(1, sizeof *crew);
	unsigned wanted = wanted_threads();
	pthread_condattr_t monotonic;
	pthread_attr_t small;

	if (!crew)
		return -ENOMEM;
	pthread_mutex_init(&crew->mutex, NULL);
	pthread_cond_init(&crew->begun, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&crew->ended, &monotonic);
	pthread_condattr_destroy(&monotonic);
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, STACK_SIZE);
	while (crew->count < wanted && pthread_create(&crew->threads[crew->count], &small, help, crew) == 0)
		crew->count++;
	pthread_attr_destroy(&small);
	*out = crew;
	return 0;
}

void files_crew_free(struct files_crew **out)
{
	struct files_crew *crew = *out;

	*out = NULL;
	if (!crew)
		return;
	pthread_mutex_lock(&crew->mutex);
	crew->over = true;
	pthread_cond_broadcast(&crew->begun);
	pthread_mutex_unlock(&crew->mutex);
	for (unsigned i = 0; i < crew->count; i++)
		pthread_join(crew->threads[i], NULL);
	pthread_cond_destroy(&crew->begun);
	pthread_cond_destroy(&crew->ended);
	pthread_mutex_destroy(&crew->mutex);
	free(crew);
}

/* For a second at most. Returns whether all work is done. */
static bool wait_for(struct files_crew *crew)
{
	struct timespec until;
	int ret = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec++;
	while (crew->done < crew->total && ret == 0)
		ret = pthread_cond_timedwait(&crew->ended, &crew->mutex, &until);
	return crew->done == crew->total;
}

int files_crew_run(struct files_crew *crew, void (*work)(void *arg, size_t index), void *arg, size_t count, int (*live)(void *arg), void *live_arg)
{
	int ret = 0;

	if (crew->count == 0) {
		for (size_t i = 0; i < count; i++)
			work(arg, i);
		return 0;
	}
	pthread_mutex_lock(&crew->mutex);
	crew->work = work;
	crew->arg = arg;
	crew->next = crew->done = 0;
	crew->total = count;
	if (count == 1)
		pthread_cond_signal(&crew->begun);
	else
		pthread_cond_broadcast(&crew->begun);
	while (!wait_for(crew)) {
		pthread_mutex_unlock(&crew->mutex);
		if (ret == 0)
			ret = live(live_arg);
		pthread_mutex_lock(&crew->mutex);
	}
	pthread_mutex_unlock(&crew->mutex);
	return ret;
}
