/* SPDX-License-Identifier: Apache-2.0 */
#include "turn.h"

#include "log.h"
#include "thread.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The mutex is held, or no other thread runs. */
static int add_thread(struct srdma_turn *turn)
{
	pthread_t *grown = realloc(turn->threads, (turn->count + 1) * sizeof *grown);
	int error;

	if (!grown)
		return ENOMEM;
	turn->threads = grown;
	/* Before the start, since the thread may add others. */
	turn->count++;
	error = srdma_thread_start(turn->run, turn->arg, turn->stack, &grown[turn->count - 1]);
	turn->count -= error != 0;
	return error;
}

int srdma_turn_start(struct srdma_turn *turn, void *(*run)(void *), void *arg, size_t stack)
{
	int error;

	*turn = (struct srdma_turn){.run = run, .arg = arg, .stack = stack, .vacant = true};
	pthread_mutex_init(&turn->mutex, NULL);
	pthread_cond_init(&turn->vacancy, NULL);
	pthread_cond_init(&turn->entered, NULL);
	error = add_thread(turn);
	if (error != 0)
		srdma_turn_join(turn);
	return error;
}

void srdma_turn_join(struct srdma_turn *turn)
{
	/* No thread is added any more: only a client's function could make one. */
	for (unsigned i = 0; i < turn->count; i++)
		pthread_join(turn->threads[i], NULL);
	free(turn->threads);
	pthread_cond_destroy(&turn->entered);
	pthread_cond_destroy(&turn->vacancy);
	pthread_mutex_destroy(&turn->mutex);
}

void srdma_turn_enter(struct srdma_turn *turn)
{
	pthread_mutex_lock(&turn->mutex);
}

void srdma_turn_exit(struct srdma_turn *turn)
{
	pthread_mutex_unlock(&turn->mutex);
}

bool srdma_turn_is_mine(const struct srdma_turn *turn)
{
	return !turn->vacant && pthread_equal(turn->owner, pthread_self());
}

bool srdma_turn_take(struct srdma_turn *turn)
{
	turn->spares++;
	while (!turn->vacant && !turn->over)
		pthread_cond_wait(&turn->vacancy, &turn->mutex);
	turn->spares--;
	if (turn->over)
		return false;
	turn->vacant = false;
	turn->owner = pthread_self();
	return true;
}

void srdma_turn_let_in(struct srdma_turn *turn)
{
	while (atomic_load(&turn->returning) > 0)
		pthread_cond_wait(&turn->entered, &turn->mutex);
}

void srdma_turn_end(struct srdma_turn *turn)
{
	turn->over = true;
	pthread_cond_broadcast(&turn->vacancy);
}

void srdma_turn_leave(struct srdma_turn *turn)
{
	turn->absences++;
	if (srdma_turn_is_mine(turn)) {
		int error = turn->spares > 0 ? 0 : add_thread(turn);

		/* The others then wait as well. */
		if (error != 0)
			srdma_log(SRDMA_LOG_WARN, "cannot start a thread in the place of one that waits: %s", strerror(error));
		turn->vacant = true;
		pthread_cond_signal(&turn->vacancy);
	}
	pthread_mutex_unlock(&turn->mutex);
}

void srdma_turn_return(struct srdma_turn *turn)
{
	atomic_fetch_add(&turn->returning, 1);
	pthread_mutex_lock(&turn->mutex);
	atomic_fetch_sub(&turn->returning, 1);
	turn->absences++;
	pthread_cond_broadcast(&turn->entered);
	/* Nobody has taken its place. `owner` is the last thread that served all clients. */
	if (turn->vacant && pthread_equal(turn->owner, pthread_self()))
		turn->vacant = false;
}
