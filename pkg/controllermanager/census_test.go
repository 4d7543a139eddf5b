package controllermanager

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// rule is something that a controller promises, and the scripts that show it: names under <folder>/testdata.
type rule struct{ says, scripts string }

// book is the rules of one folder of controllers.
type book struct {
	controllers string // by their names of old
	rules       []rule
	// elsewhere says which test shows the rules of a folder without scripts, and why there are none.
	elsewhere string
}

// rules is what every controller promises, by folder. Who adds a controller or a script adds a line here.
var rules = map[string]book{
	"deployment": {"deployment", []rule{
		{"rolling update within its bounds", "rolling"}, {"recreate", "recreate"}, {"pause, and scaling in proportion", "pause_scale share_rest"}, {"undo", "rollback"},
		{"progress deadline", "deadline"}, {"history limit", "history"}, {"nothing is taken on a status of the past", "stale"},
	}, ""},
	"replicaset": {"replicaset replicationcontroller", []rule{
		{"as many pods as asked for", "create"}, {"who goes first", "ranking"}, {"minReadySeconds", "min_ready"}, {"failures are told and forgotten", "failed healed"}, {"nothing is made twice", "unsettled"},
	}, ""},
	"statefulset": {"statefulset", []rule{
		{"ordered", "ordered sick_below"}, {"parallel", "parallel"}, {"rolling update", "update broken"}, {"partition", "partition"}, {"maxUnavailable", "max_unavailable"}, {"on delete, minReadySeconds", "on_delete"},
		{"claim retention", "claims_both claims_deleted claims_scaled"}, {"start ordinal", "start"},
	}, ""},
	"daemonset": {"daemonset", []rule{
		{"a pod on every node that it is for", "nodes"}, {"failed pods are replaced", "failed"}, {"maxUnavailable", "rolling"}, {"surge", "surge"}, {"on delete", "on_delete"}, {"undo", "rollback"},
	}, ""},
	"job": {"job", []rule{
		{"finalizer-exact counting", "simple"}, {"no number of completions", "any"}, {"indexed", "indexed"}, {"backoff", "backoff restarts"}, {"backoff when failed pods are deleted", "deleted"}, {"backoff per index", "per_index max_failed"},
		{"pod failure policy", "policy_exit policy_ignore policy_index policy_count"}, {"success policy", "success_policy"}, {"suspend", "suspend"}, {"active deadline", "deadline"}, {"pod replacement policy", "replacement"}, {"parallelism changes", "scale"},
	}, ""},
	"cronjob": {"cronjob", []rule{
		{"each time once, history", "times"}, {"time zones", "zone unknown"}, {"forbid", "forbid"}, {"replace", "replace"}, {"starting deadline", "deadline"}, {"bad schedule", "unread"}, {"dying before the status", "died"},
	}, ""},
	"ttlafterfinished": {"ttl-after-finished", []rule{{"finished jobs go after their time", "times"}}, ""},
	"autoscaler": {"horizontalpodautoscaling", []rule{
		{"resource metrics", "resource"}, {"container metrics", "container"}, {"pods metrics", "pods"}, {"object and external metrics", "object_external"}, {"tolerance", "tolerance"},
		{"behaviours", "behavior usual"}, {"bounds", "bounds"}, {"scale to zero, a forbidden direction", "disabled"}, {"metrics that say nothing", "failed"},
	}, ""},
	"disruption": {"disruption", []rule{
		{"minAvailable", "min_number min_percent"}, {"maxUnavailable", "max_number"}, {"evictions on their way", "disrupted"}, {"no pods", "none"}, {"an owner without scale", "unknown"}, {"pods without owner", "unmanaged"},
	}, ""},
	"endpoints":              {"endpoint", []rule{{"subsets", "subsets truncated emptied"}, {"headless", "headless"}, {"unready ones", "publish"}}, ""},
	"endpointslice":          {"endpointslice", []rule{{"conditions", "conditions"}, {"families", "dual empty"}, {"slices shrink", "shrink"}, {"a slice that is to go becomes the one to come", "reuse emptied"}, {"the node's network", "hostnetwork"}, {"the ports of sidecars", "sidecar"}}, ""},
	"endpointslicemirroring": {"endpointslicemirroring", []rule{{"mirrored", "mirror change unchanged"}, {"families and ports", "families"}, {"what is left goes", "emptied service_gone"}, {"not mirrored", "leader selector skipped"}}, ""},
	"servicecidr":            {"service-cidr", []rule{{"ready", "ready"}, {"kept while needed", "needed covered"}}, ""},
	"nodelifecycle": {"nodelifecycle taint-eviction", []rule{
		{"silent nodes", "silent never unready stays"}, {"nodes that are well or back", "well back starting"}, {"a node waits for its turn", "held dark swapped"}, {"a zone partly down", "zone_partial"}, {"a zone down", "zone_full"}, {"all zones down", "zone_all"},
	}, ""},
	"nodeipam":     {"nodeipam", []rule{{"ranges of both families", "ranges dual"}, {"no range is left", "exhausted"}}, ""},
	"nodettl":      {"ttl", nil, "TestDecide has one row of numbers for each step: a decision of one number needs no script"},
	"loadbalancer": {"address-pool", []rule{{"addresses of a pool", "ask give keep comes overlap wrong"}, {"families", "dual families"}, {"others' services", "others cloud"}}, ""},
	"localpath":    {"local-path-provisioner", []rule{{"directories come", "steps failed refused"}, {"directories go", "volumes undo"}}, ""},
	"namespace":    {"namespace", []rule{{"what holds it is told, pods first", "remaining"}, {"what was not seen holds it", "failures"}}, ""},
	"serviceaccount": {"serviceaccount", []rule{
		{"an account for every namespace", "namespaces"},
	}, ""},
	"satoken":       {"serviceaccount-token legacy-service-account-token-cleaner", []rule{{"tokens of accounts, and those that nobody used", "tokens"}}, ""},
	"rootca":        {"root-ca-cert-publisher", []rule{{"the CA in every namespace", "namespaces"}}, ""},
	"resourcequota": {"resourcequota", []rule{{"what counts", "all"}, {"scopes", "scopes"}}, ""},
	"garbage": {"garbagecollector", []rule{
		{"orphan", "orphan"}, {"foreground", "foreground nonblocking"}, {"background, unknown owners", "owners"}, {"circles", "circle"},
	}, ""},
	"podgc":           {"podgc", nil, "TestDecide has a row for each rule, which says its rule in words"},
	"certificates":    {"csrsigning csrapproving csrcleaner podcertificaterequest-cleaner", []rule{{"what a signer signs", "requests"}, {"approved by rights", "approve"}, {"forgotten in time", "forget"}}, ""},
	"trustbundle":     {"kube-apiserver-serving-clustertrustbundle-publisher", []rule{{"the API server's authority, and no other of its signer", "first changed forged right"}}, ""},
	"migration":       {"storage-version-migrator", []rule{{"begun, written, ended", "steps"}}, ""},
	"bootstrap":       {"bootstrapsigner tokencleaner", []rule{{"signatures", "sign empty"}}, ""},
	"selinuxwarning":  {"selinux-warning", []rule{{"labels that cannot share a volume", "labels"}}, ""},
	"clusterrole":     {"clusterrole-aggregation", []rule{{"rules of others", "admin"}, {"a bad selector", "bad_selector"}}, ""},
	"volumebinder":    {"persistentvolume-binder", []rule{{"binding", "smallest meant named none bound finished"}, {"the default class", "default default_none"}, {"provisioning", "provision selected"}, {"waiting for the first consumer", "waits waits_meant"}, {"releasing and reclaim policies", "released reclaim reclaimed"}, {"lost claims", "lost lost_before misbound"}}, ""},
	"attachdetach":    {"attachdetach", []rule{{"attaching", "attach attached multi failed unmanaged"}, {"detaching", "release kept leaving ended"}, {"nodes that are gone", "gone silent noforce outofservice"}}, ""},
	"expander":        {"persistentvolume-expander", []rule{{"claims that wait", "claims"}}, ""},
	"protection":      {"pvc-protection pv-protection", []rule{{"kept while in use", "use"}}, ""},
	"ephemeral":       {"ephemeral-volume", []rule{{"claims of pods", "make leaving"}}, ""},
	"attributesclass": {"vac-protection", []rule{{"kept while named", "classes"}}, ""},
	"resourceclaim":   {"resource-claim-controller", []rule{{"claims of pods", "make tell foreign"}, {"users", "reserve leave deleting orphan"}}, ""},
	"policystatus":    {"validatingadmissionpolicy-status", []rule{{"expressions against kinds", "fields kinds library variables"}, {"once a generation", "generations"}}, ""},
	"devicetaint":     {"device-taint-eviction", []rule{{"pods leave", "taints rules"}, {"rules say how far it is", "progress"}}, ""},
}

// TestCensus: every controller of the list has rules, every decision scripts, and every script belongs to a rule.
func TestCensus(t *testing.T) {
	listed := map[string]bool{}
	for _, b := range rules {
		for short := range strings.FieldsSeq(b.controllers) {
			listed[short] = true
		}
	}
	for _, e := range list() {
		if !listed[e.short] {
			t.Errorf("%s has no rules in census_test.go", e.name)
		}
		delete(listed, e.short)
	}
	for short := range listed {
		t.Errorf("%s has rules, and is not in the list of controllers", short)
	}
	deciders, err := filepath.Glob("*/decide.go")
	if err != nil || len(deciders) == 0 {
		t.Fatalf("no decisions: %v", err)
	}
	for _, file := range deciders {
		if _, ok := rules[filepath.Dir(file)]; !ok {
			t.Errorf("%s decides, and no rules of it are in census_test.go", file)
		}
	}
	for folder, b := range rules {
		b.check(t, folder)
	}
}

func (b book) check(t *testing.T, folder string) {
	if (len(b.rules) == 0) != (b.elsewhere != "") {
		t.Errorf("%s: either rules with scripts, or a reason why there are none", folder)
	}
	if _, err := os.Stat(path.Join(folder, "decide.go")); err != nil {
		t.Errorf("%s decides nothing by itself: %v", folder, err)
	}
	var there []string
	scripts, err := fs.Glob(os.DirFS(folder), "testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range scripts {
		there = append(there, strings.TrimSuffix(path.Base(s), ".txtar"))
	}
	var named []string
	for _, r := range b.rules {
		for s := range strings.FieldsSeq(r.scripts) {
			if named = append(named, s); !slices.Contains(there, s) {
				t.Errorf("%s: %q is to be shown by %s.txtar, which is not there", folder, r.says, s)
			}
		}
	}
	for _, s := range there {
		if !slices.Contains(named, s) {
			t.Errorf("%s/testdata/%s.txtar shows no rule of census_test.go", folder, s)
		}
	}
}
