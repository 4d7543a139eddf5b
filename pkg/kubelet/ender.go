package kubelet

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/lifecycle"
	"github.com/sextant-k8s/sextant/pkg/kubelet/shutdown"
)

// ender ends the node's pods when the machine goes down; nil where nobody asked for that.
func (k *Kubelet) ender(event func(kind, reason, message string)) (*shutdown.Manager, error) {
	groups, err := shutdown.Groups(&k.cfg.Kubelet)
	if err != nil || len(groups) == 0 {
		return nil, err
	}
	dial := k.cfg.SystemBus
	if dial == nil {
		dial = shutdown.SystemBus
	}
	dropins := k.cfg.LogindDropins
	if dropins == "" {
		dropins = "/etc/systemd/logind.conf.d"
	}
	return shutdown.New(shutdown.Config{Groups: groups, Dial: dial, Dropins: dropins, Pods: k.pods.Pods, Event: event, Root: k.cfg.Flags.RootDir, Metrics: k.metrics, Log: k.log,
		End: func(pod *v1.Pod, grace time.Duration) {
			seconds := int64(grace / time.Second)
			k.pods.Fail(string(pod.UID), lifecycle.Failure{Reason: "Terminated", Message: "Pod was terminated in response to imminent node shutdown.", Grace: &seconds})
		},
		Ended: func(pod *v1.Pod) bool {
			now := k.pods.Pod(pod.Namespace, pod.Name)
			if now == nil || now.UID != pod.UID {
				return true
			}
			if now.Status.Phase != v1.PodSucceeded && now.Status.Phase != v1.PodFailed {
				return false
			}
			// What is mounted still needs the network and the drivers which run as pods of a later stage.
			_, err := os.Lstat(filepath.Join(k.volumes.PodDir(string(pod.UID)), "volumes"))
			return errors.Is(err, os.ErrNotExist)
		},
		Changed: func() {
			if k.node != nil {
				k.node.Poke()
			}
		}}), nil
}
