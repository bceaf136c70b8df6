// The part of libcuda that Isobar uses, with memfds for memory and host addresses for those of
// the device. Copies wait in their stream until somebody waits for them: who uses memory too
// early is found out.
#define _GNU_SOURCE
#include "fake.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

typedef int CUresult;
enum {
	OK = 0, INVALID_VALUE = 1, NO_MEMORY = 2, NOT_INITIALIZED = 3, INVALID_DEVICE = 101, INVALID_CONTEXT = 201,
	OPERATING_SYSTEM = 304, INVALID_HANDLE = 400, ILLEGAL_ADDRESS = 700, ALREADY_REGISTERED = 712, NOT_REGISTERED = 713,
	LAUNCH_FAILED = 719, NOT_SUPPORTED = 801,
};

// Results after which a context answers nothing else.
static int is_sticky(int code)
{
	return code == 214 || code == 46 || code == 220 || code == ILLEGAL_ADDRESS || code == 702 || (code >= 714 && code <= LAUNCH_FAILED);
}

static int initialized;
static int contexts[MAX_DEVICES]; // how often the primary context is retained
static int sticky[MAX_DEVICES];
static __thread int current = -1;

static int context_of(void *ctx) { return ctx ? (int)(uintptr_t)ctx - 0x1001 : -1; }

// What every call begins with: injected faults, then what the context has come to.
static int enter(const char *name, int needs_context)
{
	int code = fake_fault(name);
	if (!initialized)
		return NOT_INITIALIZED;
	int device = current;
	if (needs_context && (device < 0 || !contexts[device]))
		return INVALID_CONTEXT;
	if (device < 0)
		return code;
	fake_lock();
	if (is_sticky(code))
		sticky[device] = code;
	if (sticky[device])
		code = sticky[device];
	if (fake_state->lost[device])
		code = LAUNCH_FAILED;
	fake_unlock();
	return code;
}

#define ENTER(needs_context)                                  \
	do {                                                  \
		int code_ = enter(__func__, (needs_context)); \
		if (code_)                                    \
			return code_;                         \
	} while (0)

// Memory of this process: one of each handle.
struct memory {
	int fd, device, refs, imported;
	uint64_t object;
	int64_t bytes;
};

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

// Main memory that is registered.
struct pinned {
	uintptr_t at;
	size_t bytes;
	struct pinned *next;
};
static struct pinned *pins;
static int live_memory, live_ranges, live_streams, live_events, live_pinned;

struct op {
	char kind; // 'c' copy, 's' set
	char *to;
	const char *from;
	int value;
	size_t bytes;
	struct op *next;
};
struct stream {
	struct op *first, **last;
	uint64_t given, done;
	int failed, device;
	struct stream *next;
};
static struct stream *streams;
struct event {
	struct stream *stream;
	uint64_t at;
};

CUresult cuInit(unsigned flags)
{
	(void)flags;
	int code = fake_fault(__func__);
	fake_open();
	if (!code)
		initialized = 1;
	return code;
}

CUresult cuDriverGetVersion(int *v) { *v = 13000; return OK; }

CUresult cuDeviceGetCount(int *n)
{
	ENTER(0);
	*n = fake_devices;
	return OK;
}

CUresult cuDeviceGet(int *d, int ordinal)
{
	ENTER(0);
	*d = ordinal;
	return ordinal >= 0 && ordinal < fake_devices ? OK : INVALID_DEVICE;
}

CUresult cuDeviceGetName(char *name, int len, int d)
{
	ENTER(0);
	snprintf(name, len, "Isobar fake GPU %d, %lld MiB", d, (long long)(fake_bytes >> 20));
	return OK;
}

CUresult cuDeviceGetUuid_v2(unsigned char *uuid, int d)
{
	ENTER(0);
	memcpy(uuid, "isobar-fake-gpu", 15);
	uuid[15] = d;
	return OK;
}

CUresult cuDeviceTotalMem_v2(size_t *n, int d)
{
	(void)d;
	ENTER(0);
	*n = fake_bytes;
	return OK;
}

CUresult cuDeviceGetAttribute(int *v, int attribute, int d)
{
	(void)d;
	ENTER(0);
	*v = attribute == 102 || attribute == 103 || attribute == 113 ? 1 : 0;
	return OK;
}

static int linked = 1; // whether the devices reach each other's memory

void isobarFakeLinked(int on) { linked = on; }

static int peers(int device, int other) { return device == other || linked; }

CUresult cuDeviceCanAccessPeer(int *can, int device, int other)
{
	ENTER(0);
	if (device < 0 || device >= fake_devices || other < 0 || other >= fake_devices)
		return INVALID_DEVICE;
	*can = device != other && linked;
	return OK;
}

CUresult cuDevicePrimaryCtxRetain(void **ctx, int d)
{
	ENTER(0);
	if (d < 0 || d >= fake_devices)
		return INVALID_DEVICE;
	fake_lock();
	int code = fake_state->lost[d] ? LAUNCH_FAILED : OK;
	if (!code && contexts[d]++ == 0) {
		sticky[d] = 0;
		fake_add(CONTEXT, getpid(), d, 0, 0);
	}
	fake_unlock();
	*ctx = (void *)(uintptr_t)(0x1001 + d);
	return code;
}

CUresult cuDevicePrimaryCtxRelease_v2(int d)
{
	// It names its device: what befell the context that this thread used last is not its affair.
	int was = current;
	current = -1;
	int entered = enter(__func__, 0);
	current = was;
	if (entered)
		return entered;
	fake_lock();
	int code = contexts[d] > 0 ? OK : INVALID_CONTEXT;
	if (!code && --contexts[d] == 0)
		fake_drop(CONTEXT, getpid(), d, 0);
	fake_unlock();
	return code;
}

CUresult cuCtxSetCurrent(void *ctx)
{
	int d = context_of(ctx);
	if (d >= fake_devices || d < -1)
		return INVALID_CONTEXT;
	current = d;
	return d < 0 ? OK : enter(__func__, 1);
}

CUresult cuMemGetInfo_v2(size_t *free, size_t *total)
{
	ENTER(1);
	fake_lock();
	int64_t left = fake_bytes - fake_used(current);
	fake_unlock();
	*free = left > 0 ? left : 0;
	*total = fake_bytes;
	return OK;
}

struct location { int type, id; };
struct properties {
	int type, handles;
	struct location place;
	void *windows;
	unsigned char flags[8];
};
struct access { struct location place; int flags; };

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
	live_memory++;
	return m;
}

// With the lock held.
static void unref(struct memory *m)
{
	if (--m->refs > 0)
		return;
	fake_drop(MEMORY, getpid(), m->device, m->object);
	close(m->fd);
	free(m);
	live_memory--;
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
	unref(m);
	fake_unlock();
	return OK;
}

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
	live_ranges++;
	fake_unlock();
	*at = r->at;
	return OK;
}

// The mapping of exactly these bytes, with the lock held.
static struct mapping **find(uintptr_t at, size_t bytes)
{
	for (struct mapping **m = &mappings; *m; m = &(*m)->next)
		if ((*m)->at == at && (*m)->bytes == (int64_t)bytes)
			return m;
	return NULL;
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
			live_ranges--;
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

CUresult cuMemUnmap(uintptr_t at, size_t bytes)
{
	ENTER(1);
	fake_lock();
	struct mapping **m = find(at, bytes);
	if (m) {
		struct mapping *gone = *m;
		*m = gone->next;
		mmap((void *)at, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
		unref(gone->memory);
		free(gone);
	}
	fake_unlock();
	return m ? OK : INVALID_VALUE;
}

// Of one mapping or of several, one behind the other, each whole.
CUresult cuMemSetAccess(uintptr_t at, size_t bytes, const struct access *a, size_t count)
{
	ENTER(1);
	int code = count > 0 ? OK : INVALID_VALUE;
	size_t whole = 0;
	for (size_t i = 0; !code && i < count; i++)
		if (a[i].place.type != 1 || a[i].place.id < 0 || a[i].place.id >= fake_devices || (a[i].flags != 1 && a[i].flags != 3))
			code = INVALID_VALUE;
	if (code)
		return code;
	fake_lock();
	for (struct mapping *m = mappings; m; m = m->next)
		if (m->at >= at && m->at + m->bytes <= at + bytes) {
			whole += m->bytes;
			for (size_t i = 0; i < count; i++)
				if (!peers(a[i].place.id, m->memory->device))
					code = NOT_SUPPORTED;
		}
	if (!bytes || whole != bytes)
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
		live_pinned++;
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
			live_pinned--;
			code = OK;
			break;
		}
	fake_unlock();
	return code;
}

// What main memory is to a copy: 0 pageable, 1 registered, -1 neither the one nor the other,
// which a copy must not span.
static int pinned_of(uintptr_t at, size_t bytes)
{
	int kind = 0;
	fake_lock();
	for (struct pinned *o = pins; o; o = o->next)
		if (at < o->at + o->bytes && o->at < at + bytes)
			kind = at >= o->at && bytes <= o->bytes && at - o->at <= o->bytes - bytes ? 1 : -1;
	fake_unlock();
	return kind;
}

// Whether the device may, with the lock held.
static int reaches(int device, uintptr_t at, size_t bytes, int need)
{
	size_t left = bytes;
	for (struct mapping *m = mappings; m; m = m->next) {
		uintptr_t from = at > m->at ? at : m->at, to = at + bytes < m->at + m->bytes ? at + bytes : m->at + m->bytes;
		if (from < to && (m->access[device] & need) == need)
			left -= to - from;
	}
	return left == 0;
}

// Memory that work touches: where, and whose access counts.
struct touch { uintptr_t at; int device; };

// Puts work behind what the stream has. Work on memory that the device does not reach ends the
// context when it is done, as it does on a GPU.
static int give(struct stream *s, struct op op, struct touch write, struct touch read)
{
	struct op *o = malloc(sizeof *o);
	*o = op;
	o->next = NULL;
	fake_lock();
	if ((write.at && !reaches(write.device, write.at, op.bytes, 3)) || (read.at && !reaches(read.device, read.at, op.bytes, 1)))
		o->kind = 'x';
	*s->last = o;
	s->last = &o->next;
	s->given++;
	fake_unlock();
	return OK;
}

static int run(struct stream *s, uint64_t until);

// A copy from or to main memory. What is registered is copied in the stream's time; what is not
// is through when the call returns, and slow on a real GPU.
static int host_copy(struct stream *s, struct op op, uintptr_t host, struct touch write, struct touch read)
{
	int kind = pinned_of(host, op.bytes);
	if (kind < 0)
		return INVALID_VALUE;
	int code = give(s, op, write, read);
	return code || kind ? code : run(s, s->given);
}

CUresult cuMemcpyHtoDAsync_v2(uintptr_t to, const void *from, size_t bytes, struct stream *s)
{
	ENTER(1);
	return host_copy(s, (struct op){.kind = 'c', .to = (char *)to, .from = from, .bytes = bytes}, (uintptr_t)from, (struct touch){to, s->device}, (struct touch){0});
}

CUresult cuMemcpyDtoHAsync_v2(void *to, uintptr_t from, size_t bytes, struct stream *s)
{
	ENTER(1);
	return host_copy(s, (struct op){.kind = 'c', .to = to, .from = (char *)from, .bytes = bytes}, (uintptr_t)to, (struct touch){0}, (struct touch){from, s->device});
}

CUresult cuMemcpyDtoDAsync_v2(uintptr_t to, uintptr_t from, size_t bytes, struct stream *s)
{
	ENTER(1);
	return give(s, (struct op){.kind = 'c', .to = (char *)to, .from = (char *)from, .bytes = bytes}, (struct touch){to, s->device}, (struct touch){from, s->device});
}

// Between two contexts: each reaches its own side.
CUresult cuMemcpyPeerAsync(uintptr_t to, void *to_context, uintptr_t from, void *from_context, size_t bytes, struct stream *s)
{
	ENTER(1);
	int a = context_of(to_context), b = context_of(from_context);
	if (a < 0 || a >= fake_devices || b < 0 || b >= fake_devices || !contexts[a] || !contexts[b])
		return INVALID_CONTEXT;
	return give(s, (struct op){.kind = 'c', .to = (char *)to, .from = (char *)from, .bytes = bytes}, (struct touch){to, a}, (struct touch){from, b});
}

CUresult cuMemsetD8Async(uintptr_t to, unsigned char value, size_t bytes, struct stream *s)
{
	ENTER(1);
	return give(s, (struct op){.kind = 's', .to = (char *)to, .value = value, .bytes = bytes}, (struct touch){to, s->device}, (struct touch){0});
}

static void carry_out(struct stream *s, struct op *o)
{
	if (o->kind == 'c')
		memcpy(o->to, o->from, o->bytes);
	else if (o->kind == 's')
		memset(o->to, o->value, o->bytes);
	else
		s->failed = ILLEGAL_ADDRESS;
	free(o);
}

// Does a stream's work up to a place.
static int run(struct stream *s, uint64_t until)
{
	while (!s->failed) {
		fake_lock();
		struct op *o = s->done < until ? s->first : NULL;
		if (o) {
			s->first = o->next;
			if (!s->first)
				s->last = &s->first;
			s->done++;
		}
		fake_unlock();
		if (!o)
			return OK;
		carry_out(s, o);
	}
	fake_lock();
	if (current >= 0)
		sticky[current] = s->failed;
	fake_unlock();
	return s->failed;
}

CUresult cuStreamCreate(struct stream **s, unsigned flags)
{
	(void)flags;
	ENTER(1);
	*s = calloc(1, sizeof **s);
	(*s)->last = &(*s)->first;
	(*s)->device = current;
	fake_lock();
	(*s)->next = streams, streams = *s;
	fake_unlock();
	__atomic_add_fetch(&live_streams, 1, __ATOMIC_SEQ_CST);
	return OK;
}

CUresult cuStreamDestroy_v2(struct stream *s)
{
	ENTER(1);
	int code = run(s, s->given);
	fake_lock();
	for (struct stream **at = &streams; *at; at = &(*at)->next)
		if (*at == s) {
			*at = s->next;
			break;
		}
	fake_unlock();
	free(s);
	__atomic_add_fetch(&live_streams, -1, __ATOMIC_SEQ_CST);
	return code;
}

CUresult cuStreamSynchronize(struct stream *s)
{
	ENTER(1);
	return run(s, s->given);
}

// Waits for all work of the thread's context.
CUresult cuCtxSynchronize(void)
{
	ENTER(1);
	int code = OK;
	fake_lock();
	for (struct stream *s = streams; s; s = s->next)
		for (struct op *o; s->device == current && !s->failed && (o = s->first); code = s->failed ? s->failed : code) {
			s->first = o->next;
			if (!s->first)
				s->last = &s->first;
			s->done++;
			carry_out(s, o);
		}
	if (code)
		sticky[current] = code;
	fake_unlock();
	return code;
}

CUresult cuEventCreate(struct event **e, unsigned flags)
{
	(void)flags;
	ENTER(1);
	*e = calloc(1, sizeof **e);
	__atomic_add_fetch(&live_events, 1, __ATOMIC_SEQ_CST);
	return OK;
}

CUresult cuEventRecord(struct event *e, struct stream *s)
{
	ENTER(1);
	e->stream = s, e->at = s->given;
	return OK;
}

CUresult cuEventSynchronize(struct event *e)
{
	ENTER(1);
	return e->stream ? run(e->stream, e->at) : OK;
}

CUresult cuEventDestroy_v2(struct event *e)
{
	ENTER(1);
	free(e);
	__atomic_add_fetch(&live_events, -1, __ATOMIC_SEQ_CST);
	return OK;
}

// How much of a kind this process has not given back.
int isobarFakeLive(int kind)
{
	int n = 0;
	fake_lock();
	switch (kind) {
	case 0: n = live_memory; break;
	case 1: n = live_ranges; break;
	case 2: n = live_streams; break;
	case 3: n = live_events; break;
	case 4: n = live_pinned; break;
	case 5:
		for (int d = 0; d < MAX_DEVICES; d++)
			n += contexts[d];
	}
	fake_unlock();
	return n;
}
