package server

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestManyDefinitions holds the work that one more definition makes to its own size: a cluster that installs its operators has
// hundreds, large ones. What is allocated is counted, since it does not depend on the machine. It runs alone, since the
// count is the process's.
func TestManyDefinitions(t *testing.T) {
	s := start(t)
	c := s.dynamic(t)
	const many = 16
	var fields strings.Builder // 25 KB, as JSON
	for n := range 500 {
		fmt.Fprintf(&fields, `"f%d":{"type":"string","description":"what it is for"},`, n)
	}
	version := `[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","properties":{` + fields.String() + `"end":{"type":"string"}}}}}]`
	for n := range many { // one half beside the last one, in its group
		group := fmt.Sprintf("g%d.many.example.com", n)
		if n%2 == 0 {
			group = "many.example.com"
		}
		name := fmt.Sprintf("things%d", n)
		_, err := c.Resource(definitionsGVR).Create(t.Context(), object(t, fmt.Sprintf(`{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition",
			"metadata":{"name":"%[1]s.%[2]s"},"spec":{"group":%[2]q,"scope":"Cluster","names":{"plural":%[1]q,"kind":"Thing%[3]d"},"versions":%[4]s}}`,
			name, group, n, version)), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		within(t, 10e9, "the definition is established", func() bool { return condition(t, c, name+"."+group, "Established") == "True" })
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	define(t, c, "many.example.com", "", fmt.Sprintf(looseVersion, "", ""))
	runtime.ReadMemStats(&after)
	used := after.TotalAlloc - before.TotalAlloc
	t.Logf("%d KB allocated", used>>10)
	if used > 8<<20 {
		t.Errorf("one small definition more allocated %d KB: as much as it takes to read the %d others", used>>10, many)
	}
}
