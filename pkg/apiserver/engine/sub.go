package engine

import (
	"net/http"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
	"github.com/sextant-k8s/sextant/pkg/apiserver/codec"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// AspectVerbs are what an aspect serves unless its row says otherwise.
var AspectVerbs = []string{"get", "patch", "update"}

// subresource serves what stands below an object.
func (e *Engine) subresource(c *call) error {
	s := c.def.Sub(c.info.Sub)
	if s == nil {
		return errNotServed
	}
	switch {
	case s.Connect != nil:
		return e.connect(c, s.Connect)
	case s.Action != nil:
		if c.info.Verb != "create" {
			return methodNotSupported(c)
		}
		return e.action(c, s.Action)
	case s.Scale != nil:
		return e.scale(c, s.Scale)
	}
	verbs := s.AspectVerbs
	if verbs == nil {
		verbs = AspectVerbs
	}
	if !slices.Contains(verbs, c.info.Verb) {
		return methodNotSupported(c)
	}
	switch c.info.Verb {
	case "get":
		return e.get(c)
	case "update":
		return e.update(c, &ruleset{aspect: s.Aspect})
	}
	return e.patch(c, &ruleset{aspect: s.Aspect})
}

// action does what a POST to a subresource asks.
func (e *Engine) action(c *call, a *kind.Action) error {
	var opts metav1.CreateOptions
	if err := metav1.Convert_url_Values_To_v1_CreateOptions(ptr(c.values()), &opts, nil); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	opts.TypeMeta = optionsMeta("CreateOptions")
	if err := c.setWrite("CreateOptions", opts.DryRun, opts.FieldManager, metav1validation.ValidateCreateOptions(&opts)); err != nil {
		return err
	}
	c.name = c.info.Name
	body, err := c.body()
	if err != nil {
		return err
	}
	m, err := codec.BodyMedia(c.r)
	if err != nil {
		return err
	}
	fields, err := codec.CheckFieldValidation(c.r, c.values().Get("fieldValidation"))
	if err != nil {
		return err
	}
	obj := a.New()
	warnings, err := codec.Decode(body, m, a.GV.WithKind(a.Kind), obj, fields)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		c.warn(w)
	}
	req := c.admit(admission.Create, obj, nil, &opts)
	if err := e.plugins.Mutate(c.ctx, req); err != nil {
		return err
	}
	if err := e.plugins.Validate(c.ctx, req); err != nil {
		return err
	}
	out, err := a.Do(c.op(), c.info.Name, obj)
	if err != nil {
		return err
	}
	gvk := a.GV.WithKind(a.Kind)
	if _, ok := out.(*metav1.Status); ok {
		gvk = schema.GroupVersionKind{Version: "v1", Kind: "Status"}
	}
	return c.sendObject(http.StatusCreated, out, gvk)
}

// connect hands the connection to the row's stream.
func (e *Engine) connect(c *call, s *kind.Connect) error {
	if !slices.Contains(s.Methods, c.r.Method) {
		return methodNotSupported(c)
	}
	c.name = c.info.Name
	if !s.Path { // a proxied name may say scheme and port as well
		if _, err := c.look(c.ctx, c.info.Name, false); err != nil {
			return err
		}
	}
	options, err := optionsOf(c.ver.GV.WithKind(s.OptionsKind), c.values())
	if err != nil {
		return err
	}
	req := c.admit(admission.Connect, options, nil, nil)
	if err := e.plugins.Mutate(c.ctx, req); err != nil {
		return err
	}
	if err := e.plugins.Validate(c.ctx, req); err != nil {
		return err
	}
	s.Serve(&kind.ConnectRequest{Op: c.op(), Path: c.info.Rest, Writer: c.w, HTTP: c.r})
	return nil
}

// virtual serves a kind without storage.
func (e *Engine) virtual(c *call) error {
	v := c.def.Virtual
	switch {
	case c.info.Verb == "create" && v.Create != nil && c.info.Name == "":
		return e.answer(c, v)
	case c.info.Verb == "get" && v.Get != nil:
		obj, err := v.Get(c.op(), c.info.Name)
		if err != nil {
			return err
		}
		return c.sendHub(http.StatusOK, obj)
	case c.info.Verb == "list" && v.List != nil:
		objs, err := v.List(c.op())
		if err != nil {
			return err
		}
		return c.sendList(objs)
	}
	return methodNotSupported(c)
}

// answer answers an object that is asked about or acted upon and not kept. Admission is asked as for any other.
func (e *Engine) answer(c *call, v *kind.Virtual) error {
	if _, err := codec.NegotiateUnlisted(c.r); err != nil {
		return err
	}
	var opts metav1.CreateOptions
	if err := metav1.Convert_url_Values_To_v1_CreateOptions(ptr(c.values()), &opts, nil); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	opts.TypeMeta = optionsMeta("CreateOptions")
	if err := c.setWrite("CreateOptions", opts.DryRun, opts.FieldManager, metav1validation.ValidateCreateOptions(&opts)); err != nil {
		return err
	}
	obj, err := c.decode()
	if err != nil {
		return err
	}
	if c.def.Namespaced {
		if err := c.place(obj); err != nil {
			return err
		}
	}
	c.name = obj.GetName()
	// Reviews come back with their fields managed. What is acted upon alone is never seen again, nor has it a schema.
	if deduced(c.gvk().Group) {
		if err := c.manage(obj, nil); err != nil {
			return err
		}
	}
	req := c.admit(admission.Create, obj, nil, &opts)
	if err := e.plugins.Mutate(c.ctx, req); err != nil {
		return err
	}
	if err := e.plugins.Validate(c.ctx, req); err != nil {
		return err
	}
	if obj, err = v.Create(c.op(), obj); err != nil {
		return err
	}
	if obj == nil {
		done := &metav1.Status{Status: metav1.StatusSuccess, Code: http.StatusCreated}
		return c.sendObject(http.StatusCreated, done, schema.GroupVersionKind{Version: "v1", Kind: "Status"})
	}
	return c.sendHub(http.StatusCreated, obj)
}

// sendList answers hub objects that are not stored.
func (c *call) sendList(objs []kind.Object) error {
	t, err := codec.Negotiate(c.r, true)
	if err != nil {
		return err
	}
	gvk := c.listGVK()
	var out runtime.Object
	if t.As == "Table" {
		gvk = t.AsGV.WithKind("Table")
		out, err = c.table(objs, &metav1.ListMeta{})
	} else {
		t.As = ""
		out, err = c.listOf(objs, metav1.ListMeta{})
	}
	if err != nil {
		return err
	}
	b, err := codec.Encode(out, gvk, t)
	if err != nil {
		return err
	}
	return c.send(http.StatusOK, t, b)
}
