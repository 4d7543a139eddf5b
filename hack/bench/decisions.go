package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
)

// inProcess are the goals of the scheduler's own benchmarks, by a part of their names.
var inProcess = []struct{ part, work, goal string }{
	{"Decide/plain/nodes=5000", "plain", "10000/s, p99 5ms"},
	{"Decide/plain", "plain", ""},
	{"Decide/anti-affinity", "required anti-affinity", "2000/s"},
	{"Decide/zone-affinity", "zone affinity", "2000/s"},
	{"Decide/spread", "spreading", "2000/s"},
	{"Preempt", "preemption, victims and the decision after them", "500/s"},
	{"Strangers/labels", "pods of which no two have the same labels, 5,000 nodes", "5000/s"},
	{"Strangers/shapes", "pods of which no two ask for the same, 5,000 nodes", "5000/s"},
	{"Memory", "the table of 5,000 nodes and 150,000 pods", ""},
}

// benchDecisions times decisions alone, in a process that does nothing else: pods of 20 Deployments in turn, on 1,000, 5,000 and
// 20,000 nodes. Rates are per second of CPU, the collector's share included, for others may use the machine too.
func benchDecisions(b *bench) error {
	run := func(which, count string) ([]byte, error) {
		cmd := exec.Command("go", "test", "./pkg/scheduler/rules", "-run", "^$", "-bench", which, "-benchtime", count)
		cmd.Stderr = os.Stderr
		return cmd.Output()
	}
	var all []byte
	for _, part := range [][2]string{{"Decide", "60000x"}, {"Preempt", "20000x"}, {"Strangers", "10000x"}, {"Memory", "1x"}} {
		text, err := run(part[0], part[1])
		if err != nil {
			return fmt.Errorf("benchmarks of the scheduler's rules: %w\n%s", err, text)
		}
		all = append(all, text...)
	}
	figure := regexp.MustCompile(`([0-9.]+) (\S+)`)
	for lines := bufio.NewScanner(bytes.NewReader(all)); lines.Scan(); {
		line := strings.Join(strings.Fields(lines.Text()), " ")
		for _, known := range inProcess {
			if !strings.HasPrefix(line, "Benchmark"+known.part) {
				continue
			}
			values := map[string]float64{}
			for _, m := range figure.FindAllStringSubmatch(line, -1) {
				values[m[2]], _ = strconv.ParseFloat(m[1], 64) // the pattern is a number's
			}
			work := known.work
			if _, nodes, ok := strings.Cut(strings.Fields(line)[0], "nodes="); ok {
				nodes, _, _ = strings.Cut(nodes, "-")
				work += ", " + nodes + " nodes"
			}
			b.add(row{Work: work, Value: told(values), Goal: known.goal})
			break
		}
	}
	if len(b.rows) == 0 {
		return fmt.Errorf("the benchmarks said nothing that is known:\n%s", all)
	}
	return nil
}

// told prints the figures of one benchmark.
func told(values map[string]float64) string {
	if size, ok := values["MB"]; ok {
		return fmt.Sprintf("%.0f MB", size)
	}
	out := fmt.Sprintf("%.0f/s", values["pods/cpu-s"])
	if p99, ok := values["p99-us"]; ok {
		out += fmt.Sprintf(", p50 %.0fus, p99 %.0fus", values["p50-us"], p99)
	}
	return out
}
