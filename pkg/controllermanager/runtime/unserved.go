package runtime

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/cache"
)

// heed makes an informer say once, instead of at every try, that the apiserver does not serve its resource: one of an older
// release, or with groups turned off, lacks a few. The tries go on, so the controllers begin when the resource appears.
func heed(controller string, w Watch) error {
	var once sync.Once
	err := w.Informer.SetWatchErrorHandlerWithContext(func(ctx context.Context, r *cache.Reflector, err error) {
		if !apierrors.IsNotFound(err) {
			cache.DefaultWatchErrorHandler(ctx, r, err)
			return
		}
		once.Do(func() {
			slog.Info("the apiserver does not serve a resource; controllers that need it wait", "resource", w.What, "controller", controller, "needed", !w.Optional)
		})
	})
	if err != nil {
		return fmt.Errorf("%s: watching %s: %w", controller, w.What, err)
	}
	return nil
}
