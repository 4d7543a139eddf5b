package garbage

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

// thing is how an archive writes a node of the graph.
type thing struct {
	Name       string   `json:"name"`
	Owners     []string `json:"owners"`   // by name, which is the UID too
	Blocking   bool     `json:"blocking"` // it blocks the deletion of its owners
	Finalizers []string `json:"finalizers"`
	Deleting   bool     `json:"deleting"`
}

func (x *thing) node() *Node {
	n := &Node{Name: x.Name, UID: types.UID(x.Name), Finalizers: x.Finalizers, Deleting: x.Deleting}
	for _, o := range x.Owners {
		n.Owners = append(n.Owners, metav1.OwnerReference{Kind: "Thing", Name: o, UID: types.UID(o), BlockOwnerDeletion: &x.Blocking})
	}
	return n
}

// standings is who is known: every other owner is Unknown.
type standings struct {
	Solid   []string `json:"solid"`
	Waiting []string `json:"waiting"`
	Gone    []string `json:"gone"`
}

func TestDecide(t *testing.T) {
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		out := ""
		g := newGraph()
		things := golden.Objects[thing](t, files["things.yaml"])
		for _, x := range things {
			g.put(x.node())
		}
		known := golden.Object[standings](t, files["owners.yaml"])
		owners := map[types.UID]Standing{}
		for at, list := range map[Standing][]string{Solid: known.Solid, Waiting: known.Waiting, Gone: known.Gone} {
			for _, o := range list {
				owners[types.UID(o)] = at
			}
		}
		for _, x := range things {
			n := g.get(types.UID(x.Name))
			out += x.Name + "\n" + decide(Snapshot{Object: n, Dependents: g.of(n.UID), Owners: owners}).String()
		}
		return out
	})
}

// TestGraphForgets: what is dropped is gone until it appears again, and leaves nothing behind with its last dependent.
func TestGraphForgets(t *testing.T) {
	g := newGraph()
	owner, child := (&thing{Name: "owner"}).node(), (&thing{Name: "child", Owners: []string{"owner"}}).node()
	g.put(child)
	if g.isGone(owner.UID) {
		t.Fatal("nobody looked for the owner yet")
	}
	g.put(owner)
	g.drop(owner.UID)
	if !g.isGone(owner.UID) || len(g.of(owner.UID)) != 1 {
		t.Fatal("the owner is gone, its dependent is not")
	}
	g.drop(child.UID)
	g.drop("never")
	if len(g.nodes)+len(g.dependents)+len(g.gone) != 0 {
		t.Fatalf("left behind: %v %v %v", g.nodes, g.dependents, g.gone)
	}
}
