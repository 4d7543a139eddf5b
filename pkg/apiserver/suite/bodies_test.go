package suite

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestHostileBodies sends what is nested a hundred thousand times, what grows as its names are resolved, and what is too
// large: each is refused at once, as the sender's fault, and the server lives.
func TestHostileBodies(t *testing.T) {
	t.Parallel()
	s := start(t)
	const maps, crds, deep = "/api/v1/namespaces/default/configmaps", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", 100_000
	s.Must(t, "POST", maps, `{"metadata":{"name":"kept"}}`)
	nest := func(open, within, end string) string {
		return strings.Repeat(open, deep) + within + strings.Repeat(end, deep)
	}
	lists, objects := nest("[", "", "]"), nest(`{"a":`, "1", "}")
	laughs := "a0: &a0 [x,x,x,x,x,x,x,x,x]\n"
	for i := range 9 {
		this, next := string(rune('0'+i)), string(rune('1'+i))
		laughs += "a" + next + ": &a" + next + " [" + strings.TrimSuffix(strings.Repeat("*a"+this+",", 9), ",") + "]\n"
	}
	for name, c := range map[string]struct{ method, path, media, body string }{
		"lists":           {"POST", maps, "application/json", `{"metadata":{"name":"a"},"data":` + lists + `}`},
		"objects":         {"POST", maps, "application/json", `{"metadata":{"name":"a"},"data":` + objects + `}`},
		"an unknown one":  {"POST", maps, "application/json", `{"metadata":{"name":"a"},"other":` + lists + `}`},
		"lists in YAML":   {"POST", maps, "application/yaml", "metadata: {name: a}\ndata: " + lists + "\n"},
		"names in YAML":   {"POST", maps, "application/yaml", "metadata: {name: a}\n" + laughs},
		"lists in CBOR":   {"POST", maps, "application/cbor", "\xd9\xd9\xf7\xa1Ddata" + strings.Repeat("\x81", deep) + "\x01"},
		"a merge patch":   {"PATCH", maps + "/kept", mergeType, `{"data":` + objects + `}`},
		"a JSON patch":    {"PATCH", maps + "/kept", jsonPatchType, `[{"op":"add","path":"/data","value":` + lists + `}]`},
		"a strategic one": {"PATCH", maps + "/kept", strategicType, `{"data":` + objects + `}`},
		"an applied one":  {"PATCH", maps + "/kept?fieldManager=m", applyType, `{"apiVersion":"v1","kind":"ConfigMap","data":` + lists + `}`},
		"a schema": {"POST", crds, "application/json", `{"metadata":{"name":"as.x.io"},"spec":{"group":"x.io","scope":"Cluster","names":{"plural":"as","kind":"A"},"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":` +
			nest(`{"type":"array","items":`, `{}`, "}") + `}}]}}`},
		"too much":             {"POST", maps, "application/json", `{"metadata":{"name":"a"},"data":{"a":"` + strings.Repeat("x", 3<<20) + `"}}`},
		"options of a removal": {"DELETE", maps + "/kept", "application/json", `{"dryRun":` + lists + `}`},
	} {
		begun := time.Now()
		code, _, b := s.Try(t, c.method, c.path, c.body, map[string]string{"Content-Type": c.media})
		want := code == http.StatusBadRequest || code == http.StatusUnprocessableEntity
		if name == "too much" {
			want = code == http.StatusRequestEntityTooLarge
		}
		if took := time.Since(begun); !want || took > 10*time.Second {
			t.Errorf("%s: %d after %v: %.300s", name, code, took, b)
		}
	}
	s.Must(t, "GET", maps+"/kept", "")
}
