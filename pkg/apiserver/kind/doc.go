// Package kind says what a kind is: one Def, a row, per stored resource.
//
// A row is data with optional hooks; a nil hook means the common behaviour, so most rows are names and types only. The
// engine (one file per verb) asks the row and never switches on a kind. Hooks work on the hub type, the Go type of the
// storage version; a request in another served version is converted on the way in and out by its Version.
//
// The order of a write: decode in the requested version, Version.Default, Version.ToHub, mutating admission,
// Def.Prepare, Def.Begin (allocations), Def.Check, validating admission, store, the function Begin returned.
//
// Rows are built once at start and never change afterwards. Hooks run on many goroutines at once and keep no state of
// their own; what they need of the running server they ask of Op.Env. Objects that come from Env are shared: copy
// before you change one.
package kind
