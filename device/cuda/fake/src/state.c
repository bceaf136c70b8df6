// State of the fake driver: who holds what, and what is wrong with the devices.
#define _GNU_SOURCE
#include "fake.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

struct shared *fake_state;
int fake_devices = 1;
int64_t fake_bytes = 256 << 20;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int state_file = -1;
static char state_path[512];

static int xids[MAX_DEVICES][16];

// Opens the state once. Called with the mutex held.
static void open_state(void)
{
	if (fake_state)
		return;
	const char *v;
	if ((v = getenv("ISOBAR_FAKE_CUDA_DEVICES")) && atoi(v) >= 0 && atoi(v) <= MAX_DEVICES)
		fake_devices = atoi(v);
	if ((v = getenv("ISOBAR_FAKE_CUDA_BYTES")) && atoll(v) > 0)
		fake_bytes = atoll(v);
	if (!state_path[0] && (v = getenv("ISOBAR_FAKE_CUDA_STATE")))
		snprintf(state_path, sizeof state_path, "%s", v);
	void *at = MAP_FAILED;
	if (state_path[0]) {
		state_file = open(state_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		if (state_file >= 0 && ftruncate(state_file, sizeof(struct shared)) == 0)
			at = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED, state_file, 0);
		if (at == MAP_FAILED)
			fprintf(stderr, "isobar fake GPU: state file %s: %s\n", state_path, strerror(errno));
	}
	if (at == MAP_FAILED)
		at = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	fake_state = at;
}

void fake_open(void)
{
	pthread_mutex_lock(&mutex);
	open_state();
	pthread_mutex_unlock(&mutex);
}

void fake_lock(void)
{
	pthread_mutex_lock(&mutex);
	open_state();
	if (state_file >= 0)
		while (flock(state_file, LOCK_EX) != 0 && errno == EINTR)
			;
}

void fake_unlock(void)
{
	if (state_file >= 0)
		flock(state_file, LOCK_UN);
	pthread_mutex_unlock(&mutex);
}

static void bury(void)
{
	for (int i = 0; i < MAX_HOLDS; i++) {
		struct hold *h = &fake_state->holds[i];
		if ((h->kind == CONTEXT || h->kind == MEMORY) && h->pid != getpid() && kill(h->pid, 0) != 0 && errno == ESRCH)
			h->kind = FREE_HOLD;
	}
}

// The first hold of a memory is charged.
static int charged(int i)
{
	struct hold *h = &fake_state->holds[i];
	if (h->kind == FREE_HOLD || h->kind == CONTEXT)
		return 0;
	for (int j = 0; h->object && j < i; j++)
		if (fake_state->holds[j].kind == MEMORY && fake_state->holds[j].object == h->object)
			return 0;
	return 1;
}

int64_t fake_used(int device)
{
	int64_t n = 0;
	bury();
	for (int i = 0; i < MAX_HOLDS; i++)
		if (fake_state->holds[i].device == device && charged(i))
			n += fake_state->holds[i].bytes;
	return n;
}

int64_t fake_charged(int device, int pid)
{
	int64_t n = 0;
	for (int i = 0; i < MAX_HOLDS; i++)
		if (fake_state->holds[i].pid == pid && fake_state->holds[i].device == device && charged(i))
			n += fake_state->holds[i].bytes;
	return n;
}

// Places are taken behind those of the same memory, so that who had it first is charged.
int fake_add(int kind, int pid, int device, uint64_t object, int64_t bytes)
{
	int from = 0;
	for (int i = 0; object && i < MAX_HOLDS; i++)
		if (fake_state->holds[i].kind == MEMORY && fake_state->holds[i].object == object)
			from = i + 1;
	for (int i = from; i < MAX_HOLDS; i++)
		if (fake_state->holds[i].kind == FREE_HOLD) {
			fake_state->holds[i] = (struct hold){kind, pid, device, 0, object, bytes};
			return 0;
		}
	return -1;
}

void fake_drop(int kind, int pid, int device, uint64_t object)
{
	for (int i = 0; i < MAX_HOLDS; i++) {
		struct hold *h = &fake_state->holds[i];
		if (h->kind == kind && h->pid == pid && h->device == device && h->object == object) {
			h->kind = FREE_HOLD;
			return;
		}
	}
}

int fake_processes(int device, int *pids, int max)
{
	int n = 0;
	bury();
	for (int i = 0; i < MAX_HOLDS; i++) {
		struct hold *h = &fake_state->holds[i];
		if (h->kind == FREE_HOLD || h->device != device)
			continue;
		int seen = 0;
		for (int j = 0; j < n && j < max; j++)
			seen |= pids[j] == h->pid;
		if (seen)
			continue;
		if (n < max)
			pids[n] = h->pid;
		n++;
	}
	return n;
}

int fake_next_xid(int device)
{
	int xid = xids[device][0];
	memmove(&xids[device][0], &xids[device][1], sizeof xids[device] - sizeof xids[device][0]);
	xids[device][15] = 0;
	return xid;
}

// The controls, which no real driver has. A process that is not to use the environment calls
// isobarFakeConfigure before anything else.

void isobarFakeConfigure(int devices, int64_t bytes, const char *path)
{
	fake_devices = devices;
	fake_bytes = bytes;
	snprintf(state_path, sizeof state_path, "%s", path);
}

// The device falls off the bus, for every process.
void isobarFakeLose(int device)
{
	fake_lock();
	fake_state->lost[device] = 1;
	fake_unlock();
}

// A process uses so many bytes by itself; 0: it has ended.
void isobarFakeProcess(int device, int pid, int64_t bytes)
{
	fake_lock();
	fake_drop(FOREIGN, pid, device, 0);
	if (bytes > 0)
		fake_add(FOREIGN, pid, device, 0, bytes);
	fake_unlock();
}

// Memory errors that were not corrected.
void isobarFakeErrors(int device, int64_t count)
{
	fake_lock();
	fake_state->ecc[device] = count;
	fake_unlock();
}

// A critical error is reported.
void isobarFakeXid(int device, int xid)
{
	fake_lock();
	for (int i = 0; i < 16; i++)
		if (!xids[device][i]) {
			xids[device][i] = xid;
			break;
		}
	fake_unlock();
}
