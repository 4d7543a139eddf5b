// Command bench measures what the daemons cost, beside floors measured in the same run.
//
// A run starts its own etcd and apiserver on loopback, drives them, reads their CPU time and memory from /proc, prints a
// table and ends what it started. The driver's own CPU is not counted; times are of one driver with one connection.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"
)

// row is one line of the table.
type row struct {
	what, ours, floor, goal string
}

func main() {
	bin := flag.String("bin", "bin", "where the daemons are")
	tools := flag.String("tools", "_out/tools/bin", "where etcd is")
	pods := flag.Int("pods", 5000, "how many pods are stored")
	flag.Parse()
	if err := run(*bin, *tools, *pods); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(bin, tools string, pods int) error {
	dir, err := os.MkdirTemp("", "sextant-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a leftover in the temporary folder does no harm
	c, err := startCluster(filepath.Clean(bin), filepath.Clean(tools), dir)
	if err != nil {
		return err
	}
	defer c.stop()
	begun := time.Now()
	rows, err := apiserver(c, pods)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WHAT\tOURS\tFLOOR\tGOAL")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.what, r.ours, r.floor, r.goal)
	}
	fmt.Fprintf(w, "\n%d pods, %s in all\t\t\t\n", pods, time.Since(begun).Round(time.Second))
	return w.Flush()
}
