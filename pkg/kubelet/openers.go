package kubelet

import (
	"os"
	"path/filepath"

	"github.com/sextant-k8s/sextant/pkg/kubelet/credential"
)

// openers are what opens registries.
func (k *Kubelet) openers() error {
	// Where docker itself would look, the kubelet's own folder first.
	var docker []string
	for _, dir := range []string{k.cfg.Flags.RootDir, filepath.Join(os.Getenv("HOME"), ".docker"), "/.docker"} {
		docker = append(docker, filepath.Join(dir, "config.json"))
	}
	for _, dir := range []string{k.cfg.Flags.RootDir, os.Getenv("HOME"), "/"} {
		docker = append(docker, filepath.Join(dir, ".dockercfg"))
	}
	var err error
	k.keyring, err = credential.NewKeyring(credential.Config{Path: k.cfg.Flags.CredentialConfig, Bin: k.cfg.Flags.CredentialBin, Docker: docker, Objects: k.objects, Log: k.log, Metrics: k.metrics})
	return err
}

// opened are the records of what did.
func (k *Kubelet) opened() error {
	var err error
	kc := k.cfg.Kubelet
	k.pulled, err = credential.NewRecords(k.cfg.Flags.RootDir, kc.ImagePullCredentialsVerificationPolicy, kc.PreloadedImagesVerificationAllowlist, k.log)
	return err
}
