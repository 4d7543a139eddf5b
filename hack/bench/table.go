package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// cost is what one operation takes.
type cost struct {
	// CPU is of the daemon that is measured; of a floor, of whoever does the bare work.
	CPU time.Duration
	// Behind is the CPU of the servers behind it: etcd; the apiserver and etcd; the container runtime.
	Behind time.Duration
	// Wall is the time until it is done.
	Wall time.Duration
}

// compare says by which of its figures a row is held to its floor.
type compare string

const (
	byCPU  compare = "cpu"
	byAll  compare = "cpu+behind"
	byWall compare = "wall"
)

// row is one line of the table: a cost beside its floor, or a value that stands alone.
type row struct {
	Section, Work  string
	Ours, Floor    cost
	By             compare
	Value          string
	Goal, Upstream string
	// Line is the line of the plot to which the row adds a point, at so many services; empty is none.
	Line string
	At   int
	// Idle is a daemon's idle memory in bytes, which counts into the sum; 0 is no such row.
	Idle int
}

func (b *bench) add(r row) {
	r.Section = b.section
	b.rows = append(b.rows, r)
}

// size adds a row of memory.
func (b *bench) size(work string, bytes int, goal string) {
	b.add(row{Work: work, Value: mb(bytes), Goal: goal})
}

func (r row) ratio() string {
	pick := map[compare]func(cost) time.Duration{
		byCPU:  func(c cost) time.Duration { return c.CPU },
		byAll:  func(c cost) time.Duration { return c.CPU + c.Behind },
		byWall: func(c cost) time.Duration { return c.Wall },
	}[r.By]
	if pick == nil || pick(r.Floor) == 0 {
		return ""
	}
	return fmt.Sprintf("%.1fx %s", float64(pick(r.Ours))/float64(pick(r.Floor)), r.By)
}

func printTable(out io.Writer, rows []row) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\tWORK\tOURS\tCPU\tBEHIND\tWALL\tFLOOR CPU\tBEHIND\tWALL\tRATIO\tGOAL\tUPSTREAM")
	last := ""
	for _, r := range rows {
		name := r.Section
		if name == last {
			name = ""
		}
		last = r.Section
		fmt.Fprintln(w, strings.Join([]string{name, r.Work, r.Value, short(r.Ours.CPU), short(r.Ours.Behind), short(r.Ours.Wall),
			short(r.Floor.CPU), short(r.Floor.Behind), short(r.Floor.Wall), r.ratio(), r.Goal, r.Upstream}, "\t"))
	}
	_ = w.Flush() // a standard output that is gone has no reader
}

// short prints three digits of a time, or nothing of none.
func short(d time.Duration) string {
	switch {
	case d == 0:
		return ""
	case d < 10*time.Microsecond:
		return fmt.Sprintf("%.1fus", float64(d)/1e3)
	case d < time.Millisecond:
		return fmt.Sprintf("%dus", d.Microseconds())
	case d < 100*time.Millisecond:
		return fmt.Sprintf("%.2fms", float64(d)/1e6)
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	}
	return fmt.Sprintf("%.2fs", d.Seconds())
}

func mb(bytes int) string { return fmt.Sprintf("%d MB", (bytes+1<<19)>>20) }

// sum adds up the idle memory of the daemons, when all were measured.
func sum(rows []row) []row {
	total, seen := 0, 0
	for _, r := range rows {
		if r.Idle != 0 {
			total += r.Idle
			seen++
		}
	}
	if seen < 5 {
		return nil
	}
	return []row{{Section: "sum", Work: "RSS idle, five daemons", Value: mb(total), Goal: "150 MB", Upstream: "638 MB"}}
}
