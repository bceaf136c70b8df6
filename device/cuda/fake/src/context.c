// The part of libcuda about the library itself, devices and contexts.
#define _GNU_SOURCE
#include "driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int fake_contexts[MAX_DEVICES];
int fake_sticky[MAX_DEVICES];
__thread int fake_current = -1;

static int initialized;
static int live[LIVE_KINDS];

void fake_count(int kind, int n) { __atomic_add_fetch(&live[kind], n, __ATOMIC_SEQ_CST); }

// How much of a kind this process has not given back.
int isobarFakeLive(int kind) { return kind >= 0 && kind < LIVE_KINDS ? __atomic_load_n(&live[kind], __ATOMIC_SEQ_CST) : 0; }

// Results after which a context answers nothing else.
static int is_sticky(int code)
{
	return code == 214 || code == 46 || code == 220 || code == ILLEGAL_ADDRESS || code == 702 || (code >= 714 && code <= LAUNCH_FAILED);
}

int fake_context_of(void *ctx) { return ctx ? (int)(uintptr_t)ctx - 0x1001 : -1; }

int fake_enter(const char *name, int needs_context)
{
	int code = fake_fault(name);
	if (!initialized)
		return NOT_INITIALIZED;
	int device = fake_current;
	if (needs_context && (device < 0 || !fake_contexts[device]))
		return INVALID_CONTEXT;
	if (device < 0)
		return code;
	fake_lock();
	if (is_sticky(code))
		fake_sticky[device] = code;
	if (fake_sticky[device])
		code = fake_sticky[device];
	if (fake_state->lost[device])
		code = LAUNCH_FAILED;
	fake_unlock();
	return code;
}
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

int fake_peers(int device, int other) { return device == other || linked; }

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
	if (!code) {
		fake_count(LIVE_CONTEXTS, 1);
		if (fake_contexts[d]++ == 0) {
			fake_sticky[d] = 0;
			fake_add(CONTEXT, getpid(), d, 0, 0);
		}
	}
	fake_unlock();
	*ctx = (void *)(uintptr_t)(0x1001 + d);
	return code;
}

CUresult cuDevicePrimaryCtxRelease_v2(int d)
{
	// It names its device: what befell the context that this thread used last is not its affair.
	int was = fake_current;
	fake_current = -1;
	int entered = fake_enter(__func__, 0);
	fake_current = was;
	if (entered)
		return entered;
	fake_lock();
	int code = fake_contexts[d] > 0 ? OK : INVALID_CONTEXT;
	if (!code) {
		fake_count(LIVE_CONTEXTS, -1);
		if (--fake_contexts[d] == 0)
			fake_drop(CONTEXT, getpid(), d, 0);
	}
	fake_unlock();
	return code;
}

CUresult cuCtxSetCurrent(void *ctx)
{
	int d = fake_context_of(ctx);
	if (d >= fake_devices || d < -1)
		return INVALID_CONTEXT;
	fake_current = d;
	return d < 0 ? OK : fake_enter(__func__, 1);
}

CUresult cuMemGetInfo_v2(size_t *free, size_t *total)
{
	ENTER(1);
	fake_lock();
	int64_t left = fake_bytes - fake_used(fake_current);
	fake_unlock();
	*free = left > 0 ? left : 0;
	*total = fake_bytes;
	return OK;
}
