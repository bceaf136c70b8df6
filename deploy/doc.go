// Package deploy holds what runs a node on other people's machines: systemd units, a container
// file, a Helm chart and configurations for nats-server. It has no code but the tests that
// hold them to what the program does.
package deploy
