// The part of libcuda about main memory that is registered.
#define _GNU_SOURCE
#include "driver.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

struct pinned {
	uintptr_t at;
	size_t bytes;
	struct pinned *next;
};
static struct pinned *pins;

// Pages are had for writing unless it is said that they are for reading alone: memory that the
// process may only read is then refused, as it is by a real driver.
CUresult cuMemHostRegister_v2(void *p, size_t bytes, unsigned flags)
{
	enum { READ_ONLY = 8, PAGE = 4096 };
	ENTER(1);
	if (!p || !bytes)
		return INVALID_VALUE;
	uintptr_t at = (uintptr_t)p, first = at & ~(uintptr_t)(PAGE - 1), last = (at + bytes + PAGE - 1) & ~(uintptr_t)(PAGE - 1);
	int code = OK;
	fake_lock();
	for (struct pinned *o = pins; o && !code; o = o->next)
		if (at < o->at + o->bytes && o->at < at + bytes)
			code = ALREADY_REGISTERED;
	if (!code && madvise((void *)first, last - first, flags & READ_ONLY ? MADV_POPULATE_READ : MADV_POPULATE_WRITE))
		code = errno == ENOMEM ? NO_MEMORY : INVALID_VALUE;
	if (!code) {
		struct pinned *n = malloc(sizeof *n);
		*n = (struct pinned){at, bytes, pins};
		pins = n;
		fake_count(LIVE_PINNED, 1);
	}
	fake_unlock();
	return code;
}

CUresult cuMemHostUnregister(void *p)
{
	ENTER(1);
	int code = NOT_REGISTERED;
	fake_lock();
	for (struct pinned **o = &pins; *o; o = &(*o)->next)
		if ((*o)->at == (uintptr_t)p) {
			struct pinned *gone = *o;
			*o = gone->next;
			free(gone);
			fake_count(LIVE_PINNED, -1);
			code = OK;
			break;
		}
	fake_unlock();
	return code;
}

int fake_pinned_of(uintptr_t at, size_t bytes)
{
	int kind = 0;
	fake_lock();
	for (struct pinned *o = pins; o; o = o->next)
		if (at < o->at + o->bytes && o->at < at + bytes)
			kind = at >= o->at && bytes <= o->bytes && at - o->at <= o->bytes - bytes ? 1 : -1;
	fake_unlock();
	return kind;
}
