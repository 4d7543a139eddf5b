package engine

import (
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/cache"
)

func secs(n int64) time.Duration { return time.Duration(n) * time.Second }

// deleteCollection deletes every selected object and answers the list of them as they were.
func (e *Engine) deleteCollection(c *call) error {
	opts, err := c.deleteOptions()
	if err != nil {
		return err
	}
	t, err := c.negotiate()
	if err != nil {
		return err
	}
	var list metav1.ListOptions
	if err := metav1.Convert_url_Values_To_v1_ListOptions(ptr(c.values()), &list, nil); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	sel, err := c.selector(list.LabelSelector, list.FieldSelector)
	if err != nil {
		return err
	}
	p, err := c.readPage(&list, sel)
	if err != nil {
		return err
	}
	if err := e.deleteAll(c, p.items, opts); err != nil {
		return err
	}
	return c.sendPage(t, p)
}

func (e *Engine) deleteAll(c *call, items []*cache.Item, opts *metav1.DeleteOptions) error {
	work := make(chan *cache.Item)
	var mu sync.Mutex
	var first error
	var wg sync.WaitGroup
	for range min(e.deleters, len(items)) {
		wg.Go(func() {
			for i := range work {
				one := *c // its name and namespace are its own
				info := *c.info
				info.Namespace, info.Name = i.Namespace, i.Name
				one.info, one.warnings = &info, nil
				_, _, err := e.deleteOne(&one, i.Name, opts)
				if err != nil && !apierrors.IsNotFound(err) {
					mu.Lock()
					if first == nil {
						first = err
					}
					mu.Unlock()
				}
			}
		})
	}
	for _, i := range items {
		work <- i
	}
	close(work)
	wg.Wait()
	return first
}
