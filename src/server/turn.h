/* SPDX-License-Identifier: Apache-2.0 */
/* The threads of a worker, of which one works at a time. While one waits in a function of the program, another one takes its place, so
 * that the worker's other clients are served meanwhile. */
#ifndef SRDMA_TURN_H
#define SRDMA_TURN_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

struct srdma_turn {
	void *(*run)(void *arg);
	void *arg;
	size_t stack;
	atomic_uint returning; /* threads that have waited, and want to go on */

	pthread_mutex_t mutex; /* the thread that works holds it; guards the members below */
	pthread_cond_t vacancy; /* `vacant` or `over` was set */
	pthread_cond_t entered; /* a thread has returned */
	pthread_t *threads;
	unsigned count;
	pthread_t owner; /* the thread that serves all clients, unless `vacant` */
	bool vacant, over;
	unsigned spares;   /* threads that wait for a vacancy */
	unsigned absences; /* how often a thread has left to wait, or has returned */
};

/* Starts the first thread. It runs run(arg) until srdma_turn_take returns false. Returns 0 or an errno. */
int srdma_turn_start(struct srdma_turn *turn, void *(*run)(void *), void *arg, size_t stack);
/* Ends all threads, which must be about to end, and frees what srdma_turn_start has made. */
void srdma_turn_join(struct srdma_turn *turn);

/* The functions below are for the worker's threads, between srdma_turn_enter and srdma_turn_exit. */
void srdma_turn_enter(struct srdma_turn *turn);
void srdma_turn_exit(struct srdma_turn *turn);
/* Waits until the calling thread is to serve all clients. False: there is nothing left to do. */
bool srdma_turn_take(struct srdma_turn *turn);
/* Whether it still is. */
bool srdma_turn_is_mine(const struct srdma_turn *turn);
/* Lets the threads go on that have returned from a wait. */
void srdma_turn_let_in(struct srdma_turn *turn);
/* There is nothing left to do. */
void srdma_turn_end(struct srdma_turn *turn);
/* Around a long wait: other threads work meanwhile, one of them in the place of the calling thread. */
void srdma_turn_leave(struct srdma_turn *turn);
void srdma_turn_return(struct srdma_turn *turn);

#endif
