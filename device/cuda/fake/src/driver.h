// What the parts of libcuda share.
#ifndef ISOBAR_FAKE_DRIVER_H
#define ISOBAR_FAKE_DRIVER_H

#include "fake.h"

#include <stddef.h>

typedef int CUresult;
enum {
	OK = 0, INVALID_VALUE = 1, NO_MEMORY = 2, NOT_INITIALIZED = 3, INVALID_DEVICE = 101, INVALID_CONTEXT = 201,
	OPERATING_SYSTEM = 304, INVALID_HANDLE = 400, ILLEGAL_ADDRESS = 700, ALREADY_REGISTERED = 712, NOT_REGISTERED = 713,
	LAUNCH_FAILED = 719, NOT_SUPPORTED = 801,
};

extern int fake_contexts[MAX_DEVICES]; // how often the primary context is retained
extern int fake_sticky[MAX_DEVICES];   // the error after which it answers nothing else
extern __thread int fake_current;      // the thread's context; -1: none

// What every call begins with: what was injected, then what the context has come to.
int fake_enter(const char *name, int needs_context);

#define ENTER(needs_context)                                       \
	do {                                                       \
		int code_ = fake_enter(__func__, (needs_context)); \
		if (code_)                                         \
			return code_;                              \
	} while (0)

int fake_context_of(void *ctx);
int fake_peers(int device, int other); // whether a device reaches another's memory

// Counts what this process has of a kind.
enum { LIVE_MEMORY, LIVE_RANGES, LIVE_STREAMS, LIVE_EVENTS, LIVE_PINNED, LIVE_CONTEXTS, LIVE_KINDS };
void fake_count(int kind, int n);

struct location { int type, id; };

// Memory of this process: one of each handle.
struct memory {
	int fd, device, refs, imported;
	uint64_t object;
	int64_t bytes;
};
void fake_unref(struct memory *m); // with the lock held

// Whether a device may do that with all of these bytes: 1 read, 3 read and write. With the lock
// held.
int fake_reaches(int device, uintptr_t at, size_t bytes, int need);

// What main memory is to a copy: 0 pageable, 1 registered, -1 neither the one nor the other,
// which a copy must not span.
int fake_pinned_of(uintptr_t at, size_t bytes);

#endif
