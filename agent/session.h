/* SPDX-License-Identifier: Apache-2.0 */
/* A session with another host's agent: one TLS channel. */
#ifndef AGENT_SESSION_H
#define AGENT_SESSION_H

#include "agent_parts.h"
#include "dial.h"
#include "tls.h"

enum session_state {
	SESSION_DIALING,
	SESSION_HANDSHAKE,
	SESSION_GREETING, /* both certificates are verified; the peer's HELLO is not there yet */
	SESSION_OPEN,
	SESSION_LINGER,   /* refused: the peer has a moment to read why */
};

struct session {
	struct source source; /* the watch while it dials, then the socket */
	struct agent *agent;
	struct session *next, **link;
	enum session_state state;
	bool outgoing;
	bool counted; /* among the handshakes */
	struct srdma_watch watch;
	struct srdma_dial *dial;
	struct srdma_tls *tls;
	struct host_names host;
	char *target, *port, *expected; /* that it was dialed to, and the name that the certificate must have; NULL: incoming */
	char name[LOCAL_NAME];    /* the peer's, printable */
	char address[80];
	uint8_t network[16];      /* of the peer's address */
	uint8_t instance[PEER_INSTANCE];
	uint8_t *kept;            /* bytes that were read and not used yet */
	size_t kept_size;
	uint8_t *out;             /* bytes that wait for the socket */
	size_t out_size, out_room;
	uint64_t deadline;        /* until it is open, or lingers */
	uint64_t began, heard_at, asked_at, used_at;
	struct allowance questions; /* that the peer may ask */
	bool held;                  /* it may ask none now: nothing is read */
	bool pinged;
	unsigned asks, waitings;
	uint64_t queries_received, queries_sent;
	time_t since;
};

/* session.c */
/* An incoming connection; takes over the socket. */
int session_accept(struct agent *agent, int fd, const struct sockaddr *peer);
/* Begins to connect. Errors: those of srdma_dial_start. */
int session_dial(struct agent *agent, const char *host, const char *port, const char *expected, struct session **out);
/* Sends a frame, or keeps it until there is room. It never ends the session: a peer that does not read is found by session_tick. */
void session_send(struct session *session, const struct peer_frame *frame);
/* Ends it: its asks go on another session, or fail with the reason. */
void session_end(struct session *session, enum refusal reason, const char *text);
void session_tick(struct session *session, uint64_t now);

/* session.c, for session_receive.c */
/* As session_end, and leaves the peer a moment to read the alert that says why, which is the text of the last error. */
void session_end_with_alert(struct session *session, enum refusal reason);
enum refusal session_reason_of(int error);
void session_count_handshake(struct session *session, bool is_one);
/* Waits for what the session needs next. */
void session_watch(struct session *session);

/* session_receive.c. Both return false when the session is gone. */
bool session_receive(struct session *session);
/* Takes frames that were kept when the peer had asked too much. */
bool session_resume(struct session *session);

/* peers.c */
int peers_open(struct agent *agent, struct srdma_listener *listener);
void peers_close(struct agent *agent);
/* The session to the host of this end: 0, and it may not be open yet. Else a negative errno, with *reason and the text of the last error. */
int peers_reach(struct agent *agent, const struct peer_end *own, const struct peer_end *end, struct session **out, enum refusal *reason);
/* An open one, or NULL. */
struct session *peers_find(const struct agent *agent, const struct peer_end *end);
/* Whether the agent at this end is this one: the address is this host's, and no line of the map says otherwise. */
bool peers_lead_here(struct agent *agent, const struct peer_end *end);
/* Remembers for a moment that a host cannot be reached. */
void peers_note_failure(struct agent *agent, const struct session *session, enum refusal reason, const char *text);
/* An open session has ended: the peer's agent may be starting again. */
void peers_note_lost(struct agent *agent, const struct session *session);
/* Whether the agent at the peer's end was there a moment ago. */
bool peers_were_here(const struct agent *agent, const struct peer_end *own, const struct peer_end *end);
/* The peer said for which GIDs it answers. False: it must not stay, and *reason says why. */
bool peers_greet(struct session *session, const struct peer_hello *hello, const char **reason);
void peers_forget_routes(struct session *session);
void peers_note_room(struct agent *agent);
void peers_tick(struct agent *agent, uint64_t now);

#endif
