//go:build linux

package cuda_test

import (
	"errors"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/conformance"
	"github.com/isobar-project/isobar/device/cuda/internal/api"
)

// attached is a consumer's view of a segment: what the Python client does, by the driver's API
// alone.
type attached struct {
	cu     *api.CUDA
	dev    api.Device
	handle api.Handle
	at     api.Pointer
	bytes  int64
	stage  []byte
	stream api.Stream
	event  api.Event
}

// attach imports a descriptor and maps it. Its process's only goroutine stays on its thread.
func attach(f *os.File, bytes int64, m device.Mode) (conformance.Attachment, error) {
	runtime.LockOSThread()
	cu, err := api.LoadCUDA(theLane().libraries.CUDA)
	if err != nil {
		return nil, err
	}
	a := &attached{cu: cu, bytes: bytes}
	if err := cu.Init(); err != nil {
		return nil, err
	}
	if a.dev, err = cu.Device(0); err != nil {
		return nil, err
	}
	ctx, err := cu.Retain(a.dev)
	if err != nil {
		return nil, err
	}
	if err := cu.SetCurrent(ctx); err != nil {
		return nil, err
	}
	if err := a.open(int(f.Fd()), m); err != nil {
		return nil, errors.Join(err, cu.GiveBack(a.dev))
	}
	return a, nil
}

func (a *attached) open(fd int, m device.Mode) (err error) {
	if a.handle, err = a.cu.Import(fd); err != nil {
		return err
	}
	if a.at, err = a.cu.Reserve(a.bytes); err != nil {
		return err
	}
	if err = a.cu.Map(a.at, a.bytes, a.handle); err != nil {
		return err
	}
	if err = a.cu.Access(a.at, a.bytes, a.dev, m == device.ReadWrite); err != nil {
		return err
	}
	if a.stage, err = unix.Mmap(-1, 0, 4<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE); err != nil {
		return err
	}
	if err = a.cu.Register(a.stage); err != nil {
		return err
	}
	if a.stream, err = a.cu.NewStream(); err != nil {
		return err
	}
	a.event, err = a.cu.NewEvent(true)
	return err
}

// through waits for the stream.
func (a *attached) through() error {
	if err := a.cu.Record(a.event, a.stream); err != nil {
		return err
	}
	return a.cu.Wait(a.event)
}

func (a *attached) ReadAt(p []byte, off int64) error {
	for len(p) > 0 {
		part := a.stage[:min(len(p), len(a.stage))]
		if err := a.cu.ToHost(part, a.at+api.Pointer(off), a.stream); err != nil {
			return err
		}
		if err := a.through(); err != nil {
			return err
		}
		n := copy(p, part)
		p, off = p[n:], off+int64(n)
	}
	return nil
}

func (a *attached) WriteAt(p []byte, off int64) error {
	for len(p) > 0 {
		n := copy(a.stage, p)
		if err := a.cu.ToDevice(a.at+api.Pointer(off), a.stage[:n], a.stream); err != nil {
			return err
		}
		if err := a.through(); err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

func (a *attached) Close() error {
	return errors.Join(a.cu.Unmap(a.at, a.bytes), a.cu.Free(a.at, a.bytes), a.cu.Release(a.handle), a.cu.Unregister(a.stage),
		unix.Munmap(a.stage), a.cu.CloseEvent(a.event), a.cu.CloseStream(a.stream), a.cu.GiveBack(a.dev))
}
