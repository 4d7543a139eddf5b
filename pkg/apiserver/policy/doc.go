// Package policy judges and changes requests by ValidatingAdmissionPolicies and MutatingAdmissionPolicies.
//
// The flow: a catalog reads the policies of one kind with their bindings and compiles them, anew only when one changed
// (catalog.go); for a request the plugins (validate.go, mutate.go) take each policy that matches, each of its bindings that
// does, the parameters that the binding names (params.go), and evaluate the expressions. The language is the published one.
//
// Plugins are used by any number of requests at once; what they compiled never changes.
package policy
