package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/isobar-project/isobar/device/hostmem"
	"github.com/isobar-project/isobar/doctor"
)

// sick is a machine on which nothing is as it should be, and a fine one.
func patient(fine bool) func(string, string, []string, func(context.Context) (doctor.Streams, error)) *doctor.Machine {
	return func(run, state string, sockets []string, streams func(context.Context) (doctor.Streams, error)) *doctor.Machine {
		files := fstest.MapFS{"proc/sys/kernel/osrelease": {Data: []byte("6.8.0")}, "proc/pressure/memory": {Data: []byte("some avg10=0.00")}}
		m := &doctor.Machine{Files: files, RuntimeDir: run, StateDir: state, Sockets: sockets, Streams: streams,
			OpenFiles: doctor.Limit{Hard: 1 << 20}, Memlock: doctor.Limit{Hard: 1 << 40},
			Memory:       func() (hostmem.Figures, error) { return hostmem.Figures{MemTotal: 32 << 30}, nil },
			NUMA:         func() ([]hostmem.Node, error, error) { return nil, nil, nil },
			Device:       func() ([]string, error) { return nil, nil },
			Synchronized: func() (bool, error) { return true, nil }}
		if !fine {
			m.OpenFiles.Hard = 100
		}
		return m
	}
}

func TestDoctor(t *testing.T) {
	b := startNode(t, replies(house()))
	f := newFixture()
	f.machine = patient(true)
	if code := f.run(t, "doctor", "--url", b.URL()); code != exitDone {
		t.Errorf("a fine machine: exit code %d, %s%s", code, f.out, f.err)
	}
	golden(t, "doctor.txt", strings.ReplaceAll(f.out.String(), b.URL(), "nats://127.0.0.1:4222"))

	f = newFixture()
	f.machine = patient(false)
	if code := f.run(t, "doctor", "--json", "--url", "nats://127.0.0.1:1"); code != exitRefused || !strings.Contains(f.err.String(), "mend") {
		t.Errorf("an unfit machine: exit code %d, %s", code, f.err)
	}
	var all []doctor.Finding
	if err := json.Unmarshal([]byte(f.out.String()), &all); err != nil || doctor.Worst(all) != doctor.Fail {
		t.Errorf("%v: %s", err, f.out)
	}
	for _, x := range all {
		if x.Check == "jetstream" && (x.State != doctor.Warn || !strings.Contains(x.Text, "nobody listens at nats://127.0.0.1:1")) {
			t.Errorf("jetstream: %+v", x)
		}
	}
}
