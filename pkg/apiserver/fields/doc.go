// Package fields tells which fields a write changed, and who owns them: metadata.managedFields, for objects that lie in Go
// types. It is the short way of what apimachinery's managedfields does; applying, merging and whatever is out of the
// ordinary stay with that library.
//
// The flow: a Type is made once of a Go type and its published schema (plan.go). For a write, compare walks the old and the
// new object side by side along it and notes the paths that differ in a tree (compare.go). Type.Update then takes them from
// the entries of all managers and gives them to the writer (update.go); entries lie in etcd as JSON, are read into trees as
// they are, and those that lose nothing are handed on unread. A tree (tree.go) is a run of nodes that share the text's memory.
//
// Every answer comes with a bool: false means that this package does not know, and the library has to be asked. It says so
// for duplicates in a list, names with characters that JSON escapes, entries of another version, and more than ten writers.
// Where it answers, the answer is the library's, byte for byte; tests in package engine hold the two together.
//
// A Type never changes after New; everything may be used by any number of goroutines.
package fields
