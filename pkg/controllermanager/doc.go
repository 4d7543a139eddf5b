// Package controllermanager is the daemon that runs the controllers.
//
// The flow: Config from flags, one client and one set of informers for all, the list of controllers, an election; who
// is elected runs them until the lease is lost, then ends them with all they cached, so that nothing acts on old state,
// and stands for election again. Health and metrics are served from the start.
package controllermanager
