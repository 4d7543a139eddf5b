package controllermanager

import (
	"bytes"
	"os"
	"testing"

	"github.com/spf13/pflag"
)

// TestGraphInDocs holds docs/controllers.txt to what `controller-manager graph` prints. To write it anew:
// controller-manager graph > docs/controllers.txt.
func TestGraphInDocs(t *testing.T) {
	want, err := os.ReadFile("../../docs/controllers.txt")
	if err != nil {
		t.Fatal(err)
	}
	c := &Config{}
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	c.AddFlags(f)
	var got bytes.Buffer
	if err := Graph(&got, c); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("docs/controllers.txt is not what the graph is now\n--- got\n%s--- want\n%s", got.String(), want)
	}
}
