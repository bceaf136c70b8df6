// Package tenancy holds the tests of tenants and roles: a node with its own server, and one
// on a server that was started with the generated accounts, are asked by every role for
// every action; what one tenant has, another neither sees nor hears of.
package tenancy
