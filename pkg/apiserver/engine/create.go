package engine

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
	"github.com/sextant-k8s/sextant/pkg/apiserver/codec"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/store"
)

// create stores a new object.
func (e *Engine) create(c *call) error {
	var opts metav1.CreateOptions
	if err := metav1.Convert_url_Values_To_v1_CreateOptions(ptr(c.values()), &opts, nil); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	opts.TypeMeta = metav1.TypeMeta{Kind: "CreateOptions", APIVersion: "meta.k8s.io/v1"}
	if err := c.setWrite("CreateOptions", opts.DryRun, opts.FieldManager, metav1validation.ValidateCreateOptions(&opts)); err != nil {
		return err
	}
	obj, err := c.decode()
	if err != nil {
		return err
	}
	if obj, err = e.insert(c, obj, &opts); err != nil {
		return err
	}
	return c.sendHub(http.StatusCreated, obj)
}

// Names made from generateName: what is given is cut so that the whole stays a label, then 5 characters that spell
// nothing and are not mistaken for each other.
const (
	nameTries   = 8
	namePrefix  = 58
	nameLetters = "bcdfghjklmnpqrstvwxz2456789"
)

func nameFrom(prefix string) string {
	if len(prefix) > namePrefix {
		prefix = prefix[:namePrefix]
	}
	b := []byte(prefix)
	for range 5 {
		b = append(b, nameLetters[rand.IntN(len(nameLetters))])
	}
	return string(b)
}

// insert brings a new hub object through admission and rules into the store. Also apply and PUT create this way.
func (e *Engine) insert(c *call, obj kind.Object, options *metav1.CreateOptions) (kind.Object, error) {
	if err := c.place(obj); err != nil {
		return nil, err
	}
	if c.def.Closed != nil {
		if err := c.def.Closed(c.op()); err != nil {
			return nil, err
		}
	}
	if obj.GetResourceVersion() != "" {
		return nil, wrong{errors.New("resourceVersion should not be set on objects to be created")}
	}
	generate := obj.GetName() == "" && obj.GetGenerateName() != ""
	if !generate {
		return e.insertOnce(c, obj, options)
	}
	for try := 1; ; try++ {
		o := obj.DeepCopyObject().(kind.Object)
		o.SetName(nameFrom(obj.GetGenerateName()))
		stored, err := e.insertOnce(c, o, options)
		if !apierrors.IsAlreadyExists(err) || try == nameTries {
			if apierrors.IsAlreadyExists(err) {
				err = apierrors.NewGenerateNameConflict(c.gr(), o.GetName(), 1)
			}
			return stored, err
		}
	}
}

// place puts the object into the request's namespace and checks what it says of itself.
func (c *call) place(obj kind.Object) error {
	if c.def.Namespaced {
		switch obj.GetNamespace() {
		case "":
			obj.SetNamespace(c.info.Namespace)
		case c.info.Namespace:
		default:
			return apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
		}
	} else {
		obj.SetNamespace("")
	}
	if c.info.Name != "" && c.info.Verb != "create" {
		if obj.GetName() == "" {
			obj.SetName(c.info.Name)
		}
		if obj.GetName() != c.info.Name {
			return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", obj.GetName(), c.info.Name))
		}
	}
	return nil
}

func (e *Engine) insertOnce(c *call, obj kind.Object, options *metav1.CreateOptions) (_ kind.Object, err error) {
	c.name = obj.GetName()
	m := metaOf(obj)
	m.SelfLink, m.DeletionTimestamp, m.DeletionGracePeriodSeconds = "", nil, nil
	m.UID = uuid.NewUUID()
	m.CreationTimestamp = metav1.NewTime(c.now.Truncate(1e9))
	m.Generation = 0
	// A user owns what the user sent, not what admission and the row add to it.
	if err := c.manage(obj, nil); err != nil {
		return nil, err
	}
	entries := m.ManagedFields
	m.ManagedFields = nil // no rule is about them

	req := c.admit(admission.Create, obj, nil, options)
	if err := e.plugins.Mutate(c.ctx, req); err != nil {
		return nil, err
	}
	op := c.op()
	rs := &ruleset{}
	rs.prepare(op, obj, nil)
	c.name = obj.GetName() // a row may give one
	op.Name, req.Name = c.name, c.name
	done, err := begin(op, obj, nil)
	if err != nil {
		return nil, err
	}
	stored := false
	defer func() { done(stored) }()
	if errs := rs.validate(op, obj, nil); len(errs) > 0 {
		return nil, apierrors.NewInvalid(c.gk(), obj.GetName(), errs)
	}
	c.warnFor(op, obj, nil)
	if err := e.plugins.Validate(c.ctx, req); err != nil {
		return nil, err
	}
	m.ManagedFields = entries
	value, err := codec.StoredValue(c.def, obj)
	if err != nil {
		return nil, err
	}
	key := c.def.Key(obj.GetNamespace(), obj.GetName())
	if c.dryRun {
		if _, err := c.home().Fresh(c.ctx); err != nil {
			return nil, err
		}
		if c.res.Get(c.def.ItemKey(obj.GetNamespace(), obj.GetName())) != nil {
			return nil, apierrors.NewAlreadyExists(c.gr(), obj.GetName())
		}
		return obj, nil
	}
	c.res.Expect(c.def.ItemKey(obj.GetNamespace(), obj.GetName()), obj, value)
	rev, err := c.store().Create(c.ctx, key, value, c.def.TTLSeconds)
	if errors.Is(err, store.ErrExists) {
		return nil, apierrors.NewAlreadyExists(c.gr(), obj.GetName())
	}
	if err != nil {
		return nil, err
	}
	stored = true
	c.wrote(obj, value, rev)
	return obj, nil
}

// begin calls the row's Begin; a dry run reserves nothing.
func begin(op *kind.Op, obj, old kind.Object) (done func(bool), err error) {
	if op.Def.Begin == nil {
		return func(bool) {}, nil
	}
	done, err = op.Def.Begin(op, obj, old)
	if done == nil {
		done = func(bool) {}
	}
	return done, err
}

func (c *call) warnFor(op *kind.Op, obj, old kind.Object) {
	if c.def.Warn == nil {
		return
	}
	for _, w := range c.def.Warn(op, obj, old) {
		c.warn(w)
	}
}
