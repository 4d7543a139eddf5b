package kind

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Object is an API object with metadata, in the Go type of one version.
type Object interface {
	runtime.Object
	metav1.Object
}

// Def is the row of one kind.
type Def struct {
	Group      string // of the storage version: "" is the core group
	Kind       string // "Pod"
	Resource   string // "pods"
	Singular   string // "pod"
	ShortNames []string
	Categories []string
	Namespaced bool

	// Versions are the served versions, best first. A version may stand in another group (core events and
	// events.k8s.io events are one stored kind), so each carries its full group and version.
	Versions []Version
	// Storage is the version that is written to etcd; its Go type is the hub. It need not be served.
	Storage Version
	// Prefix is the folder of the keys below /registry, as upstream's ("services/specs"); "" means Resource for the
	// core group and, as upstream has it, Resource for most others; see Def.KeyPrefix.
	Prefix string

	// Verbs limits what is served ("" entries are not allowed); nil means create, delete, deletecollection, get, list,
	// patch, update and watch.
	Verbs []string
	// Shown are the verbs that discovery names; nil means all that are served.
	Shown []string

	// Prepare makes a new or changed object ready to be checked: it drops what the caller may not set and fills what
	// the server owns. old is nil on create. It runs after the common part (metadata, status kept or cleared,
	// generation).
	Prepare func(op *Op, obj, old Object)
	// Check answers what is wrong with the object; old is nil on create. The engine has already checked nothing: a row
	// checks metadata too. nil = metadata only.
	Check func(op *Op, obj, old Object) field.ErrorList
	// Warn answers warnings for the client's Warning headers.
	Warn func(op *Op, obj, old Object) []string
	// Begin reserves what the object needs elsewhere (cluster IPs, node ports) and sets it on obj. The function it
	// returns is called once, with whether the write was stored. On delete obj is nil and old the object deleted.
	Begin func(op *Op, obj, old Object) (done func(stored bool), err error)
	// Grace picks the grace in seconds of a deletion; nil = 0. 0 means delete now, more marks the object and leaves it
	// to its owner (kubelet). asked is what the request says, nil if nothing.
	Grace func(op *Op, obj Object, asked *int64) int64
	// OnDelete changes the object as it is marked for deletion (a namespace turns Terminating).
	OnDelete func(op *Op, obj Object)
	// Held tells that something besides metadata.finalizers still holds a deleted object (a namespace's finalizers).
	Held func(obj Object) bool
	// DeleteCheck may refuse a deletion.
	DeleteCheck func(op *Op, obj Object) error
	// ReturnDeleted answers a deletion with the object; others with a Status.
	ReturnDeleted bool

	// Generation is set for kinds whose metadata.generation counts changes outside metadata and status, from 1.
	Generation bool
	// StatusOnCreate keeps the status that a new object is sent with (a kubelet registers its node with it).
	StatusOnCreate bool
	// CreateOnUpdate lets PUT and apply-less PATCH create a missing object (upstream: leases, events, ...).
	CreateOnUpdate bool
	// NeedVersionOnUpdate refuses an update without resourceVersion.
	NeedVersionOnUpdate bool
	// NameCheck tells what a name must look like where Check is nil; nil = DNS subdomain.
	NameCheck func(name string, prefix bool) []string
	// Propagation is the deletion policy of a request that names none; "" is background.
	Propagation metav1.DeletionPropagation

	// Fields are the selectable fields besides metadata.name and metadata.namespace: name -> value of the hub object.
	Fields func(obj Object) map[string]string
	// FieldNames lists the keys Fields may return; a selector on another is a 400.
	FieldNames []string
	// Indexed names the field by which watchers and lists are indexed ("spec.nodeName"), if any.
	Indexed string
	// EventTTLSeconds, if set, attaches an etcd lease to what is written (events: 3600).
	TTLSeconds int64

	// Columns are the printed columns (the first is Name) and Row their cells for one hub object.
	Columns []metav1.TableColumnDefinition
	Row     func(obj Object) []any

	Subs []Sub
	// Loose, if set, is how objects without a generated Go type are read and written: they know no protobuf and no
	// strategic merge.
	Loose *Loose
	// Older, if set, reads what lies in etcd as JSON in a version that is not served any more.
	Older func(gv schema.GroupVersion, value []byte) (Object, error)
	// Closed, if set, may refuse new objects.
	Closed func(op *Op) error
	// Virtual, if set, serves a kind that is not stored (reviews, component statuses).
	Virtual *Virtual
}

// Version is one served (or stored) form of a kind.
type Version struct {
	GV      schema.GroupVersion
	Kind    string // if it differs from Def.Kind
	New     func() Object
	NewList func() runtime.Object
	// Default fills a decoded object's unset fields; nil = none.
	Default func(obj runtime.Object)
	// Read gives an object read from its message what protobuf does not carry; nil = nothing.
	Read func(obj Object)
	// ToHub and FromHub convert; both are nil for the version whose Go type is the hub.
	ToHub   func(obj Object) (Object, error)
	FromHub func(hub Object) (Object, error)
	// Deprecated, if not "", is the warning that every request of this version gets.
	Deprecated string
	// Removed is the release that serves it no more: "1.40"; "" if none is said.
	Removed string
}

// Rules are the hooks of a subresource that writes the same object; nil hooks as in Def.
type Rules struct {
	Prepare func(op *Op, obj, old Object)
	Check   func(op *Op, obj, old Object) field.ErrorList
}

// Sub is one subresource. Exactly one of its forms is set.
type Sub struct {
	Name string // "status"

	// Aspect writes the same object under its own rules (status, finalize, approval, ephemeralcontainers, resize):
	// get, patch, update. Its nil Prepare keeps everything of old but Status (and managedFields).
	Aspect *Rules
	// AspectVerbs, if set, limits an Aspect (namespaces/finalize: update).
	AspectVerbs []string
	Scale       *Scale
	Action      *Action
	Connect     *Connect
}

// Scale shows an object as autoscaling/v1 Scale: get, patch, update.
type Scale struct {
	// Read returns spec replicas, status replicas and the label selector as a string.
	Read func(obj Object) (spec, status int32, selector string)
	// Write sets the replicas.
	Write func(obj Object, replicas int32)
}

// ActionFunc does what a POST to a subresource asks. name is the object's; body has the Action's type. It returns what
// is answered (often body or a Status) with the HTTP code 201.
type ActionFunc func(op *Op, name string, body runtime.Object) (runtime.Object, error)

// Action is a POST of another type than the object's (binding, eviction, token).
type Action struct {
	// Versions of the body, best first: {policy/v1 Eviction}. All are of one Go type each; Do gets the first's.
	GV   schema.GroupVersion
	Kind string
	New  func() runtime.Object
	Do   ActionFunc
}

// ConnectFunc serves a stream. rest is the path below the subresource, with its leading slash, or "".
type ConnectFunc func(c *ConnectRequest)

// Connect is a subresource that is a stream or a proxy rather than an object.
type Connect struct {
	// Methods are the HTTP methods served, GET among them for a WebSocket.
	Methods []string
	// Options is the kind of the query options ("PodExecOptions"), as discovery and OpenAPI show it.
	OptionsKind string
	Serve       ConnectFunc
	// Path is true when a path may follow (proxy).
	Path bool
}

// Virtual serves a kind without storage. A nil function is a verb that is not served.
type Virtual struct {
	// Create answers a review: it returns the object with its status filled. nil is answered as a Status of success.
	Create func(op *Op, obj Object) (Object, error)
	Get    func(op *Op, name string) (Object, error)
	List   func(op *Op) ([]Object, error)
}

// Env is what hooks, plugins and controllers within the server may ask of it. Reads come from the cache and are as
// fresh as the last consistent read unless Fresh is asked; objects are shared and immutable.
type Env interface {
	// Get answers an object in its hub type, or a NotFound API error. gr is the storage group and resource.
	Get(ctx context.Context, gr schema.GroupResource, namespace, name string) (Object, error)
	// GetFresh is Get after the cache caught up with etcd.
	GetFresh(ctx context.Context, gr schema.GroupResource, namespace, name string) (Object, error)
	// List answers all objects of a namespace ("" = all), in key order.
	List(ctx context.Context, gr schema.GroupResource, namespace string) ([]Object, error)
	// ListFresh is List after the cache caught up with etcd.
	ListFresh(ctx context.Context, gr schema.GroupResource, namespace string) ([]Object, error)
	// ListIndexed answers the objects whose Def.Indexed field has the value.
	ListIndexed(ctx context.Context, gr schema.GroupResource, value string) ([]Object, error)
	// Changed counts the events of a resource: what was computed at one count stays true while it does not move.
	Changed(gr schema.GroupResource) uint64
	// Create stores obj as the server itself (no admission, row rules apply).
	Create(ctx context.Context, gr schema.GroupResource, obj Object) (Object, error)
	// Mutate rereads and writes until fn's change is stored without conflict; fn returning an error ends it. Row rules
	// are not applied: the caller is the server.
	Mutate(ctx context.Context, gr schema.GroupResource, namespace, name string, fn func(obj Object) error) (Object, error)
	// Delete deletes at once, with preconditions if uid or rv are not nil, or as opts say.
	Delete(ctx context.Context, gr schema.GroupResource, namespace, name string, opts *metav1.DeleteOptions) error
	// Def answers the row that serves a group and resource, or nil.
	Def(gr schema.GroupResource) *Def
}
