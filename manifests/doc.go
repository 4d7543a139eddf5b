// Package manifests is the folder of files with which a cluster is set up: systemd units, static pods, add-ons.
//
// It has no code of its own. Its tests, which share nothing and may run in any order, decode every object as strictly as
// the API does and hold every flag, path and port against the sources of the daemon that is started with it, so that
// renaming a flag fails here and not on somebody's machine.
package manifests
