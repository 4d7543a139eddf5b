//go:build e2e

package e2e

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	// accountLines bounds each part of an account, so that the last of many failures can still be found.
	accountLines = 60
	// logTail is how much of a daemon's log is looked through.
	logTail = 256 << 10
)

// account tells what one needs to understand a failure: what stands in the namespace, its events, and what the daemons
// said of it, or complained of, last.
func account(namespace string) string {
	var b strings.Builder
	for _, args := range [][]string{
		{"get", "nodes", "-o", "wide"},
		{"get", "pods", "-A", "-o", "wide"},
		{"-n", namespace, "get", "all,pdb,configmaps", "-o", "wide"},
		{"-n", namespace, "describe", "pods"},
		{"-n", namespace, "get", "events", "--sort-by=.metadata.creationTimestamp"},
	} {
		text, err := command(15*time.Second, append([]string{kubectl.path, "--request-timeout=10s"}, args...)...).CombinedOutput()
		fmt.Fprintf(&b, "\n$ kubectl %s\n%s", strings.Join(args, " "), last(strings.Split(string(text), "\n")))
		if err != nil {
			fmt.Fprintln(&b, err)
		}
	}
	logs, _ := filepath.Glob(filepath.Join(root, "_out/log/*.log"))
	for _, path := range logs {
		lines, err := logged(path, namespace)
		if err != nil {
			fmt.Fprintln(&b, err)
		} else if len(lines) > 0 {
			fmt.Fprintf(&b, "\n--- %s\n%s", filepath.Base(path), last(lines))
		}
	}
	return b.String()
}

// logged answers the lines at the end of a daemon's log that complain, or that name the namespace.
func logged(path, namespace string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > logTail {
		if _, err := f.Seek(-logTail, 2); err != nil {
			return nil, err
		}
	}
	var lines []string
	for s := bufio.NewScanner(f); s.Scan(); {
		l := s.Text()
		if strings.Contains(l, namespace) || strings.Contains(l, "level=WARN") || strings.Contains(l, "level=ERROR") || strings.Contains(l, "panic") {
			lines = append(lines, l)
		}
	}
	return lines, nil
}

// last keeps the end of a text.
func last(lines []string) string {
	return strings.Join(lines[max(0, len(lines)-accountLines):], "\n") + "\n"
}
