// Command bench measures what the daemons cost, each figure beside a floor measured in the same run.
//
//	bench [-only apiserver,scheduler] [-profile dir]
//
// Flow: for every section of the list below, this program starts itself again inside namespaces of their own (isolate.go).
// There it starts real daemons (plane.go, node.go), drives them, reads their CPU time and memory from the kernel
// (process.go), does the same work bare (floor.go, cri.go), and hands its rows back. When the section ends, the kernel ends
// every process, mount, rule and link of it. At the end one table is printed.
//
// A section is one function in one file. Within it things happen in order; only parallel and the readers of watches use
// goroutines, and these end before the function does.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// section is one component's measurements.
type section struct {
	name string
	run  func(*bench) error
	// apart: it runs only when it is asked for by name.
	apart bool
}

var sections = []section{
	{name: "apiserver", run: benchAPIServer},
	{name: "scheduler", run: benchScheduler},
	{name: "decisions", run: benchDecisions},
	{name: "large", run: benchLarge, apart: true},
	{name: "crowd", run: benchCrowd, apart: true},
	{name: "informers", run: benchInformers, apart: true},
	{name: "controllers", run: benchControllers},
	{name: "controllers-large", run: benchControllersLarge, apart: true},
	{name: "kubelet", run: benchKubelet},
	{name: "proxy", run: benchProxy},
	{name: "services", run: benchServices, apart: true},
}

// bench is what a section is given, and the rows it adds.
type bench struct {
	bin, tools, images string
	// profiles is the folder for pprof files; empty takes none.
	profiles string
	// plot is the file into which the proxy's figures are drawn; empty is none.
	plot string
	// dir is the section's own folder; it is removed afterwards.
	dir string
	// cgroup is below which the section's pods live; it is removed afterwards.
	cgroup string
	// pods, nodes, replicas and services say how much is stored.
	pods, nodes, replicas, services int

	section string
	rows    []row
}

func main() {
	b := &bench{}
	only := flag.String("only", "", "sections to run, comma separated; empty is all but those that take many minutes")
	flag.StringVar(&b.bin, "bin", "bin", "where the daemons are")
	flag.StringVar(&b.tools, "tools", "_out/tools/bin", "where etcd and containerd are")
	flag.StringVar(&b.images, "images", "_out/images", "where the images are")
	flag.StringVar(&b.profiles, "profile", "", "folder for CPU and heap profiles of every daemon")
	flag.IntVar(&b.pods, "pods", 5000, "pods that are stored, and scheduled")
	flag.IntVar(&b.nodes, "nodes", 1000, "nodes that are scheduled to")
	flag.IntVar(&b.replicas, "replicas", 2000, "replicas the Deployment is scaled to")
	flag.IntVar(&b.services, "services", 5000, "services of three endpoints each")
	flag.StringVar(&b.plot, "plot", "", "draw the proxy's figures into this file (SVG)")
	flag.StringVar(&b.dir, "inside", "", "set by this program when it starts itself for one section")
	flag.Parse()
	if err := run(b, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(b *bench, only string) error {
	for _, p := range []*string{&b.bin, &b.tools, &b.images, &b.profiles, &b.plot} {
		if *p == "" {
			continue
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}
		*p = abs
	}
	if only == floorSection {
		return serveFloor()
	}
	chosen := slices.DeleteFunc(slices.Clone(sections), func(s section) bool { return s.apart })
	if only != "" {
		chosen = nil
		for _, name := range strings.Split(only, ",") {
			i := slices.IndexFunc(sections, func(s section) bool { return s.name == name })
			if i < 0 {
				return fmt.Errorf("no section %q; there are %s", name, names())
			}
			chosen = append(chosen, sections[i])
		}
	}
	if b.dir != "" {
		return inside(b, chosen[0])
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("root is needed to make namespaces and run containers; run it with sudo")
	}
	if b.profiles != "" {
		if err := os.MkdirAll(b.profiles, 0o755); err != nil {
			return err
		}
	}
	begun, busy := time.Now(), load()
	var rows []row
	var failed []string
	for _, s := range chosen {
		fmt.Fprintf(os.Stderr, "%4.0fs  %s\n", time.Since(begun).Seconds(), s.name)
		r, err := isolated(b, s)
		if errors.Is(err, errInterrupted) {
			return err
		}
		rows = append(rows, r...)
		if err != nil {
			failed = append(failed, fmt.Sprintf("%s: %v", s.name, err))
		}
	}
	printTable(os.Stdout, append(rows, sum(rows)...))
	if b.plot != "" {
		if err := os.WriteFile(b.plot, draw(rows), 0o644); err != nil {
			return err
		}
	}
	fmt.Printf("\n%s in all, on %d cores; load average %s before, %s after\n", time.Since(begun).Round(time.Second), runtime.NumCPU(), busy, load())
	if failed != nil {
		return fmt.Errorf("%s", strings.Join(failed, "\n"))
	}
	return nil
}

// load is the machine's load average of the last minute: what else it had to do.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Fields(string(text))[0]
}

func names() string {
	var all []string
	for _, s := range sections {
		all = append(all, s.name)
	}
	return strings.Join(all, ", ")
}
