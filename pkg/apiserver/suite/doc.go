// Package suite holds the proofs that concern the API server as a whole: what upstream answered, replayed; each kind through
// all its verbs; histories of many clients checked for linearizability while etcd and servers die; stock clients.
//
// It has tests only. A server runs in the test's process or, where it has to be killed, in a process of its own, always over
// a real etcd on loopback. Tests run side by side, each with its own server.
package suite
