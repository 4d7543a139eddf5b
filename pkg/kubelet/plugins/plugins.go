// Package plugins finds the node's plugins: programs which offer themselves by a socket in <root>/plugins_registry.
//
// Flow: Watcher.Run reads the folder once a second -> a new socket is asked who it is -> the Handler of its kind makes
// its acquaintance -> the plugin is told how that went; a socket which has gone is a plugin to forget. A plugin which was
// refused is asked again at the next look, so that the order in which programs start does not matter. Handlers are called
// from Run's goroutine alone, one at a time.
package plugins

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// Plugin is one that offers itself.
type Plugin struct {
	Name string
	// Endpoint is the socket it serves on; Versions is what it says to speak.
	Endpoint string
	Versions []string
}

// Handler deals with plugins of one kind.
type Handler interface {
	// Meet makes a plugin's acquaintance; an error refuses it, and is told to the plugin.
	Meet(ctx context.Context, p Plugin) error
	// Forget: the plugin took its socket away.
	Forget(name string)
}

// Watcher looks after one folder.
type Watcher struct {
	// Root is the kubelet's folder.
	Root string
	// Handlers are by the kind plugins call themselves: CSIPlugin, DRAPlugin, DevicePlugin.
	Handlers map[string]Handler
	Log      *slog.Logger

	known map[string]met
	said  map[string]string
}

type met struct {
	kind, name string
	made       time.Time
}

// look is how often the folder is read; call bounds one acquaintance.
const (
	look = time.Second
	call = 10 * time.Second
)

// Run registers plugins as they come and forgets them as they go, until ctx ends.
func (w *Watcher) Run(ctx context.Context) {
	w.known, w.said = map[string]met{}, map[string]string{}
	t := time.NewTicker(look)
	defer t.Stop()
	for {
		w.scan(ctx)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// scan compares the folder's sockets with those known. A socket which was made anew is another plugin.
func (w *Watcher) scan(ctx context.Context) {
	here := map[string]time.Time{}
	_ = filepath.WalkDir(filepath.Join(w.Root, "plugins_registry"), func(path string, e os.DirEntry, err error) error {
		if err != nil || e.Type()&os.ModeSocket == 0 || strings.HasPrefix(e.Name(), ".") {
			return nil
		}
		if st, err := e.Info(); err == nil {
			here[path] = st.ModTime()
		}
		return nil
	})
	for path, m := range w.known {
		if at, ok := here[path]; ok && at.Equal(m.made) {
			continue
		}
		delete(w.known, path)
		w.Handlers[m.kind].Forget(m.name)
		w.Log.Info("a plugin has gone", "kind", m.kind, "name", m.name)
	}
	for path, at := range here {
		if _, ok := w.known[path]; ok {
			continue
		}
		m, err := w.register(ctx, path)
		switch {
		case err == nil:
			m.made = at
			w.known[path] = m
			delete(w.said, path)
			w.Log.Info("a plugin has registered", "kind", m.kind, "name", m.name)
		case w.said[path] != err.Error():
			w.said[path] = err.Error()
			w.Log.Warn("registering a plugin", "socket", path, "err", err)
		}
	}
}

// Dial connects to a socket of this machine; nothing is sent yet.
func Dial(path string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+path, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost"),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", addr)
		}))
}

// register asks a plugin who it is, has its handler meet it, and tells it the outcome.
func (w *Watcher) register(ctx context.Context, path string) (met, error) {
	ctx, cancel := context.WithTimeout(ctx, call)
	defer cancel()
	conn, err := Dial(path)
	if err != nil {
		return met{}, err
	}
	defer func() { _ = conn.Close() }() // only read
	plugin := registration.NewRegistrationClient(conn)
	info, err := plugin.GetInfo(ctx, &registration.InfoRequest{})
	if err != nil {
		return met{}, err
	}
	h := w.Handlers[info.Type]
	if h == nil {
		err = fmt.Errorf("plugins of kind %s are not served by this kubelet", info.Type)
	} else {
		p := Plugin{Name: info.Name, Endpoint: info.Endpoint, Versions: info.SupportedVersions}
		if p.Endpoint == "" {
			p.Endpoint = path
		}
		err = h.Meet(ctx, p)
	}
	word := &registration.RegistrationStatus{PluginRegistered: err == nil}
	if err != nil {
		word.Error = err.Error()
	}
	if _, e := plugin.NotifyRegistrationStatus(ctx, word); err == nil && e != nil {
		h.Forget(info.Name)
		err = fmt.Errorf("telling the plugin that it is registered: %w", e)
	}
	return met{kind: info.Type, name: info.Name}, err
}
