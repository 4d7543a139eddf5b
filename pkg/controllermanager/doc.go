// Package controllermanager is the daemon that runs the controllers.
//
// The flow: Config from flags, one client and one set of informers for all, the list of controllers, an election; who
// is elected runs them until the lease is lost, then the process ends, so that nothing acts on old state. Health and
// metrics are served from the start.
package controllermanager
