package node

import (
	"fmt"
	"slices"
	"strings"

	"github.com/isobar-project/isobar/schemas"
)

// settleAbsent says which devices are missing that a predecessor had, and lets go of the
// regions of those of which nothing is kept.
func (n *Node) settleAbsent() error {
	gone := n.house.LetGo()
	if err := n.ledgers.drop(gone); err != nil {
		return fmt.Errorf("letting go of devices that are not configured: %w", err)
	}
	for _, id := range n.cfg.ForgetDevices {
		if !slices.Contains(gone, id) {
			n.log.Info("a device is to be forgotten, and nothing is known of it", "device", id)
		}
	}
	var warnings []schemas.HealthWarning
	for _, k := range n.house.Kept() {
		text := fmt.Sprintf("device %s is not configured; what an earlier node granted on it is kept: %d grants, of them %d models, in segments of %s",
			k.Device, k.Grants, k.Models, HumanSize(k.Bytes))
		if k.Fault != "" {
			text = fmt.Sprintf("device %s is not configured; all that an earlier node had of it is kept, but its ledger cannot be read: %s", k.Device, k.Fault)
		}
		fix := "start the node again with this device among --device, as it was; or let go of it all with --forget-device " + k.Device
		if slices.ContainsFunc(n.house.Devices(), func(d schemas.Device) bool { return d.DeviceID == k.Device }) {
			text = strings.Replace(text, "is not configured", "is lost", 1)
			fix = "mend the device and restart the node; or let go of it all with --device for the others and --forget-device " + k.Device
		}
		warnings = append(warnings, schemas.HealthWarning{Code: schemas.WarnDeviceMissing, Subject: k.Device, Text: text,
			Fix: fix})
	}
	n.board.Say(sourceAbsent, warnings...)
	return nil
}
