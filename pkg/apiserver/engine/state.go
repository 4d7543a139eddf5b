package engine

import (
	"encoding/binary"

	"google.golang.org/protobuf/encoding/protowire"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sextant-k8s/sextant/pkg/apiserver/cache"
	"github.com/sextant-k8s/sextant/pkg/apiserver/codec"
	"github.com/sextant-k8s/sextant/pkg/apiserver/store"
)

const (
	stateItems   = 500 // objects that are looked up at once
	patientItems = 16  // objects that a watcher has to take within its patience
)

// tellState tells every selected object of a snapshot as added. All informers of a cluster may start at once, and most then
// wait for their turn of the network: what one holds meanwhile is little, so nothing is gathered here that the response
// gathers anyhow.
func (s *stream) tellState(snap *cache.Snapshot) bool {
	defer s.e.crowd.join()()
	k := &chunks{w: s.w}
	for from := ""; ; {
		items, next := snap.Select(s.sel, from, stateItems)
		s.watched().initial.Add(float64(len(items)))
		for n, i := range items {
			if n%patientItems == 0 {
				s.bePatient()
			}
			if err := s.addFrame(k, i); err != nil {
				return s.write(nil, err)
			}
		}
		if next == "" || k.err != nil {
			return k.err == nil
		}
		from = next
	}
}

// Fields of a WatchEvent, and of the RawExtension in it.
const (
	eventType   = 1
	eventObject = 2
	rawBytes    = 1
)

// addFrame adds the event that an object was added.
func (s *stream) addFrame(k *chunks, i *cache.Item) error {
	if s.target.Media != codec.Proto || s.target.As != "" || !s.asStored() || s.def.Loose != nil {
		b, err := s.encodeItem(s.target, i)
		if err == nil {
			b, err = frame(s.target.Media, watch.Added, b)
		}
		k.write(b)
		return err
	}
	gvk := s.gvk()
	api := gvk.GroupVersion().String()
	object := store.WrapSize(api, gvk.Kind, len(i.Proto))
	extension := 1 + protowire.SizeBytes(object)
	event := 1 + protowire.SizeBytes(len(watch.Added)) + 1 + protowire.SizeBytes(extension)
	b := binary.BigEndian.AppendUint32(k.buf[:0], uint32(event))
	b = protowire.AppendTag(b, eventType, protowire.BytesType)
	b = protowire.AppendString(b, string(watch.Added))
	b = protowire.AppendTag(b, eventObject, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(extension))
	b = protowire.AppendTag(b, rawBytes, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(object))
	k.buf = store.AppendWrapHead(b, api, gvk.Kind, len(i.Proto))
	k.flush()
	k.write(i.Proto)
	k.write(wrapTail)
	return nil
}
