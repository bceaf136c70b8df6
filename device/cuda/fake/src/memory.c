// The part of libcuda about physical memory: handles, which are memfds.
#define _GNU_SOURCE
#include "driver.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct properties {
	int type, handles;
	struct location place;
	void *windows;
	unsigned char flags[8];
};

static int well(const struct properties *p)
{
	return p->type == 1 && p->handles == 1 && p->place.type == 1 && p->place.id >= 0 && p->place.id < fake_devices;
}

CUresult cuMemGetAllocationGranularity(size_t *n, const struct properties *p, int option)
{
	(void)option;
	ENTER(0);
	*n = GRANULARITY;
	return well(p) ? OK : INVALID_VALUE;
}

static struct memory *memory_of(int fd, int device, uint64_t object, int64_t bytes, int imported)
{
	struct memory *m = calloc(1, sizeof *m);
	*m = (struct memory){.fd = fd, .device = device, .refs = 1, .imported = imported, .object = object, .bytes = bytes};
	fake_count(LIVE_MEMORY, 1);
	return m;
}

void fake_unref(struct memory *m)
{
	if (--m->refs > 0)
		return;
	fake_drop(MEMORY, getpid(), m->device, m->object);
	close(m->fd);
	free(m);
	fake_count(LIVE_MEMORY, -1);
}

// What is left of the memory's last owner: a page at either end of each granule.
static void litter(int fd, size_t bytes)
{
	char page[4096];
	memset(page, 0xA5, sizeof page);
	for (size_t at = 0; at < bytes; at += GRANULARITY)
		if (pwrite(fd, page, sizeof page, at) < 0 || pwrite(fd, page, sizeof page, at + GRANULARITY - sizeof page) < 0)
			return;
}

CUresult cuMemCreate(struct memory **handle, size_t bytes, const struct properties *p, unsigned long long flags)
{
	ENTER(1);
	if (!well(p) || !bytes || bytes % GRANULARITY || flags)
		return INVALID_VALUE;
	char name[64];
	snprintf(name, sizeof name, "isobar fake GPU %d", p->place.id);
	int fd = memfd_create(name, MFD_CLOEXEC);
	if (fd < 0)
		return OPERATING_SYSTEM;
	struct stat st;
	int code = OK;
	fake_lock();
	if ((int64_t)bytes < 0 || (int64_t)bytes > fake_bytes - fake_used(p->place.id))
		code = NO_MEMORY;
	else if (ftruncate(fd, bytes) || fstat(fd, &st) || fake_add(MEMORY, getpid(), p->place.id, st.st_ino, bytes))
		code = OPERATING_SYSTEM;
	else {
		*handle = memory_of(fd, p->place.id, st.st_ino, bytes, 0);
		litter(fd, bytes);
	}
	fake_unlock();
	if (code)
		close(fd);
	return code;
}

CUresult cuMemExportToShareableHandle(int *fd, struct memory *m, int type, unsigned long long flags)
{
	ENTER(1);
	if (type != 1 || flags || m->imported)
		return INVALID_VALUE; // what was imported cannot be exported again
	*fd = dup(m->fd);
	return *fd < 0 ? OPERATING_SYSTEM : OK;
}

CUresult cuMemImportFromShareableHandle(struct memory **handle, void *os, int type)
{
	ENTER(1);
	char link[64], target[128] = "";
	snprintf(link, sizeof link, "/proc/self/fd/%d", (int)(intptr_t)os);
	ssize_t len = readlink(link, target, sizeof target - 1);
	int device;
	struct stat st;
	if (type != 1 || len < 0 || sscanf(target, "/memfd:isobar fake GPU %d", &device) != 1 || fstat((int)(intptr_t)os, &st))
		return INVALID_VALUE;
	int fd = fcntl((int)(intptr_t)os, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return OPERATING_SYSTEM;
	fake_lock();
	int code = fake_add(MEMORY, getpid(), device, st.st_ino, st.st_size) ? OPERATING_SYSTEM : OK;
	if (!code)
		*handle = memory_of(fd, device, st.st_ino, st.st_size, 1);
	fake_unlock();
	if (code)
		close(fd);
	return code;
}

CUresult cuMemRelease(struct memory *m)
{
	ENTER(1);
	fake_lock();
	fake_unref(m);
	fake_unlock();
	return OK;
}
