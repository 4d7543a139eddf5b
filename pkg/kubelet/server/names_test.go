package server

import (
	"bufio"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sextant-k8s/sextant/pkg/kubelet/metrics"
)

var described = regexp.MustCompile(`fqName: "([^"]+)".*constLabels: \{([^}]*)\}, variableLabels: \{([^}]*)\}`)

// TestNames: whatever upstream shows under a name has the same labels here, and what is counted here has upstream's names.
func TestNames(t *testing.T) {
	f, err := os.Open("testdata/metrics.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // only read
	upstream := map[string]string{}
	for s := bufio.NewScanner(f); s.Scan(); {
		// A line which begins with a dash says why a name has no counterpart here.
		if w := strings.Fields(s.Text()); w[0] != "-" {
			upstream[w[0]] = strings.Trim(w[1], "{}")
		}
	}
	m := metrics.New("n", "v")
	for _, in := range []prometheus.Collector{m.Kubelet, m.Probes, collector{}} {
		out := make(chan *prometheus.Desc, 1000)
		in.Describe(out)
		close(out)
		for d := range out {
			part := described.FindStringSubmatch(d.String())
			if part == nil {
				t.Fatal("cannot read", d)
			}
			name := part[1]
			if strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") {
				continue
			}
			var labels []string
			for _, l := range strings.Split(part[2]+","+part[3], ",") {
				if l, _, _ = strings.Cut(l, "="); l != "" {
					labels = append(labels, l)
				}
			}
			slices.Sort(labels)
			want, ok := upstream[name]
			if !ok {
				t.Errorf("upstream has no %s", name)
			} else if got := strings.Join(labels, ","); got != want {
				t.Errorf("%s has labels %s, want %s", name, got, want)
			}
			delete(upstream, name)
		}
	}
	for name := range upstream {
		t.Error("missing:", name)
	}
}
