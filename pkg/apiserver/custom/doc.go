// Package custom serves what CustomResourceDefinitions define.
//
// The flow: Room.Run follows the stored definitions; each whose names are accepted becomes rows (definition.go), one per
// served version over one set of stored objects; the cache reads the objects, the engine serves the rows, discovery and
// OpenAPI are told, then the definition's status says Established. A changed definition replaces its rows, a deleted one
// has its objects deleted first (finalize.go) and is then withdrawn. What an object is worth is decided by its version's
// schema (version.go reads and defaults, check.go validates, convert.go turns versions into each other).
//
// Concurrency: one goroutine (Run) makes and replaces definitions, and one per definition that is being deleted deletes its
// objects. Definitions and versions never change once made; their hooks run on many goroutines.
package custom
