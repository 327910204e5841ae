// Package engine moves the bytes that a plan asks for: between one client and the server connections it uses now
// (Relay, Link), over several shards (Concatenate, Everywhere, CopySplit), and out of read models (Feed). It decides
// nothing about SQL; the proxy does, with the router's plan.
package engine
