/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* store/sha256.c - OpenSSL, with the algorithm fetched once: a fetch for each call costs more than a small digest. */
#include "store/sha256.h"

#include <errno.h>
#include <openssl/evp.h>
#include <pthread.h>

static EVP_MD *sha256; /* written once; lives as long as the process */
static pthread_once_t fetch_once = PTHREAD_ONCE_INIT;

static void fetch(void)
{
	sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
}

int mf_sha256(const void *data, size_t len, uint8_t ret_digest[MF_SHA256_LEN])
{
	pthread_once(&fetch_once, fetch);
	if (!sha256)
		return -ENOTSUP;
	if (!EVP_Digest(len > 0 ? data : "", len, ret_digest, NULL, sha256, NULL))
		return -ENOMEM;
	return 0;
}
