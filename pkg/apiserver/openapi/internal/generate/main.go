// Command generate makes definitions.gz, the models of every served kind, out of the published Go types.
//
// The flow: the sources of the API packages -> kube-openapi's own generator -> Go code in a temporary folder -> pack,
// compiled together with that code -> definitions.gz. Run it by go generate in pkg/apiserver/openapi.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"k8s.io/gengo/v2"
	"k8s.io/gengo/v2/generator"
	"k8s.io/kube-openapi/cmd/openapi-gen/args"
	"k8s.io/kube-openapi/pkg/generators"
)

// sources are the packages that hold served types, and what those hold.
var sources = []string{
	"k8s.io/api/admissionregistration/v1", "k8s.io/api/apps/v1", "k8s.io/api/authentication/v1", "k8s.io/api/authorization/v1",
	"k8s.io/api/autoscaling/v1", "k8s.io/api/autoscaling/v2", "k8s.io/api/batch/v1", "k8s.io/api/certificates/v1",
	"k8s.io/api/coordination/v1", "k8s.io/api/core/v1", "k8s.io/api/discovery/v1", "k8s.io/api/events/v1",
	"k8s.io/api/flowcontrol/v1", "k8s.io/api/networking/v1", "k8s.io/api/node/v1", "k8s.io/api/policy/v1", "k8s.io/api/rbac/v1",
	"k8s.io/api/resource/v1", "k8s.io/api/scheduling/v1", "k8s.io/api/scheduling/v1alpha3", "k8s.io/api/storage/v1", "k8s.io/api/storagemigration/v1",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1", "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1",
	"k8s.io/apimachinery/pkg/apis/meta/v1", "k8s.io/apimachinery/pkg/runtime", "k8s.io/apimachinery/pkg/api/resource",
	"k8s.io/apimachinery/pkg/util/intstr", "k8s.io/apimachinery/pkg/version",
}

// pack is the folder of the second half.
const pack = "internal/generate/pack"

func main() {
	if err := run("definitions.gz"); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run(out string) error {
	tmp, err := os.MkdirTemp("", "openapi")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }() // nothing in it is wanted
	a := args.New()
	a.OutputDir, a.OutputPkg, a.OutputFile = tmp, "main", "zz.go"
	a.ReportFilename = filepath.Join(tmp, "report")
	targets := func(c *generator.Context) []generator.Target { return generators.GetOpenAPITargets(c, a, nil) }
	if err := gengo.Execute(generators.NameSystems(), generators.DefaultNameSystem(), targets, gengo.StdBuildTag, sources); err != nil {
		return fmt.Errorf("read the types: %w", err)
	}
	// What was generated stands in pack's folder for the compiler only.
	place, err := filepath.Abs(filepath.Join(pack, "zz.go"))
	if err != nil {
		return err
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{place: filepath.Join(tmp, "zz.go")}})
	if err != nil {
		return err
	}
	file := filepath.Join(tmp, "overlay.json")
	if err := os.WriteFile(file, overlay, 0o600); err != nil {
		return err
	}
	cmd := exec.Command("go", "run", "-tags", "openapipack", "-overlay", file, "./"+pack, out)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	return nil
}
