// A GPU driver that is not there: what the parts of the library share.
#ifndef ISOBAR_FAKE_H
#define ISOBAR_FAKE_H

#include <stdint.h>
#include <sys/types.h>

enum { MAX_DEVICES = 8, MAX_HOLDS = 8192, MAX_CALLS = 128, GRANULARITY = 2 << 20 };

// What a process has of a device, for all processes that name the same state file.
enum { FREE_HOLD = 0, CONTEXT = 1, MEMORY = 2, FOREIGN = 3 };

struct hold {
	int32_t kind, pid, device, unused;
	uint64_t object; // inode of the memory; 0: none
	int64_t bytes;
};

struct shared {
	struct hold holds[MAX_HOLDS]; // the order of a memory's holds is the order of who is charged
	int32_t lost[MAX_DEVICES];
	int64_t ecc[MAX_DEVICES];
};

extern struct shared *fake_state;
extern int fake_devices;
extern int64_t fake_bytes;

void fake_open(void);
void fake_lock(void);
void fake_unlock(void);

// Of a device, with the lock held; the dead are forgotten first.
int64_t fake_used(int device);
int64_t fake_charged(int device, int pid);
int fake_add(int kind, int pid, int device, uint64_t object, int64_t bytes);
void fake_drop(int kind, int pid, int device, uint64_t object);
int fake_processes(int device, int *pids, int max);

// Every call begins with it: the call is counted, held as long as a test wants, and what is
// injected into it returned, a code or 0.
int fake_fault(const char *name);

int fake_next_xid(int device);

#endif
