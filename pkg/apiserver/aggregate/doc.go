// Package aggregate serves the groups that other servers add to the API by APIServices.
//
// The flow: Room.Run follows the stored APIServices. Each with a service becomes a backend (backend.go), which is asked again
// and again whether it is there and what it serves (check.go), as its Available condition then says; discovery and OpenAPI
// are told. A request for its group and version is passed on to it (proxy.go) with the user in headers and our front-proxy
// certificate. For every group and version that this server itself has, Run keeps a local APIService (local.go).
//
// Concurrency: one goroutine (Run) makes and drops backends, one per backend checks it; requests read the backends under a
// lock and use each from many goroutines.
package aggregate
