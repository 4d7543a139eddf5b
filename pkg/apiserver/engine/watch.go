package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sextant-k8s/sextant/pkg/apiserver/cache"
	"github.com/sextant-k8s/sextant/pkg/apiserver/codec"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// bookmarkEvery is how often a watcher that asks for them is told how far it is.
const bookmarkEvery = time.Minute

// shortLife is that of a watch which is over before a last bookmark would save its client anything.
const shortLife = 5 * time.Second

// patience is how long a watcher may take nothing of what is told it. Then its watch ends; what else is asked on its connection
// goes on.
const patience = time.Minute

// stream is one watch being served: where it reads and how it writes.
type stream struct {
	*call
	sel     cache.Selector
	target  codec.Target
	format  string // names the target among an event's frames
	rc      *http.ResponseController
	clock   *life
	choir   *choir // nil = it sings alone
	pen     pen
	watcher *cache.Watcher // of the handler, or while it rests of who holds mu; so is rev
	rev     int64          // everything up to it was told

	mu    sync.Mutex
	rests bool
	wake  <-chan struct{} // while it rests, of the last Poll
}

// watch tells changes until its time is over, the client goes or the server stops.
func (e *Engine) watch(c *call) error {
	var opts metav1.ListOptions
	if err := metav1.Convert_url_Values_To_v1_ListOptions(ptr(c.values()), &opts, nil); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	t, err := c.negotiate()
	if err != nil {
		return err
	}
	if t.Media == codec.YAML {
		return codec.Unsupported("application/json, application/vnd.kubernetes.protobuf, application/cbor-seq")
	}
	if t.As == "PartialObjectMetadataList" {
		t.As = "PartialObjectMetadata"
	}
	t.Pretty = false
	sel, err := c.selector(opts.LabelSelector, opts.FieldSelector)
	if err != nil {
		return err
	}
	if err := checkWatchOptions(&opts); err != nil {
		return err
	}
	s := &stream{call: c, sel: sel, target: t, rc: http.NewResponseController(c.w),
		format: fmt.Sprint(c.ver.GV, t.Media, t.As, t.AsGV.Version)}
	initial, w, err := s.start(&opts)
	var old tooOld
	if errors.As(err, &old) {
		s.begin()
		s.tellError(old.status())
		return nil
	}
	if err != nil {
		return err
	}
	defer w.Stop()
	s.watcher = w
	return s.run(initial, &opts)
}

func checkWatchOptions(opts *metav1.ListOptions) error {
	if opts.SendInitialEvents == nil {
		if opts.ResourceVersionMatch != "" {
			return apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: "ListOptions"}, "", forbid("resourceVersionMatch", "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"))
		}
		return nil
	}
	if match := opts.ResourceVersionMatch; match != metav1.ResourceVersionMatchNotOlderThan {
		errs := forbid("resourceVersionMatch", "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
		if match != "" {
			errs = append(errs, field.NotSupported(field.NewPath("resourceVersionMatch"), match, []metav1.ResourceVersionMatch{metav1.ResourceVersionMatchNotOlderThan}))
		}
		return apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: "ListOptions"}, "", errs)
	}
	return nil
}

// start places the watcher. initial is the state to tell first, nil for none.
func (s *stream) start(opts *metav1.ListOptions) (initial *cache.Snapshot, w *cache.Watcher, err error) {
	wants := opts.SendInitialEvents != nil && *opts.SendInitialEvents
	rv := opts.ResourceVersion
	if wants || rv == "" || rv == "0" {
		if rv == "" && !wants && opts.SendInitialEvents == nil {
			rv = "0" // as upstream has it: a watch from anywhere starts from what the cache has
		}
		if err := s.caughtUp(rv); err != nil {
			return nil, nil, err
		}
		initial, w = s.res.WatchNow(s.sel)
		if opts.SendInitialEvents != nil && !wants {
			initial = nil
		}
		return initial, w, nil
	}
	from, err := parseRV(rv)
	if err != nil {
		// A list is told of a bad request; a watch gets the bare error, as upstream has it.
		return nil, nil, wrong{errors.New(strings.TrimPrefix(err.Error(), "invalid resource version: "))}
	}
	if err := notOlderThan(s.ctx, s.home(), from); err != nil {
		return nil, nil, err
	}
	w, err = s.res.Watch(from, s.sel)
	if err != nil {
		return nil, nil, tooOld{from, s.res.Floor()}
	}
	return nil, w, nil
}

// tooOld says that a watch would start before what is kept. It is told as the first event, as upstream has it.
type tooOld struct{ from, floor int64 }

func (e tooOld) Error() string {
	return fmt.Sprintf("too old resource version: %d (%d)", e.from, e.floor)
}

func (e tooOld) status() error { return apierrors.NewResourceExpired(e.Error()) }

// begin sends the head of the answer.
func (s *stream) begin() {
	h := s.w.Header()
	h.Set("Content-Type", s.target.StreamType())
	h.Set("Cache-Control", "no-cache, private")
	s.w.WriteHeader(http.StatusOK)
}

func (s *stream) run(initial *cache.Snapshot, opts *metav1.ListOptions) error {
	s.begin()
	life := s.e.minWatch + time.Duration(rand.Int64N(int64(s.e.minWatch)))
	if opts.TimeoutSeconds != nil && *opts.TimeoutSeconds > 0 {
		life = time.Duration(*opts.TimeoutSeconds) * time.Second
	}
	s.clock = begins(life, opts.AllowWatchBookmarks, s.ctx, s.e.stopping, s.gone)
	defer s.clock.stop()
	defer s.rc.SetWriteDeadline(time.Time{}) //nolint:errcheck // an HTTP/1.1 connection may serve others
	s.rev = max(s.watcher.Rev, s.home().Rev())
	if initial != nil && !s.tellBeginning(initial, opts) {
		return nil
	}
	defer s.e.choirs.join(s)()
	for {
		s.bePatient()
		wake, ok := s.tellNew()
		if !ok {
			return nil
		}
		s.rest(wake)
		s.bePatient()
		switch {
		case s.clock.ends.Load():
			return nil
		case s.clock.over.Load():
			if opts.AllowWatchBookmarks && life > shortLife {
				s.tellBookmark(s.rev, false)
			}
			return nil
		case s.clock.bookmark.Swap(false):
			if !s.tellBookmark(max(s.rev, s.quiet()), false) {
				return nil
			}
		}
	}
}

// tellBeginning tells the state that the watch starts with.
func (s *stream) tellBeginning(initial *cache.Snapshot, opts *metav1.ListOptions) bool {
	s.rev = max(s.watcher.Rev, initial.Rev)
	begun := time.Now()
	if !s.tellState(initial) {
		return false
	}
	if opts.SendInitialEvents == nil {
		return true
	}
	watchLists.WithLabelValues(s.ver.GV.Group, s.ver.GV.Version, s.def.Resource, s.scope()).Observe(time.Since(begun).Seconds())
	return !opts.AllowWatchBookmarks || s.tellBookmark(s.rev, true)
}

// tellNew tells what came since the last time; wake is closed when there may be more.
func (s *stream) tellNew() (wake <-chan struct{}, ok bool) {
	// The cache's revision is read first: everything up to it is then among the events polled.
	upTo := s.home().Rev()
	events, wake, err := s.watcher.Poll()
	if err != nil {
		s.watched().terminated.Inc()
		s.tellError(tooOld{s.rev, s.res.Floor()}.status())
		return nil, false
	}
	for _, e := range events {
		if !s.tell(e) {
			return nil, false
		}
		s.rev = e.Rev
	}
	s.watched().events.Add(float64(len(events)))
	s.rev = max(s.rev, upTo)
	return wake, s.rc.Flush() == nil
}

// scope is how much a watch is about, as metrics name it.
func (s *stream) scope() string {
	switch {
	case s.info.Name != "":
		return "resource"
	case s.info.Namespace != "":
		return "namespace"
	}
	return "cluster"
}

// bePatient gives the watcher its time anew.
func (s *stream) bePatient() {
	_ = s.rc.SetWriteDeadline(time.Now().Add(patience)) // what has no deadlines is a test's
}

// quiet answers the cache's revision if nothing waits to be told, else 0.
func (s *stream) quiet() int64 {
	upTo := s.home().Rev()
	if s.watcher.Pending() {
		return 0
	}
	return upTo
}

// tell writes one event, encoded once for all streams of the same format.
func (s *stream) tell(e *cache.Event) bool {
	t, item, ok := e.For(s.sel)
	if !ok {
		return true
	}
	b, err := e.Frame(s.format, t, func() ([]byte, error) { return s.frame(t, item) })
	s.watched().sizes.Observe(float64(len(b)))
	return s.write(b, err)
}

func (s *stream) write(b []byte, err error) bool {
	if err != nil {
		slog.Error("a watch event cannot be encoded", "resource", s.def.Resource, "err", err)
		return false
	}
	_, err = s.w.Write(b)
	return err == nil
}

func (s *stream) frame(t watch.EventType, i *cache.Item) ([]byte, error) {
	obj, err := s.encodeItem(s.target, i)
	if err != nil {
		return nil, err
	}
	return frame(s.target.Media, t, obj)
}

// tellBookmark tells how far the stream is; initial marks the end of the initial events.
func (s *stream) tellBookmark(rev int64, initial bool) bool {
	obj := s.ver.New()
	obj.SetResourceVersion(strconv.FormatInt(rev, 10))
	if initial {
		obj.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	b, err := s.encodeBookmark(obj)
	if err == nil {
		b, err = frame(s.target.Media, watch.Bookmark, b)
	}
	return s.write(b, err) && s.rc.Flush() == nil
}

func (s *stream) encodeBookmark(obj kind.Object) ([]byte, error) {
	var out runtime.Object = obj
	gvk := s.gvk()
	switch s.target.As {
	case "Table":
		gvk = s.target.AsGV.WithKind("Table")
		out = &metav1.Table{ListMeta: metav1.ListMeta{ResourceVersion: obj.GetResourceVersion()}, Rows: []metav1.TableRow{{
			Object: runtime.RawExtension{Object: withKind(partial(obj), s.target.AsGV.WithKind("PartialObjectMetadata"))},
		}}}
	case "PartialObjectMetadata":
		gvk = s.target.AsGV.WithKind("PartialObjectMetadata")
		out = partial(obj)
	}
	return encodeTight(out, gvk, s.target)
}

// tellError tells why the stream ends.
func (s *stream) tellError(err error) {
	b, eerr := encodeTight(StatusOf(err), schema.GroupVersionKind{Version: "v1", Kind: "Status"}, s.target)
	if eerr == nil {
		b, eerr = frame(s.target.Media, watch.Error, b)
	}
	s.write(b, eerr)
}

// encodeTight is codec.Encode without JSON's final newline.
func encodeTight(obj runtime.Object, gvk schema.GroupVersionKind, t codec.Target) ([]byte, error) {
	b, err := codec.Encode(obj, gvk, t)
	if err == nil && t.Media == codec.JSON && len(b) > 0 && b[len(b)-1] == '\n' {
		b = b[:len(b)-1]
	}
	return b, err
}

// frame puts an encoded object into a watch event of the media.
func frame(m codec.Media, t watch.EventType, obj []byte) ([]byte, error) {
	switch m {
	case codec.Proto:
		e := metav1.WatchEvent{Type: string(t), Object: runtime.RawExtension{Raw: obj}}
		b := make([]byte, 4+e.Size())
		binary.BigEndian.PutUint32(b, uint32(len(b)-4))
		_, err := e.MarshalToSizedBuffer(b[4:])
		return b, err
	case codec.CBOR:
		return codec.EncodeEventCBOR(&metav1.WatchEvent{Type: string(t), Object: runtime.RawExtension{Raw: obj}})
	}
	b := make([]byte, 0, len(obj)+len(t)+24)
	b = append(b, `{"type":"`...)
	b = append(b, t...)
	b = append(b, `","object":`...)
	b = append(b, obj...)
	return append(b, "}\n"...), nil
}
