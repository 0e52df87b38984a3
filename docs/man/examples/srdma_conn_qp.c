/* SPDX-License-Identifier: Apache-2.0 */
/* A raw connection in an event loop: its own completions come by the completion channel. */
#include <fcntl.h>
#include <securdma.h>
#include <sys/epoll.h>

int watch_raw(int epoll_fd, struct srdma_conn *conn)
{
	struct ibv_comp_channel *channel = srdma_conn_comp_channel(conn);
	struct epoll_event event = {};

	event.events = EPOLLIN;
	event.data.ptr = channel;
	if (fcntl(channel->fd, F_SETFL, O_NONBLOCK) != 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, channel->fd, &event) != 0)
		return -1;
	event.data.ptr = conn; /* its control messages, and its end */
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, srdma_conn_fd(conn), &event) != 0)
		return -1;
	return ibv_req_notify_cq(srdma_conn_recv_cq(conn), 0);
}

/* When the channel is readable. */
int take_completions(struct srdma_conn *conn)
{
	struct ibv_cq *cq;
	struct ibv_wc wc;
	void *context;
	int count = 0;

	while (ibv_get_cq_event(srdma_conn_comp_channel(conn), &cq, &context) == 0)
		ibv_ack_cq_events(cq, 1);
	if (ibv_req_notify_cq(srdma_conn_recv_cq(conn), 0) != 0)
		return -1;
	while (ibv_poll_cq(srdma_conn_recv_cq(conn), 1, &wc) > 0)
		count++;
	return count;
}
