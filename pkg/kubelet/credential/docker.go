package credential

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// login is one entry of a docker configuration; Auth holds user and password together.
type login struct {
	Username, Password, Auth string
}

// secretEntries are the credentials of a pull secret; what cannot be read opens nothing.
func secretEntries(s *v1.Secret) []entry {
	if raw := s.Data[v1.DockerConfigJsonKey]; raw != nil {
		return dockerEntries(raw)
	}
	return loginEntries(s.Data[v1.DockerConfigKey])
}

// dockerEntries reads ~/.docker/config.json.
func dockerEntries(raw []byte) []entry {
	var file struct{ Auths map[string]login }
	if json.Unmarshal(raw, &file) != nil {
		return nil
	}
	return entriesOf(file.Auths)
}

// loginEntries reads the older ~/.dockercfg, which has no more than the logins.
func loginEntries(raw []byte) []entry {
	var logins map[string]login
	if json.Unmarshal(raw, &logins) != nil {
		return nil
	}
	return entriesOf(logins)
}

func entriesOf(logins map[string]login) []entry {
	var out []entry
	for pattern, l := range logins {
		if l.Auth != "" {
			both, err := base64.StdEncoding.DecodeString(l.Auth)
			if err != nil {
				if both, err = base64.RawStdEncoding.DecodeString(strings.TrimRight(l.Auth, "=")); err != nil {
					continue
				}
			}
			var ok bool
			if l.Username, l.Password, ok = strings.Cut(string(both), ":"); !ok {
				continue
			}
		}
		out = append(out, entry{pattern, Credential{Username: l.Username, Password: l.Password}})
	}
	return out
}

// node are the credentials which lie on the node for all its pods. They are read anew each time: pulls are rare and an
// administrator's change counts at once.
func (k *Keyring) node() []entry {
	for _, path := range k.cfg.Docker {
		if raw, err := os.ReadFile(path); err == nil {
			if strings.HasSuffix(path, ".dockercfg") {
				return loginEntries(raw)
			}
			return dockerEntries(raw)
		}
	}
	return nil
}
