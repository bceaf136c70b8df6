package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/schemas"
)

// Spec is what the node of a round is told.
type Spec struct {
	Group  string   `json:"group"` // the folder of the control group
	Dir    string   `json:"dir"`   // for sockets
	Limit  int64    `json:"limit"`
	Models []string `json:"models"` // files
	Grow   int64    `json:"grow"`   // by how much the foreign process grows, in bytes
	Rate   int64    `json:"rate"`   // bytes a second
	Relief bool     `json:"relief"` // the optimizer works
}

// seen is what the node's side of a round saw.
type seen struct {
	Grown   *grown  `json:"grown"` // nil: the foreign process did not live to tell
	Before  int     `json:"before"`
	After   int     `json:"after"` // models
	Used    float64 `json:"used"`  // percent of the limit, before
	Highest string  `json:"highest"`
}

// Inside is the node of a round: it joins the group, fills its warm tier, starts the foreign
// process, and reports.
func Inside(ctx context.Context, s Spec, program []string, out, log io.Writer) error {
	if err := os.WriteFile(filepath.Join(s.Group, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
		return fmt.Errorf("joining the group: %w", err)
	}
	cfg, err := node.Defaults(node.Machine())
	if err != nil {
		return err
	}
	cfg.Node, cfg.Listen, cfg.Version = "lab", "127.0.0.1:0", "0.0.0-lab"
	cfg.StateDir, cfg.RuntimeDir, cfg.ModelRoots = filepath.Join(s.Dir, "state"), filepath.Join(s.Dir, "run"), []string{filepath.Dir(s.Models[0])}
	cfg.Devices = []node.DeviceSpec{{Kind: node.DeviceRAM, ID: "ram-0", Bytes: s.Limit}}
	cfg.PoolBytes, cfg.Warm = 0, nil
	cfg.VaultOff, cfg.Ephemeral, cfg.ReliefOff = true, true, !s.Relief
	cfg.HTTP = ""
	cfg.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	n, err := node.Open(ctx, cfg, node.Hooks{})
	if err != nil {
		return err
	}
	c, err := client.Connect(client.Options{URL: n.Info().URL})
	if err != nil {
		return err
	}
	defer c.Close()
	r := seen{}
	for i, path := range s.Models {
		in := &schemas.LoadModelRequest{Name: fmt.Sprint("model-", i), Path: path, DeviceID: "ram-0"}
		if err := c.Call(ctx, schemas.ActionLoadModel, in, nil, client.WithWait(time.Minute)); err != nil {
			return fmt.Errorf("loading model %d: %w", i, err)
		}
	}
	var p schemas.GetPressureReply
	if r.Before, err = models(ctx, c); err == nil {
		err = c.Call(ctx, schemas.ActionGetPressure, &schemas.GetPressureRequest{DeviceID: "ram-0"}, &p)
	}
	if err != nil {
		return err
	}
	r.Used = p.Pressure.UtilizationPercentage
	if r.Grown, err = foreign(ctx, s, program); err != nil {
		return err
	}
	if r.After, err = models(ctx, c); err == nil {
		err = c.Call(ctx, schemas.ActionGetPressure, &schemas.GetPressureRequest{DeviceID: "ram-0"}, &p)
	}
	if err != nil {
		return err
	}
	// The level falls a step after seconds at the earliest: this is still that of the growth.
	r.Highest = fmt.Sprintf("%s (%s)", p.Pressure.PressureLevel, p.Pressure.Cause)
	if err := json.NewEncoder(out).Encode(r); err != nil {
		return err
	}
	_, err = n.Stop(ctx)
	return err
}

func models(ctx context.Context, c *client.Client) (int, error) {
	var r schemas.GetModelInfoReply
	err := c.Call(ctx, schemas.ActionGetModelInfo, &schemas.GetModelInfoRequest{}, &r)
	resident := 0
	for _, m := range r.Models {
		if len(m.Residency) > 0 {
			resident++
		}
	}
	return resident, err
}

// foreign runs the foreign process to the end of its growth; nil if it was killed.
func foreign(ctx context.Context, s Spec, program []string) (*grown, error) {
	args := append(append([]string{}, program[1:]...), "lab-grow", strconv.FormatInt(s.Grow, 10), strconv.FormatInt(s.Rate, 10))
	cmd := exec.CommandContext(ctx, program[0], args...)
	cmd.Stderr = os.Stderr
	hold, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	said, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	g := &grown{}
	told := json.NewDecoder(said).Decode(g)
	hold.Close()
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case told == nil && err == nil:
		return g, nil
	case errors.As(err, &exit):
		return nil, nil
	}
	return nil, errors.Join(told, err)
}
