/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/sim/client.h - the calls of a process, as its kernel makes them.
 *
 * Threads: fibres.
 * Errors:  -errno, as the filesystem answers. Of a call that the cluster did not answer, or whose mount is over, nothing is
 *          known (client_is_trouble()).
 */
#pragma once

#include "tests/sim/world.h"

extern const struct mf_cred client_cred;

uint64_t client_calls(void);
/* Its mount was over, or has been, since the step began: its answers say nothing. */
bool client_is_over(const struct client *client);
bool client_is_trouble(int r);
/* What every request asks first: mf_session_begin(). */
int client_begin(struct client *client);
int client_lookup(struct client *client, uint64_t parent, const char *name, uint64_t *ret_ino);
/* These two after client_begin(). */
int client_list(struct client *client, uint64_t dir, MfListing **ret);
ssize_t client_read(struct client *client, MfHandle *handle, void *data, size_t len);
int client_fsyncdir(struct client *client, uint64_t dir);
/* A directory of which it is sure that it is there. */
int client_walk(struct client *client, const char *path, uint64_t *ret_ino);
/* The result of a call for the checker. */
int client_outcome(const struct client *client, int r);
/* Fails the run, unless it is trouble. */
void client_unexpected(const struct client *client, const char *what, int r);
/* close(2): FLUSH and RELEASE. */
void client_close(struct client *client, MfHandle *handle);
/* @ino: what the kernel has found there; 0: it did not look. */
int client_unlink(struct client *client, uint64_t parent, uint64_t ino, const char *name);
