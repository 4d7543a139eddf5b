package rules

import (
	"flag"
	"os"
	"testing"
)

// TestMain lets properties be checked on ten thousand random clusters, several decisions each, unless the command line says otherwise.
func TestMain(m *testing.M) {
	if f := flag.Lookup("rapid.checks"); f != nil && f.Value.String() == f.DefValue {
		_ = flag.Set("rapid.checks", "10000")
	}
	flag.Parse()
	os.Exit(m.Run())
}
