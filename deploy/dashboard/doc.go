// Package dashboard holds what a node's metrics are shown and judged with: isobar.json, a
// dashboard for Grafana; alerts.yaml, alert rules for Prometheus; prometheus.yaml, a
// configuration that scrapes the node of this machine. It has no code: its test holds the
// files to the table of package metrics, and runs promtool where it is to be had.
package dashboard
