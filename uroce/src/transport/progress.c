/* SPDX-License-Identifier: Apache-2.0 */
#include "progress.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "engine.h"
#include "eventfd.h"
#include "log.h"
#include "shm.h"
#include "thread.h"
#include "udp.h"
#include "wake.h"

enum {
	ROUND_PACKETS = 256,
	/* Each nap's end interrupts an application that polls; but when it stops, nobody answers its peers until then. */
	FIRST_NAP_NS = 100000,
	LONGEST_NAP_NS = 2000000,
	/* An application that was in the device so lately may be there again when the thread has the lock. */
	HERE_NS = 5000,
	MOMENTS = 16, /* that it may be here, and not poll, before the thread works all the same */
	/* How long an acknowledgement waits for the application's answer, to go out with it. The peer that polls for the one then finds
	 * both; a peer that finds only the acknowledgement stops polling, and its thread must be woken for the answer. */
	ANSWER_NS = 10000,
	/* No answer is likely from an application that was silent for so long. */
	SILENT_NS = 5000000,
};

/* `shm_fd` and `link_fd` may be -1. */
static void wait_for(struct progress *progress, int link_fd, int shm_fd, uint64_t ns)
{
	struct pollfd fds[3] = {
		{ .fd = progress->wake_fd, .events = POLLIN },
		{ .fd = link_fd, .events = POLLIN },
		{ .fd = shm_fd, .events = POLLIN },
	};
	struct timespec timeout = { .tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000) };
	if (ppoll(fds, 3, ns == UINT64_MAX ? NULL : &timeout, NULL) <= 0 || fds[0].revents == 0)
		return;
	eventfd_wait(progress->wake_fd);
}

/* The application has called within `ns`. A call may take long when much has come: the lock tells that one goes on. */
static bool application_is_here(struct device *device, uint64_t ns)
{
	if (!device_try_lock(device))
		return true;
	device_unlock(device);
	return wake_application_active(device, device->clock(), ns);
}

/* Leaves packets to the application for as long as it polls; and for a moment when it is here, for another of its threads may poll than
 * the one that has armed a queue. */
static void nap(struct device *device)
{
	struct progress *progress = device->progress;
	unsigned armed = atomic_load(&progress->armed_polls);
	uint64_t ns = HERE_NS;
	atomic_store(&progress->napping, true);
	for (unsigned moments = 0; moments < MOMENTS; moments++) {
		bool polls = wake_application_polls(device, device->clock());
		if (!application_is_here(device, polls ? ACTIVE_NS : HERE_NS))
			break;
		unsigned now_armed = atomic_load(&progress->armed_polls);
		if (now_armed != armed)
			ns = HERE_NS; /* it is about to sleep */
		armed = now_armed;
		uint64_t least = polls ? FIRST_NAP_NS : HERE_NS, most = polls ? LONGEST_NAP_NS : FIRST_NAP_NS;
		ns = ns < least ? least : ns > most ? most : ns;
		wait_for(progress, -1, -1, ns);
		ns *= 2;
		if (polls)
			moments = 0;
	}
	atomic_store(&progress->napping, false);
}

/* One round. Returns for how long the thread may wait then, in nanoseconds, timers left aside. */
static uint64_t work(struct device *device)
{
	struct progress *progress = device->progress;
	engine_enter(device);
	progress->wake_at = 0; /* it is awake */
	progress->called = false;
	bool patient = wake_application_active(device, device->now, SILENT_NS) && !wake_armed_lately(progress);
	unsigned received = engine_round(device, ROUND_PACKETS, patient);
	bool more = device->active_head && link_ready(device->link);
	device_unlock(device);
	if (received > 0 || more)
		return patient ? ANSWER_NS : 0;
	return UINT64_MAX;
}

/* For so long, or until something happens, or a timer is due. Whoever sends through shared memory from now on wakes the thread. */
static void rest(struct device *device, uint64_t ns)
{
	struct progress *progress = device->progress;
	device_lock(device);
	bool quiet = !device->shm || shm_sleep(device->shm);
	uint64_t next = timers_next(&device->timers), now = device->clock();
	progress->wake_at = next;
	device_unlock(device);
	if (next != UINT64_MAX && (next <= now || next - now < ns))
		ns = next <= now ? 0 : next - now;
	if (quiet && ns > 0)
		wait_for(progress, udp_fd(device->udp), device->shm ? shm_fd(device->shm) : -1, ns);
}

__attribute__((noreturn)) static void *run(void *arg)
{
	struct device *device = arg;

	prctl(PR_SET_TIMERSLACK, 1000UL);
	for (;;) {
		uint64_t ns = work(device);
		if (ns > 0 && !wake_application_polls(device, device->clock()))
			rest(device, ns);
		nap(device);
	}
}

int progress_start(struct device *device)
{
	struct progress *progress = calloc(1, sizeof *progress);
	if (!progress)
		return -ENOMEM;
	atomic_init(&progress->poll_ns, LONGEST_PAUSE_NS);
	progress->wake_fd = eventfd_open(EFD_NONBLOCK);
	if (progress->wake_fd < 0) {
		int error = errno;
		free(progress);
		return -error;
	}
	device->progress = progress;

	int error = thread_start(&progress->thread, run, device);
	if (error != 0) {
		log_write(LOG_ERROR, "cannot start the thread of the device: %s", strerror(error));
		device->progress = NULL;
		close(progress->wake_fd);
		free(progress);
		return -error;
	}
	pthread_setname_np(progress->thread, "uroce");
	return 0;
}

void progress_abandon(struct device *device)
{
	if (!device->progress)
		return;
	close(device->progress->wake_fd);
	device->progress = NULL; /* not freed: this must be async-signal-safe */
}
