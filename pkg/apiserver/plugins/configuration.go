package plugins

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"
	apiserverv1 "k8s.io/apiserver/pkg/apis/apiserver/v1"
	kwebhook "k8s.io/apiserver/pkg/util/webhook"
	"sigs.k8s.io/yaml"

	"github.com/sextant-k8s/sextant/pkg/apiserver/webhook"
)

// Configuration is what a file says of plugins, as YAML or JSON by their names.
type Configuration map[string][]byte

// configurable are the plugins of which something can be said.
var configurable = []string{
	"EventRateLimit", "ImagePolicyWebhook", "MutatingAdmissionWebhook", "PodNodeSelector", "PodSecurity", "PodTolerationRestriction",
	"ResourceQuota", "ValidatingAdmissionWebhook",
}

// ReadConfiguration reads an AdmissionConfiguration and the files it names; paths are relative to its own. No file says nothing.
func ReadConfiguration(file string) (Configuration, error) {
	if file == "" {
		return nil, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var conf apiserverv1.AdmissionConfiguration
	if err := yaml.UnmarshalStrict(data, &conf); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	gvk := schema.FromAPIVersionAndKind(conf.APIVersion, conf.Kind)
	if gvk.Kind != "AdmissionConfiguration" || gvk.Group != apiserverv1.GroupName && gvk.Group != "apiserver.k8s.io" {
		return nil, fmt.Errorf("%s holds a %s of %q: give an AdmissionConfiguration of apiserver.config.k8s.io/v1", file, conf.Kind, conf.APIVersion)
	}
	out := Configuration{}
	for _, p := range conf.Plugins {
		if _, twice := out[p.Name]; twice {
			return nil, fmt.Errorf("%s: the plugin %q stands there twice", file, p.Name)
		}
		switch {
		case p.Configuration != nil:
			out[p.Name] = p.Configuration.Raw
		case p.Path != "":
			path := p.Path
			if !filepath.IsAbs(path) {
				path = filepath.Join(filepath.Dir(file), path)
			}
			if out[p.Name], err = os.ReadFile(path); err != nil {
				return nil, fmt.Errorf("%s: the configuration of %s: %w", file, p.Name, err)
			}
		default:
			out[p.Name] = nil
		}
	}
	return out, nil
}

// check answers an error if a plugin is named that is none of the known ones.
func (c Configuration) check(known map[string]bool) error {
	for name, data := range c {
		if !known[name] {
			return fmt.Errorf("--admission-control-config-file: there is no plugin %q", name)
		}
		if len(data) > 0 && !slices.Contains(configurable, name) {
			slog.Warn("--admission-control-config-file configures a plugin that has nothing to configure", "plugin", name)
		}
	}
	return nil
}

// typed is what says of itself which kind it is.
type typed struct {
	APIVersion string `json:"apiVersion,omitempty"`
	Kind       string `json:"kind,omitempty"`
}

// read reads what is said of a plugin into a value that embeds typed, which must be of the kind and of one of the
// versions. ok is false if nothing is said.
func (c Configuration) read(plugin string, into any, of *typed, kind string, versions ...string) (ok bool, err error) {
	data := c[plugin]
	if len(data) == 0 {
		return false, nil
	}
	if err := yaml.UnmarshalStrict(data, into); err != nil {
		return false, fmt.Errorf("the configuration of %s: %w", plugin, err)
	}
	if of != nil && (of.Kind != kind || !slices.Contains(versions, of.APIVersion)) {
		return false, fmt.Errorf("the configuration of %s is a %s of %q: give a %s of %s", plugin, of.Kind, of.APIVersion, kind, versions[0])
	}
	return true, nil
}

// caller answers who asks the webhooks of a plugin: with the credentials of its kubeconfig, if it has one.
func (c Configuration) caller(plugin string, plain *webhook.Caller) (*webhook.Caller, error) {
	var conf struct {
		typed
		KubeConfigFile     string `json:"kubeConfigFile"`
		StaticManifestsDir string `json:"staticManifestsDir"`
	}
	_, err := c.read(plugin, &conf, &conf.typed, "WebhookAdmissionConfiguration", "apiserver.config.k8s.io/v1")
	if err != nil && conf.Kind == "WebhookAdmission" && conf.APIVersion == "apiserver.config.k8s.io/v1alpha1" {
		err = nil
	}
	if err != nil {
		return nil, err
	}
	if conf.StaticManifestsDir != "" {
		return nil, fmt.Errorf("the configuration of %s: staticManifestsDir belongs to the feature gate ManifestBasedAdmissionControlConfig, which is off: leave it out", plugin)
	}
	if conf.KubeConfigFile == "" {
		return plain, nil
	}
	logins, err := kwebhook.NewDefaultAuthenticationInfoResolver(conf.KubeConfigFile)
	if err != nil {
		return nil, fmt.Errorf("the configuration of %s: kubeConfigFile: %w", plugin, err)
	}
	return &webhook.Caller{Env: plain.Env, Identity: plain.Identity, Logins: logins, DialService: plain.DialService, DialURL: plain.DialURL}, nil
}

// needed is the error of a plugin that cannot work without a configuration.
func needed(plugin string) error {
	return errors.New("the plugin " + plugin + " needs a configuration: name it in --admission-control-config-file")
}
