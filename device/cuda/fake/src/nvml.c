// The part of NVML that Isobar uses, over the same state.
#include "fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID_ARGUMENT = 2, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, TIMEOUT = 10, GPU_IS_LOST = 15 };

struct process {
	unsigned pid;
	unsigned long long bytes;
	unsigned gpu_instance, compute_instance;
};
struct memory { unsigned version; unsigned long long total, reserved, free, used; };
struct memory_v1 { unsigned long long total, free, used; };
struct event { void *device; unsigned long long kind, data; unsigned gpu_instance, compute_instance; };

static int device_of(void *d) { return (int)(uintptr_t)d - 1; }

// Takes the lock; with a code other than 0 it is not held.
static int enter(const char *name, void *d)
{
	int code = fake_fault(name);
	if (code)
		return code;
	fake_lock();
	if (d && fake_state->lost[device_of(d)]) {
		fake_unlock();
		return GPU_IS_LOST;
	}
	return OK;
}

#define ENTER(d)                                 \
	do {                                     \
		int code_ = enter(__func__, (d)); \
		if (code_)                       \
			return code_;            \
	} while (0)

int nvmlInit_v2(void)
{
	fake_open();
	return fake_fault(__func__);
}

int nvmlShutdown(void) { return OK; }

int nvmlSystemGetDriverVersion(char *text, unsigned len)
{
	snprintf(text, len, "fake");
	return OK;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **d)
{
	unsigned last = 0;
	if (strlen(uuid) != 40 || sscanf(uuid + 38, "%2x", &last) != 1 || (int)last >= fake_devices)
		return NOT_FOUND;
	*d = (void *)(uintptr_t)(last + 1);
	return OK;
}

int nvmlDeviceGetMemoryInfo_v2(void *d, struct memory *m)
{
	ENTER(d);
	int code = m->version == (sizeof *m | 2 << 24) ? OK : INVALID_ARGUMENT;
	m->total = fake_bytes, m->reserved = 0, m->used = fake_used(device_of(d));
	m->free = m->used < m->total ? m->total - m->used : 0;
	fake_unlock();
	return code;
}

int nvmlDeviceGetMemoryInfo(void *d, struct memory_v1 *m)
{
	ENTER(d);
	m->total = fake_bytes, m->used = fake_used(device_of(d));
	m->free = m->used < m->total ? m->total - m->used : 0;
	fake_unlock();
	return OK;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *d, unsigned *count, struct process *list)
{
	static int pids[MAX_HOLDS];
	ENTER(d);
	int n = fake_processes(device_of(d), pids, MAX_HOLDS), code = OK;
	if ((unsigned)n > *count)
		code = INSUFFICIENT_SIZE;
	for (int i = 0; !code && i < n; i++)
		list[i] = (struct process){pids[i], fake_charged(device_of(d), pids[i]), -1, -1};
	*count = n;
	fake_unlock();
	return code;
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(void *d, unsigned *count, struct process *list)
{
	(void)list;
	ENTER(d);
	*count = 0;
	fake_unlock();
	return OK;
}

int nvmlDeviceGetTotalEccErrors(void *d, int type, int counter, unsigned long long *n)
{
	ENTER(d);
	*n = type == 1 && counter == 0 ? fake_state->ecc[device_of(d)] : 0;
	fake_unlock();
	return OK;
}

int nvmlDeviceGetRemappedRows(void *d, unsigned *corrected, unsigned *uncorrected, unsigned *pending, unsigned *failed)
{
	ENTER(d);
	*corrected = *uncorrected = *pending = *failed = 0;
	fake_unlock();
	return OK;
}

int nvmlEventSetCreate(void ***set)
{
	*set = calloc(1, sizeof **set);
	return OK;
}

int nvmlDeviceRegisterEvents(void *d, unsigned long long types, void **set)
{
	(void)types;
	*set = d;
	return OK;
}

int nvmlEventSetWait_v2(void **set, struct event *e, unsigned timeout)
{
	(void)timeout;
	ENTER(*set);
	int xid = fake_next_xid(device_of(*set));
	fake_unlock();
	if (!xid)
		return TIMEOUT;
	*e = (struct event){.device = *set, .kind = 8, .data = xid};
	return OK;
}

int nvmlEventSetFree(void **set)
{
	free(set);
	return OK;
}
