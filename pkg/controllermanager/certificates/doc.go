// Package certificates signs the certificates that were asked for and approved, approves those of kubelets by itself, and
// forgets requests that are over.
//
// The flow: a request brings its key; decide* says whether it is one that its signer may sign, or the approver may
// approve; signing reads the CA's files each time, so that they may be changed. No state is kept.
package certificates
