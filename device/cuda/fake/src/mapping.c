// The part of libcuda about addresses of the device, which are addresses of the process: ranges
// that are reserved, what is mapped there, and who may touch it.
#define _GNU_SOURCE
#include "driver.h"

#include <stdlib.h>
#include <sys/mman.h>

// Addresses of this process, reserved; and what is mapped within them, each memory whole.
struct range {
	uintptr_t at;
	int64_t bytes;
	struct range *next;
};
struct mapping {
	uintptr_t at;
	int64_t bytes;
	struct memory *memory;
	int access[MAX_DEVICES]; // 0 none, 1 read, 3 read and write
	struct mapping *next;
};
static struct range *ranges;
static struct mapping *mappings;

struct access { struct location place; int flags; };

CUresult cuMemAddressReserve(uintptr_t *at, size_t bytes, size_t align, uintptr_t want, unsigned long long flags)
{
	(void)align, (void)want;
	ENTER(1);
	if (!bytes || bytes % GRANULARITY || flags)
		return INVALID_VALUE;
	void *p = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return NO_MEMORY;
	struct range *r = calloc(1, sizeof *r);
	r->at = (uintptr_t)p, r->bytes = bytes;
	fake_lock();
	r->next = ranges, ranges = r;
	fake_count(LIVE_RANGES, 1);
	fake_unlock();
	*at = r->at;
	return OK;
}

// Whether these bytes are mappings, one behind the other, each whole. With the lock held.
static int whole(uintptr_t at, size_t bytes)
{
	size_t sum = 0;
	for (struct mapping *m = mappings; m; m = m->next)
		if (m->at >= at && m->at + m->bytes <= at + bytes)
			sum += m->bytes;
	return bytes && sum == bytes;
}

// A mapping that has one of these bytes, with the lock held.
static struct mapping *touching(uintptr_t at, size_t bytes)
{
	for (struct mapping *m = mappings; m; m = m->next)
		if (at < m->at + m->bytes && m->at < at + bytes)
			return m;
	return NULL;
}

CUresult cuMemAddressFree(uintptr_t at, size_t bytes)
{
	ENTER(1);
	int code = INVALID_VALUE;
	fake_lock();
	for (struct range **r = &ranges; *r; r = &(*r)->next)
		if ((*r)->at == at && (*r)->bytes == (int64_t)bytes && !touching(at, bytes)) {
			struct range *gone = *r;
			*r = gone->next;
			munmap((void *)at, bytes);
			free(gone);
			fake_count(LIVE_RANGES, -1);
			code = OK;
			break;
		}
	fake_unlock();
	return code;
}

CUresult cuMemMap(uintptr_t at, size_t bytes, size_t offset, struct memory *m, unsigned long long flags)
{
	ENTER(1);
	int code = INVALID_VALUE;
	fake_lock();
	for (struct range *r = ranges; r && code; r = r->next)
		if (at >= r->at && bytes <= (size_t)r->bytes && at - r->at <= r->bytes - bytes && at % GRANULARITY == r->at % GRANULARITY)
			code = OK;
	if (touching(at, bytes) || offset || flags || (int64_t)bytes != m->bytes)
		code = INVALID_VALUE; // the whole of it, from offset 0, where nothing is
	if (!code && mmap((void *)at, bytes, PROT_NONE, MAP_SHARED | MAP_FIXED, m->fd, 0) == MAP_FAILED)
		code = OPERATING_SYSTEM;
	if (!code) {
		struct mapping *new = calloc(1, sizeof *new);
		*new = (struct mapping){.at = at, .bytes = bytes, .memory = m, .next = mappings};
		mappings = new;
		m->refs++;
	}
	fake_unlock();
	return code;
}

// Of one mapping or of several, one behind the other, each whole.
CUresult cuMemUnmap(uintptr_t at, size_t bytes)
{
	ENTER(1);
	fake_lock();
	int code = whole(at, bytes) ? OK : INVALID_VALUE;
	for (struct mapping **m = &mappings; !code && *m;) {
		struct mapping *gone = *m;
		if (gone->at < at || gone->at >= at + bytes) {
			m = &gone->next;
			continue;
		}
		*m = gone->next;
		fake_unref(gone->memory);
		free(gone);
	}
	if (!code)
		mmap((void *)at, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
	fake_unlock();
	return code;
}

// Of one mapping or of several, one behind the other, each whole.
CUresult cuMemSetAccess(uintptr_t at, size_t bytes, const struct access *a, size_t count)
{
	ENTER(1);
	int code = count > 0 ? OK : INVALID_VALUE;
	for (size_t i = 0; !code && i < count; i++)
		if (a[i].place.type != 1 || a[i].place.id < 0 || a[i].place.id >= fake_devices || (a[i].flags != 1 && a[i].flags != 3))
			code = INVALID_VALUE;
	if (code)
		return code;
	fake_lock();
	for (struct mapping *m = mappings; m; m = m->next)
		if (m->at >= at && m->at + m->bytes <= at + bytes)
			for (size_t i = 0; i < count; i++)
				if (!fake_peers(a[i].place.id, m->memory->device))
					code = NOT_SUPPORTED;
	if (!whole(at, bytes))
		code = INVALID_VALUE;
	// The host may always read and write here: a device's access is checked where it copies.
	if (!code && mprotect((void *)at, bytes, PROT_READ | PROT_WRITE))
		code = OPERATING_SYSTEM;
	for (struct mapping *m = mappings; m && !code; m = m->next)
		if (m->at >= at && m->at + m->bytes <= at + bytes)
			for (size_t i = 0; i < count; i++)
				m->access[a[i].place.id] = a[i].flags;
	fake_unlock();
	return code;
}

int fake_reaches(int device, uintptr_t at, size_t bytes, int need)
{
	size_t left = bytes;
	for (struct mapping *m = mappings; m; m = m->next) {
		uintptr_t from = at > m->at ? at : m->at, to = at + bytes < m->at + m->bytes ? at + bytes : m->at + m->bytes;
		if (from < to && (m->access[device] & need) == need)
			left -= to - from;
	}
	return left == 0;
}
