// The part of libcuda about work: copies wait in their stream until somebody waits for them, so
// that who uses memory too early is found out.
#define _GNU_SOURCE
#include "driver.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

struct op {
	char kind; // 'c' copy, 'h' copy from main memory, 's' set, 'x' beyond what it may reach
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
	if ((write.at && !fake_reaches(write.device, write.at, op.bytes, 3)) || (read.at && !fake_reaches(read.device, read.at, op.bytes, 1)))
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
	int kind = fake_pinned_of(host, op.bytes);
	if (kind < 0)
		return INVALID_VALUE;
	int code = give(s, op, write, read);
	return code || kind ? code : run(s, s->given);
}

CUresult cuMemcpyHtoDAsync_v2(uintptr_t to, const void *from, size_t bytes, struct stream *s)
{
	ENTER(1);
	return host_copy(s, (struct op){.kind = 'h', .to = (char *)to, .from = from, .bytes = bytes}, (uintptr_t)from, (struct touch){to, s->device}, (struct touch){0});
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
	int a = fake_context_of(to_context), b = fake_context_of(from_context);
	if (a < 0 || a >= fake_devices || b < 0 || b >= fake_devices || !fake_contexts[a] || !fake_contexts[b])
		return INVALID_CONTEXT;
	return give(s, (struct op){.kind = 'c', .to = (char *)to, .from = (char *)from, .bytes = bytes}, (struct touch){to, a}, (struct touch){from, b});
}

CUresult cuMemsetD8Async(uintptr_t to, unsigned char value, size_t bytes, struct stream *s)
{
	ENTER(1);
	return give(s, (struct op){.kind = 's', .to = (char *)to, .value = value, .bytes = bytes}, (struct touch){to, s->device}, (struct touch){0});
}

// Copies as a device does, which has the pages since they were registered: memory that is gone
// meanwhile, as that of a file that was truncated, is no fatal signal.
static void from_host(struct op *o)
{
	for (size_t at = 0; at < o->bytes;) {
		struct iovec to = {o->to + at, o->bytes - at}, from = {(char *)o->from + at, o->bytes - at};
		ssize_t n = process_vm_readv(getpid(), &to, 1, &from, 1, 0);
		if (n < 0 && (errno == EPERM || errno == ENOSYS))
			memcpy(to.iov_base, from.iov_base, to.iov_len);
		if (n <= 0)
			return;
		at += n;
	}
}

static void carry_out(struct stream *s, struct op *o)
{
	if (o->kind == 'h')
		from_host(o);
	else if (o->kind == 'c')
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
	if (fake_current >= 0)
		fake_sticky[fake_current] = s->failed;
	fake_unlock();
	return s->failed;
}

CUresult cuStreamCreate(struct stream **s, unsigned flags)
{
	(void)flags;
	ENTER(1);
	*s = calloc(1, sizeof **s);
	(*s)->last = &(*s)->first;
	(*s)->device = fake_current;
	fake_lock();
	(*s)->next = streams, streams = *s;
	fake_unlock();
	fake_count(LIVE_STREAMS, 1);
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
	fake_count(LIVE_STREAMS, -1);
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
		for (struct op *o; s->device == fake_current && !s->failed && (o = s->first); code = s->failed ? s->failed : code) {
			s->first = o->next;
			if (!s->first)
				s->last = &s->first;
			s->done++;
			carry_out(s, o);
		}
	if (code)
		fake_sticky[fake_current] = code;
	fake_unlock();
	return code;
}

CUresult cuEventCreate(struct event **e, unsigned flags)
{
	(void)flags;
	ENTER(1);
	*e = calloc(1, sizeof **e);
	fake_count(LIVE_EVENTS, 1);
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
	fake_count(LIVE_EVENTS, -1);
	return OK;
}
