// Package ctl is the client: kubectl's standard verbs from its own library, and our verbs beside them.
//
// The flow: New builds kubectl's command tree under our name, then hangs in the commands of this package, one file
// each. A command asks the apiserver and prints; it keeps no state, so nothing here runs concurrently, but questions to many nodes.
package ctl
