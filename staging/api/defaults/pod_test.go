package defaults

import "testing"

func TestLatest(t *testing.T) {
	for image, want := range map[string]bool{
		"nginx": true, "nginx:latest": true, "nginx:1": false, "": false, "Not_Valid!": false, "nginx:": false,
		"host:5000/a/b": true, "host:5000/a/b:v1": false, "Host.io/a": true, "localhost/a__b": true, "[::1]:5000/a": true,
		"nginx@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef": false,
	} {
		if got := latest(image); got != want {
			t.Errorf("latest(%q) = %v", image, got)
		}
	}
}
