/* SPDX-License-Identifier: Apache-2.0 */
#include "ucma.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine.h"
#include "guard.h"
#include "own_device.h"
#include "ucma_parts.h"

enum {
	MOST_FDS = 1 << 20,
	LONGEST_COMMAND = 1024,
	LEAST_EVENT = offsetof(struct rdma_ucm_event_resp, reserved), /* as libraries without ECE have it */
};

/* ---- descriptors ---- */

/* By descriptor, for write(2) and close(2) of all of the program's: two steps, so that it grows without moving. */
enum { CHUNK = 1024 };
static _Atomic(_Atomic(struct ucma_file *) *) chunks[MOST_FDS / CHUNK];
/* Guards the making of chunks, and the users of files. No other lock is taken under it, and it is not taken under the device's. */
static pthread_mutex_t files_lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic(pid_t) owner; /* the process whose files they are; 0: a forked child's parent */

static _Atomic(struct ucma_file *) *slot_of(int fd, bool make)
{
	if (fd < 0 || fd >= MOST_FDS)
		return NULL;
	_Atomic(_Atomic(struct ucma_file *) *) *chunk = &chunks[fd / CHUNK];
	if (!atomic_load(chunk) && make) {
		pthread_mutex_lock(&files_lock);
		if (!atomic_load(chunk))
			atomic_store(chunk, calloc(CHUNK, sizeof(**chunk)));
		pthread_mutex_unlock(&files_lock);
	}
	_Atomic(struct ucma_file *) *slots = atomic_load(chunk);
	return slots ? &slots[fd % CHUNK] : NULL;
}

/* Cheap for nearly all descriptors. Forked children leave the channels to their parent, as those of vfork(2) do, in whose memory
 * they are: such children often close all descriptors, or write to some. */
static _Atomic(struct ucma_file *) *taken_slot(int fd)
{
	_Atomic(struct ucma_file *) *slot = slot_of(fd, false);

	if (!slot || !atomic_load_explicit(slot, memory_order_relaxed))
		return NULL;
	return atomic_load(&owner) == getpid() ? slot : NULL;
}

struct ucma_file *ucma_hold(int fd)
{
	_Atomic(struct ucma_file *) *slot = taken_slot(fd);
	if (!slot)
		return NULL;
	pthread_mutex_lock(&files_lock);
	struct ucma_file *file = atomic_load(slot);
	if (file)
		file->users++;
	pthread_mutex_unlock(&files_lock);
	return file;
}

/* A thread may wait for an event while another closes the channel: then it goes on waiting, as the kernel has it. */
void ucma_release(struct ucma_file *file)
{
	pthread_mutex_lock(&files_lock);
	bool last = --file->users == 0;
	pthread_mutex_unlock(&files_lock);
	if (!last)
		return;
	close(file->drain_fd);
	close(file->signal_fd);
	free(file);
}

/* The kernel's struct statx, as far as it matters. Not fstat(2): that is asked about these descriptors too. */
struct status {
	uint32_t unused[7];
	uint16_t mode;
	uint16_t unused_too;
	uint64_t inode;
	uint64_t rest[27];
};
_Static_assert(sizeof(struct status) == 256 && offsetof(struct status, inode) == 32, "the kernel's layout");

/* 0: it is no pipe. */
static uint64_t pipe_inode(int fd)
{
	struct status status;

	if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH, 0, &status) != 0 || !S_ISFIFO(status.mode))
		return 0;
	return status.inode;
}

bool ucma_is(int fd)
{
	int saved = errno;
	struct ucma_file *file = ucma_hold(fd);
	if (!file)
		return false;
	/* The program may have closed it in a way that is not seen here (close_range), and opened another. */
	bool same = pipe_inode(fd) == file->inode;
	ucma_release(file);
	errno = saved;
	return same;
}

/* ---- events ---- */

/* The thread is cancelled, or a signal comes first. */
static void stop_waiting(struct ucma_waiter *waiter)
{
	engine_enter(waiter->file->device);
	ucma_event_stop_waiting(waiter);
	engine_leave(waiter->file->device);
}

static void cancelled(void *arg)
{
	struct ucma_waiter *waiter = arg;

	stop_waiting(waiter);
	ucma_release(waiter->file);
}

/* Until it is called. Not by poll(2): this one goes on after a signal whose handler has SA_RESTART, as write(2) to the kernel's device
 * does. */
static int wait_to_be_called(struct ucma_waiter *waiter)
{
	int error;

	pthread_cleanup_push(cancelled, waiter);
	error = sem_wait(&waiter->woken) != 0 ? -errno : 0;
	pthread_cleanup_pop(0);
	if (error != 0)
		stop_waiting(waiter);
	return error;
}

/* -EAGAIN: there is none. If the thread waits, it is called then. */
static int take_event(struct ucma_waiter *waiter, const struct rdma_ucm_cmd_hdr *header, uint64_t response, bool waits)
{
	struct device *device = waiter->file->device;

	engine_enter(device);
	int error = ucma_event_take(waiter, header, response);
	if (error == -EAGAIN && waits)
		ucma_event_wait(waiter);
	engine_leave(device);
	return error;
}

static int get_event(struct ucma_file *file, const struct rdma_ucm_cmd_hdr *header, const struct rdma_ucm_get_event *cmd)
{
	struct ucma_waiter waiter = {.file = file};
	bool waits = true;

	if (header->out < LEAST_EVENT)
		return -ENOSPC;
	int error = take_event(&waiter, header, cmd->response, false);
	sem_init(&waiter.woken, 0, 0);
	while (error == -EAGAIN && waits) {
		waits = !(fcntl(file->drain_fd, F_GETFL) & O_NONBLOCK);
		error = take_event(&waiter, header, cmd->response, waits);
		if (error == -EAGAIN && waits) {
			int interrupted = wait_to_be_called(&waiter);
			error = interrupted != 0 ? interrupted : -EAGAIN;
		}
	}
	sem_destroy(&waiter.woken);
	return error;
}

/* ---- the device ---- */

/* `cmd` has zeros behind `length` bytes. */
static int run_command(struct ucma_file *file, const struct rdma_ucm_cmd_hdr *header, const void *cmd, size_t length)
{
	if (header->cmd == RDMA_USER_CM_CMD_GET_EVENT)
		return length < sizeof(struct rdma_ucm_get_event) ? -EINVAL : get_event(file, header, cmd);
	/* Of the one command that names another file. */
	const struct rdma_ucm_migrate_id *migrate = cmd;
	struct ucma_file *other = header->cmd == RDMA_USER_CM_CMD_MIGRATE_ID ? ucma_hold((int)migrate->fd) : NULL;
	engine_enter(file->device);
	int error = ucma_command(file, other, header, cmd, length);
	engine_leave(file->device);
	if (other)
		ucma_release(other);
	return error;
}

struct command {
	struct rdma_ucm_cmd_hdr header;
	size_t length; /* of its structure, behind which there are zeros */
	_Alignas(8) uint8_t bytes[LONGEST_COMMAND];
};

static int read_command(struct device *device, struct command *command, const uint8_t *bytes, size_t length)
{
	int error = length < sizeof command->header ? -EINVAL : 0;

	engine_enter(device);
	if (error == 0 && !guard_copy(&command->header, bytes, sizeof command->header))
		error = -EFAULT;
	if (error == 0 && command->header.in + sizeof command->header > length)
		error = -EINVAL;
	/* Newer libraries' structures may be longer. */
	command->length = command->header.in < sizeof command->bytes ? command->header.in : sizeof command->bytes;
	if (error == 0 && !guard_copy(command->bytes, bytes + sizeof command->header, command->length))
		error = -EFAULT;
	engine_leave(device);
	return error;
}

ssize_t ucma_write(int fd, const void *bytes, size_t length)
{
	struct ucma_file *file = ucma_hold(fd);
	struct command command = {.length = 0};
	int error = file ? read_command(file->device, &command, bytes, length) : -EBADF;

	if (error == 0)
		error = run_command(file, &command.header, command.bytes, command.length);
	if (file)
		ucma_release(file);
	if (error == 0)
		return (ssize_t)length;
	errno = -error;
	return -1;
}

static struct ucma *own; /* guarded by `own_lock` */
static pthread_mutex_t own_lock = PTHREAD_MUTEX_INITIALIZER;

/* Other threads of the parent may be at work on files; the locks are taken before the device's (own_device.c), for its handlers are
 * older. */
static void before_fork(void)
{
	pthread_mutex_lock(&own_lock);
	pthread_mutex_lock(&files_lock);
}

static void after_fork(void)
{
	pthread_mutex_unlock(&files_lock);
	pthread_mutex_unlock(&own_lock);
}

static void after_fork_in_child(void)
{
	atomic_store(&owner, 0);
	/* The descriptors are the parent's too: what would be told here would be told there. */
	if (own)
		cm_abandon(own->cm);
	after_fork();
}

/* A child that was forked, and opens a channel: those of its parent, whose descriptors it may have closed unseen. */
static void leave_files(void)
{
	for (size_t i = 0; i < MOST_FDS / CHUNK; i++) {
		_Atomic(struct ucma_file *) *slots = atomic_load(&chunks[i]);
		for (size_t j = 0; slots && j < CHUNK; j++)
			atomic_store(&slots[j], NULL);
	}
}

static int make(struct device *device, struct ucma **out)
{
	struct ucma *ucma = calloc(1, sizeof *ucma);
	if (!ucma)
		return -ENOMEM;
	ucma->device = device;
	engine_enter(device);
	int error = cm_open(device, &ucma_user, &ucma->cm);
	if (error == 0)
		error = cm_start(ucma->cm);
	if (error != 0)
		cm_close(&ucma->cm);
	device->cm = ucma->cm;
	engine_leave(device);
	if (error != 0) {
		free(ucma);
		return error;
	}
	*out = ucma;
	return 0;
}

/* The process's connection manager. A child that was forked leaves its parent's. */
static int start(struct device *device, struct ucma **out)
{
	static bool handles_forks;
	struct ucma *ucma;
	int error = 0;

	pthread_mutex_lock(&own_lock);
	if (!handles_forks) {
		error = -pthread_atfork(before_fork, after_fork, after_fork_in_child);
		handles_forks = error == 0;
	}
	if (error == 0 && (!own || own->device != device)) {
		error = make(device, &ucma);
		if (error == 0) {
			leave_files();
			ucma->left = own;
			own = ucma;
			atomic_store(&owner, getpid());
		}
	}
	*out = own;
	pthread_mutex_unlock(&own_lock);
	return error;
}

static int make_file(struct device *device, int flags, struct ucma_file **out)
{
	struct ucma_file *file = calloc(1, sizeof *file);
	int ends[2];

	if (!file)
		return -ENOMEM;
	int error = start(device, &file->ucma);
	if (error != 0)
		goto free_file;
	if (pipe2(ends, O_CLOEXEC | (flags & O_NONBLOCK)) != 0) {
		error = -errno;
		goto free_file;
	}
	file->drain_fd = fcntl(ends[0], F_DUPFD_CLOEXEC, 0);
	if (file->drain_fd < 0) {
		error = -errno;
		goto close_ends;
	}
	file->inode = pipe_inode(ends[0]);
	if (file->inode == 0) {
		error = -errno;
		goto close_drain;
	}
	file->device = device;
	file->fd = ends[0];
	file->signal_fd = ends[1];
	file->last = &file->first;
	file->users = 1;
	*out = file;
	return 0;

close_drain:
	close(file->drain_fd);
close_ends:
	close(ends[0]);
	close(ends[1]);
free_file:
	free(file);
	return error;
}

/* The program has closed it: all that it holds is destroyed. */
static void let_go(struct ucma_file *file)
{
	struct ucma *ucma = file->ucma;

	engine_enter(file->device);
	for (uint32_t handle = 0; handle < ucma->room; handle++)
		if (ucma->ids[handle] && ucma->ids[handle]->file == file)
			ucma_id_destroy(ucma->ids[handle]);
	engine_leave(file->device);
	ucma_release(file);
}

int ucma_open(int flags)
{
	struct device *device = own_device();
	struct ucma_file *file = NULL;

	int error = device ? make_file(device, flags, &file) : -ENODEV;
	_Atomic(struct ucma_file *) *slot = file ? slot_of(file->fd, true) : NULL;
	if (file && !slot) {
		close(file->fd);
		ucma_release(file);
		error = -EMFILE;
	}
	if (!slot) {
		errno = -error;
		return -1;
	}
	if (!(flags & O_CLOEXEC))
		fcntl(file->fd, F_SETFD, 0);
	int fd = file->fd;
	struct ucma_file *old = atomic_exchange(slot, file); /* closed unseen */
	if (old)
		let_go(old);
	return fd;
}

void ucma_close(int fd)
{
	_Atomic(struct ucma_file *) *slot = taken_slot(fd);
	struct ucma_file *file = slot ? atomic_exchange(slot, NULL) : NULL; /* and its first user */
	int saved = errno;

	if (file)
		let_go(file);
	errno = saved;
}
