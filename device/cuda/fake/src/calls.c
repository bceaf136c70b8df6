// The calls: how often each was made, in which order, what it costs and what is to go wrong with
// it.
#define _GNU_SOURCE
#include "fake.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static pthread_once_t read_environment = PTHREAD_ONCE_INIT;

// An entry point by its name.
struct call {
	char name[64];
	int nth, code;    // the nth from now fails with the code
	int hold, held;   // whether calls wait, and how many do
	int64_t made;
	int64_t cost; // nanoseconds that it takes before it does anything
};
static struct call calls[MAX_CALLS];

// The calls in order, while a test records them: turns counts beginnings and endings.
enum { MAX_RECORDED = 1 << 14 };
struct record {
	char name[64];
	int64_t begin, end; // end: of what it costs; 0: it is still in it
};
static struct record records[MAX_RECORDED];
static int recording, recorded;
static int64_t turns;

// With the mutex held; NULL if there are too many.
static struct call *call_of(const char *name)
{
	for (int i = 0; i < MAX_CALLS; i++) {
		if (!calls[i].name[0])
			snprintf(calls[i].name, sizeof calls[i].name, "%s", name);
		if (!strcmp(calls[i].name, name))
			return &calls[i];
	}
	return NULL;
}

// "cuMemCreate:3:2,cuMemUnmap:1:719": the third cuMemCreate fails with 2, and so on.
static void faults_of_environment(void)
{
	const char *text = getenv("ISOBAR_FAKE_CUDA_FAIL");
	while (text && *text) {
		char name[64];
		int nth, code, used = 0;
		if (sscanf(text, "%63[^:]:%d:%d%n", name, &nth, &code, &used) != 3)
			return;
		struct call *c = call_of(name);
		if (c)
			c->nth = nth, c->code = code;
		text += used;
		text += *text == ',';
	}
}

// "cuMemCreate:300us,cuMemUnmap:2ms": what a call costs.
static void costs_of_environment(void)
{
	const char *text = getenv("ISOBAR_FAKE_CUDA_COST");
	while (text && *text) {
		char name[64], unit[3];
		double n;
		int used = 0;
		if (sscanf(text, "%63[^:]:%lf%2[a-z]%n", name, &n, unit, &used) != 3)
			return;
		double scale = !strcmp(unit, "ns") ? 1 : !strcmp(unit, "us") ? 1e3 : !strcmp(unit, "ms") ? 1e6 : !strcmp(unit, "s") ? 1e9 : -1;
		struct call *c = call_of(name);
		if (scale < 0 || n < 0 || !c)
			return;
		c->cost = n * scale;
		text += used;
		text += *text == ',';
	}
}

static void environment(void)
{
	faults_of_environment();
	costs_of_environment();
}

static void lock(void)
{
	pthread_mutex_lock(&mutex);
	pthread_once(&read_environment, environment);
}

// Begins a record of a call, or NULL. With the mutex held.
static struct record *record_of(const char *name)
{
	if (!recording || recorded == MAX_RECORDED)
		return NULL;
	struct record *r = &records[recorded++];
	*r = (struct record){.begin = ++turns};
	snprintf(r->name, sizeof r->name, "%s", name);
	return r;
}

static void spend(int64_t ns)
{
	struct timespec left = {ns / 1000000000, ns % 1000000000};
	while (nanosleep(&left, &left) && errno == EINTR)
		;
}

int fake_fault(const char *name)
{
	int code = 0;
	lock();
	struct call *c = call_of(name);
	if (c) {
		struct record *r = record_of(name);
		c->made++;
		c->held++;
		pthread_cond_broadcast(&changed);
		while (c->hold)
			pthread_cond_wait(&changed, &mutex);
		c->held--;
		if (c->cost) {
			int64_t cost = c->cost;
			pthread_mutex_unlock(&mutex);
			spend(cost);
			pthread_mutex_lock(&mutex);
		}
		if (r)
			r->end = ++turns;
		if (c->nth > 0 && --c->nth == 0)
			code = c->code;
	}
	pthread_mutex_unlock(&mutex);
	return code;
}

// The n-th call of that name from now on fails with the code; 0: none does.
void isobarFakeFail(const char *name, int nth, int code)
{
	lock();
	struct call *c = call_of(name);
	if (c)
		c->nth = nth, c->code = code;
	pthread_mutex_unlock(&mutex);
}

// What calls of that name cost from now on, in nanoseconds.
void isobarFakeCost(const char *name, int64_t ns)
{
	lock();
	struct call *c = call_of(name);
	if (c)
		c->cost = ns;
	pthread_mutex_unlock(&mutex);
}

// While on, calls are recorded; it begins anew each time that it is put on.
void isobarFakeRecord(int on)
{
	lock();
	if (on && !recording)
		recorded = 0;
	recording = on;
	pthread_mutex_unlock(&mutex);
}

// Copies what was recorded, and says how much there is.
int isobarFakeRecorded(struct record *out, int max)
{
	lock();
	int n = recorded;
	for (int i = 0; i < n && i < max; i++)
		out[i] = records[i];
	pthread_mutex_unlock(&mutex);
	return n;
}

// While on, calls of that name do not return.
void isobarFakeHold(const char *name, int on)
{
	lock();
	struct call *c = call_of(name);
	if (c)
		c->hold = on;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&mutex);
}

// Waits until n calls of that name are being held; 0 if they do not come in half a minute.
int isobarFakeAwait(const char *name, int n)
{
	struct timespec end;
	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += 30;
	lock();
	struct call *c = call_of(name);
	while (c && c->held < n && pthread_cond_timedwait(&changed, &mutex, &end) == 0)
		;
	int came = c && c->held >= n;
	pthread_mutex_unlock(&mutex);
	return came;
}

// How many calls of that name this process has made, those that failed included.
int64_t isobarFakeCalls(const char *name)
{
	lock();
	struct call *c = call_of(name);
	int64_t n = c ? c->made : 0;
	pthread_mutex_unlock(&mutex);
	return n;
}
