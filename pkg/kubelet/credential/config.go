package credential

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	kubeletv1 "k8s.io/kubelet/config/v1"
	"sigs.k8s.io/yaml"
)

// load reads the configuration of all providers, in the order of their files, and finds their programs.
func load(cfg Config) ([]*provider, error) {
	switch {
	case cfg.Path == "" && cfg.Bin == "":
		return nil, nil
	case cfg.Path == "" || cfg.Bin == "":
		return nil, errors.New("--image-credential-provider-config and --image-credential-provider-bin-dir must both be set; give the one that lacks")
	}
	files, err := configFiles(cfg.Path)
	if err != nil {
		return nil, fmt.Errorf("reading --image-credential-provider-config: %w", err)
	}
	var out []*provider
	for _, file := range files {
		list, err := read(file)
		if err != nil {
			return nil, fmt.Errorf("reading --image-credential-provider-config %s: %w", file, err)
		}
		for _, p := range list {
			if slices.ContainsFunc(out, func(o *provider) bool { return o.cfg.Name == p.Name }) {
				return nil, fmt.Errorf("reading --image-credential-provider-config %s: provider %q stands there twice", file, p.Name)
			}
			program := filepath.Join(cfg.Bin, p.Name)
			if st, err := os.Stat(program); err != nil || st.IsDir() || st.Mode()&0o111 == 0 {
				return nil, fmt.Errorf("credential provider %q: %s is not a program; put it there or change --image-credential-provider-bin-dir", p.Name, program)
			}
			out = append(out, newProvider(p, program, cfg.Objects, cfg.Metrics))
		}
	}
	return out, nil
}

// configFiles are one file, or those of a folder in the order of their names.
func configFiles(p string) ([]string, error) {
	st, err := os.Stat(p)
	if err != nil {
		return nil, err
	}
	if !st.IsDir() {
		return []string{p}, nil
	}
	entries, err := os.ReadDir(p)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); !e.IsDir() && (ext == ".json" || ext == ".yaml" || ext == ".yml") {
			out = append(out, filepath.Join(p, e.Name()))
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s has no .json, .yaml or .yml file", p)
	}
	return out, nil
}

func read(file string) ([]kubeletv1.CredentialProvider, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var c kubeletv1.CredentialProviderConfig
	if err := yaml.UnmarshalStrict(raw, &c); err != nil {
		return nil, err
	}
	group, version, _ := strings.Cut(c.APIVersion, "/")
	if c.Kind != "CredentialProviderConfig" || group != kubeletv1.GroupName || !slices.Contains([]string{"v1", "v1beta1", "v1alpha1"}, version) {
		return nil, fmt.Errorf("want kind CredentialProviderConfig of %s, got %q of %q", kubeletv1.SchemeGroupVersion, c.Kind, c.APIVersion)
	}
	if len(c.Providers) == 0 {
		return nil, errors.New("providers: at least 1 item in plugins is required")
	}
	var errs []error
	for i, p := range c.Providers {
		if version != "v1" && p.TokenAttributes != nil {
			errs = append(errs, fmt.Errorf("providers[%d].tokenAttributes: %s has no such field, v1 has", i, c.APIVersion))
		}
		for _, e := range check(p) {
			errs = append(errs, fmt.Errorf("providers[%d].%w", i, e))
		}
	}
	return c.Providers, errors.Join(errs...)
}

// check tells what is wrong with one provider.
func check(p kubeletv1.CredentialProvider) []error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	switch {
	case p.Name == "":
		bad("name: a provider's name is the name of its program: give it")
	case p.Name == "." || p.Name == ".." || strings.ContainsAny(p.Name, "/ "):
		bad("name %q: want the plain name of a program, without / and spaces", p.Name)
	}
	if !slices.Contains(versions, p.APIVersion) {
		bad("apiVersion %q: want one of %s", p.APIVersion, strings.Join(versions, ", "))
	}
	if len(p.MatchImages) == 0 {
		bad("matchImages: say which images the provider is for")
	}
	for _, m := range p.MatchImages {
		if _, err := path.Match(strings.Join(parse(m).parts, "."), ""); err != nil || m == "" {
			bad("matchImages %q: not a pattern of images", m)
		}
	}
	if p.DefaultCacheDuration == nil || p.DefaultCacheDuration.Duration < 0 {
		bad("defaultCacheDuration: want how long answers are kept, 0s or more")
	}
	if t := p.TokenAttributes; t != nil {
		errs = append(errs, checkTokens(t)...)
	}
	return errs
}

func checkTokens(t *kubeletv1.ServiceAccountTokenAttributes) []error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf("tokenAttributes."+format, a...)) }
	if t.ServiceAccountTokenAudience == "" {
		bad("serviceAccountTokenAudience: say whom the tokens are for")
	}
	if t.CacheType != kubeletv1.TokenServiceAccountTokenCacheType && t.CacheType != kubeletv1.ServiceAccountServiceAccountTokenCacheType {
		bad("cacheType %q: want Token or ServiceAccount", t.CacheType)
	}
	if t.RequireServiceAccount == nil {
		bad("requireServiceAccount: want true or false")
	} else if !*t.RequireServiceAccount && len(t.RequiredServiceAccountAnnotationKeys) > 0 {
		bad("requiredServiceAccountAnnotationKeys: want none where requireServiceAccount is false")
	}
	seen := map[string]bool{}
	for _, key := range slices.Concat(t.RequiredServiceAccountAnnotationKeys, t.OptionalServiceAccountAnnotationKeys) {
		if seen[key] {
			bad("annotation keys: %q stands there twice", key)
		}
		seen[key] = true
	}
	return errs
}
