// Package wire speaks HTTP/2 to clients. It takes the place of net/http's own on connections that chose h2; TLS, HTTP/1.1
// and the handler stay net/http's.
//
// The flow: a connection's goroutine reads frames. A HEADERS frame makes a stream and a goroutine for its handler; DATA goes
// to the stream's body, which the handler reads; everything else is answered or noted on the spot. Who has something to
// send appends frames to the connection's out buffer and, unless somebody writes already, writes until it is empty: an
// answer leaves in one record and one system call, from the goroutine that made it, and frames of many streams that come
// together leave together.
//
// Concurrency: conn.mu guards the out buffer, windows, streams and the header encoder; it is never held while the socket is
// written. Only the reading goroutine touches the framer and its decoder. A response belongs to its handler.
//
// Limits against those who mean ill: a handler counts as running until it returns, whatever became of its stream (rapid
// resets wait, then cost the connection); header lists, their continuations and what waits to be sent are bounded; a
// client that does not take what is written loses the connection.
package wire
