package engine

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sextant-k8s/sextant/pkg/apiserver/cache"
	"github.com/sextant-k8s/sextant/pkg/apiserver/codec"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// page is what a list answers.
type page struct {
	items []*cache.Item
	meta  metav1.ListMeta
}

// list answers the selected objects of one consistent state.
func (e *Engine) list(c *call) error {
	t, err := c.negotiate()
	if err != nil {
		return err
	}
	var opts metav1.ListOptions
	if err := metav1.Convert_url_Values_To_v1_ListOptions(ptr(c.values()), &opts, nil); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	sel, err := c.selector(opts.LabelSelector, opts.FieldSelector)
	if err != nil {
		return err
	}
	p, err := c.readPage(&opts, sel)
	if err != nil {
		return err
	}
	return c.sendPage(t, p)
}

func ptr[T any](v T) *T { return &v }

// readPage finds the state that the options ask for and selects from it.
func (c *call) readPage(opts *metav1.ListOptions, sel cache.Selector) (*page, error) {
	if err := checkListOptions(opts); err != nil {
		return nil, err
	}
	snap, rev, from, err := c.state(opts)
	if err != nil {
		return nil, err
	}
	limit := int(opts.Limit)
	if opts.ResourceVersion == "0" && opts.Continue == "" && opts.ResourceVersionMatch != metav1.ResourceVersionMatchExact {
		limit = 0 // "any version will do" is served whole
	}
	if limit == 0 && opts.Continue == "" && opts.ResourceVersionMatch != metav1.ResourceVersionMatchExact {
		// The list is of now: an index may know it.
		items, at := c.res.Select(sel)
		return &page{items: items, meta: metav1.ListMeta{ResourceVersion: strconv.FormatInt(max(rev, at), 10)}}, nil
	}
	items, next := snap.Select(sel, from, limit)
	p := &page{items: items, meta: metav1.ListMeta{ResourceVersion: strconv.FormatInt(rev, 10)}}
	if next == "" {
		return p, nil
	}
	c.res.Keep(snap, rev)
	p.meta.Continue = c.token(rev, items[len(items)-1].Key)
	if sel.Labels == nil && sel.Fields == nil {
		left := int64(0)
		rest, _ := snap.Select(sel, next, 0)
		left = int64(len(rest))
		p.meta.RemainingItemCount = &left
	}
	return p, nil
}

// state answers the snapshot to read, the revision it is true at and the key to start from.
func (c *call) state(opts *metav1.ListOptions) (snap *cache.Snapshot, rev int64, from string, err error) {
	if opts.Continue != "" {
		rev, from, err = c.parseToken(opts.Continue)
		if err != nil {
			return nil, 0, "", err
		}
		if rev > 0 {
			// Another server may be ahead of this one, and a token may be made up: the state of now is not that of later, and
			// must not be kept as if it were.
			if err := notOlderThan(c.ctx, c.home(), rev); err != nil {
				return nil, 0, "", err
			}
			snap, err = c.exactly(rev)
			if isExpired(err) {
				err = c.expiredToken(from)
			}
			return snap, rev, from, err
		}
		if rev, err = c.home().Fresh(c.ctx); err != nil {
			return nil, 0, "", err
		}
		return c.res.Snapshot(), rev, from, nil
	}
	if opts.ResourceVersionMatch == metav1.ResourceVersionMatchExact {
		rev, err := parseRV(opts.ResourceVersion)
		if err != nil {
			return nil, 0, "", err
		}
		if err := notOlderThan(c.ctx, c.home(), rev); err != nil {
			return nil, 0, "", err
		}
		snap, err := c.exactly(rev)
		if isExpired(err) {
			err = apierrors.NewResourceExpired("The resourceVersion for the provided list is too old.")
		}
		return snap, rev, "", err
	}
	if opts.ResourceVersion == "" {
		if rev, err = c.home().Fresh(c.ctx); err != nil {
			return nil, 0, "", err
		}
	} else if err := c.caughtUp(opts.ResourceVersion); err != nil {
		return nil, 0, "", err
	}
	// The revision is read before the snapshot is taken: a change in between only makes the list newer than it says.
	rev = max(rev, c.home().Rev())
	snap = c.res.Snapshot()
	return snap, max(rev, snap.Rev), "", nil
}

// exactly answers the state at rev from what is kept, or from etcd. What etcd has forgotten is no more, though it may be kept
// here, or may still be so: all servers are to answer alike, and a client that goes on reading is not to hold history for ever.
func (c *call) exactly(rev int64) (*cache.Snapshot, error) {
	if c.store().Forgotten(rev) {
		return nil, rpctypes.ErrCompacted
	}
	if snap := c.res.At(rev); snap != nil {
		return snap, nil
	}
	return c.home().ReadAt(c.ctx, c.res, rev)
}

func isExpired(err error) bool { return errors.Is(err, rpctypes.ErrCompacted) }

func checkListOptions(opts *metav1.ListOptions) error {
	match := field.NewPath("resourceVersionMatch")
	switch m := opts.ResourceVersionMatch; {
	case opts.SendInitialEvents != nil:
		return invalidList(field.Forbidden(field.NewPath("sendInitialEvents"), "sendInitialEvents is forbidden for list"))
	case m == "" && opts.Continue != "" && opts.ResourceVersion != "" && opts.ResourceVersion != "0":
		return apierrors.NewBadRequest("specifying resource version is not allowed when using continue")
	case m == "":
		return nil
	case opts.Continue != "":
		return invalidList(field.Forbidden(match, "resourceVersionMatch is forbidden when continue is provided"))
	case opts.ResourceVersion == "":
		return invalidList(field.Forbidden(match, "resourceVersionMatch is forbidden unless resourceVersion is provided"))
	case m != metav1.ResourceVersionMatchExact && m != metav1.ResourceVersionMatchNotOlderThan:
		return invalidList(field.NotSupported(match, m, []metav1.ResourceVersionMatch{metav1.ResourceVersionMatchExact, metav1.ResourceVersionMatchNotOlderThan, ""}))
	case m == metav1.ResourceVersionMatchExact && opts.ResourceVersion == "0":
		return invalidList(field.Forbidden(match, `resourceVersionMatch "exact" is forbidden for resourceVersion "0"`))
	}
	return nil
}

func invalidList(err *field.Error) error {
	return apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: "ListOptions"}, "", field.ErrorList{err})
}

// continueToken is what a continue string says, as upstream writes it.
type continueToken struct {
	APIVersion      string `json:"v"`
	ResourceVersion int64  `json:"rv"`
	StartKey        string `json:"start"`
}

// token says where the next page starts: after last, at rev. rev -1 means the state of then.
func (c *call) token(rev int64, last string) string {
	return c.tokenFrom(rev, last+"\x00")
}

// tokenFrom says that the next page starts at a key.
func (c *call) tokenFrom(rev int64, from string) string {
	b, _ := json.Marshal(continueToken{"meta.k8s.io/v1", rev, strings.TrimPrefix(from, c.folder())})
	return base64.RawURLEncoding.EncodeToString(b)
}

func (c *call) folder() string {
	if c.def.Namespaced && c.info.Namespace != "" {
		return c.info.Namespace + "/"
	}
	return ""
}

func (c *call) parseToken(s string) (rev int64, from string, err error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	var t continueToken
	if err == nil {
		err = json.Unmarshal(b, &t)
	}
	if err != nil {
		return 0, "", apierrors.NewBadRequest(fmt.Sprintf("invalid continue token: continue key is not valid: %v", err))
	}
	if t.APIVersion != "meta.k8s.io/v1" || t.StartKey == "" || t.ResourceVersion == 0 {
		return 0, "", apierrors.NewBadRequest("invalid continue token: continue key is not valid: server set invalid value")
	}
	// The namespace comes from the path, never from the token: a token cannot widen what was authorized.
	return t.ResourceVersion, c.folder() + t.StartKey, nil
}

// expiredToken is the answer to a page whose state is gone, with a token that goes on from now.
func (c *call) expiredToken(from string) error {
	err := apierrors.NewResourceExpired("The provided continue parameter is too old to display a consistent list result. You can start a new list without " +
		"the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the " +
		"provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk " +
		"was returned and now may show up in the list.")
	err.ErrStatus.ListMeta.Continue = c.tokenFrom(-1, from)
	return err
}

// sendPage answers a list in the form asked for; the storage version is spliced from stored bytes.
func (c *call) sendPage(t codec.Target, p *page) error {
	gvk := c.listGVK()
	if t.As == "" && c.asStored() {
		switch t.Media {
		case codec.Proto:
			return c.streamProto(t, gvk, p)
		case codec.JSON, codec.YAML:
			return c.streamJSON(t, gvk, p)
		}
	}
	b, err := c.encodePage(t, p)
	if err != nil {
		return err
	}
	return c.send(http.StatusOK, t, b)
}

// encodePage writes a list from the objects in it.
func (c *call) encodePage(t codec.Target, p *page) ([]byte, error) {
	objs, err := c.objects(p.items)
	if err != nil {
		return nil, err
	}
	switch t.As {
	case "Table":
		table, err := c.table(objs, &p.meta)
		if err != nil {
			return nil, err
		}
		return codec.Encode(table, t.AsGV.WithKind("Table"), t)
	case "PartialObjectMetadata", "PartialObjectMetadataList":
		l := &metav1.PartialObjectMetadataList{ListMeta: p.meta, Items: make([]metav1.PartialObjectMetadata, len(objs))}
		for n, o := range objs {
			l.Items[n] = *partial(o)
			l.Items[n].SetGroupVersionKind(t.AsGV.WithKind("PartialObjectMetadata"))
		}
		return codec.Encode(l, t.AsGV.WithKind("PartialObjectMetadataList"), t)
	}
	l, err := c.listOf(objs, p.meta)
	if err != nil {
		return nil, err
	}
	return codec.Encode(l, c.listGVK(), t)
}

// listOf makes a typed list of hub objects in the version asked for.
func (c *call) listOf(hubs []kind.Object, meta metav1.ListMeta) (runtime.Object, error) {
	l := c.ver.NewList()
	objs := make([]runtime.Object, len(hubs))
	for n, h := range hubs {
		o, err := c.ver.Of(h)
		if err != nil {
			return nil, err
		}
		o.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
		objs[n] = o
	}
	if err := setList(l, objs); err != nil {
		return nil, err
	}
	lm := l.(metav1.ListMetaAccessor).GetListMeta()
	lm.SetResourceVersion(meta.ResourceVersion)
	lm.SetContinue(meta.Continue)
	lm.SetRemainingItemCount(meta.RemainingItemCount)
	return l, nil
}
