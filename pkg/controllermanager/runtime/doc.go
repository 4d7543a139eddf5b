// Package runtime runs controllers: literals that say what they watch, what they write and how to reconcile one key.
//
// The flow: an informer's event is mapped to keys, keys wait in the controller's queue, a worker takes one and calls
// Reconcile, which reads caches and writes through the client. An error puts the key back with a growing delay; a wish
// to come back later is kept as a timer in the queue. A key is never worked on by two workers at once.
//
// The runtime owns every goroutine, queue, retry, metric and panic. A controller owns none of these: what it remembers
// between calls it guards itself, and objects it reads from caches are shared, never to be changed.
package runtime
