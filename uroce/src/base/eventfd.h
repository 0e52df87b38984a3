/* SPDX-License-Identifier: Apache-2.0 */
/* eventfds that count. */
#ifndef UROCE_EVENTFD_H
#define UROCE_EVENTFD_H

/* An eventfd. -1 and errno, logged. */
int eventfd_open(int flags);
/* Counts one more on an eventfd semaphore. `what` names its descriptor, for a message when the program has closed it. */
void eventfd_count(int fd, const char *what);
/* Takes one count back from an eventfd, if there is one. It may be a blocking one that other threads wait at. */
void eventfd_uncount(int fd);
/* Waits until there is one to take, as ibv_get_async_event(3) does. -1 and errno: EAGAIN and EINTR are the caller's. */
int eventfd_wait(int fd);

#endif
