package realtest

import "os"

// registryAt is where the test of pulls has its registry.
const registryAt = "127.0.0.1:5000"

// provider puts a plugin in place which opens one corner of the registry, and answers the flags that name it.
func (m *machine) provider() ([]string, error) {
	bin := m.path("credentials")
	config := `apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
- name: helper
  apiVersion: credentialprovider.kubelet.k8s.io/v1
  matchImages: ["` + registryAt + `/provided"]
  defaultCacheDuration: 1m
`
	script := `#!/bin/sh
echo '{"kind": "CredentialProviderResponse", "apiVersion": "credentialprovider.kubelet.k8s.io/v1", "cacheKeyType": "Registry", "auth": {"` + registryAt + `": {"username": "u", "password": "p"}}}'
`
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(bin+"/helper", []byte(script), 0o755); err != nil {
		return nil, err
	}
	return []string{"--image-credential-provider-config", m.path("providers.yaml"), "--image-credential-provider-bin-dir", bin},
		os.WriteFile(m.path("providers.yaml"), []byte(config), 0o644)
}
