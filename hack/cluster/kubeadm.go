package main

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
)

// kubeadmFiles makes what kubeadm makes below /etc/kubernetes for a control-plane node: three authorities, the
// certificates they issue, the key of the service accounts' tokens, and a kubeconfig per user. What stands is kept.
func kubeadmFiles(folder, name, address string) error {
	server := "https://" + address + ":6443"
	pki := filepath.Join(folder, "pki")
	ca, err := newAuthority(pki)
	if err != nil {
		return err
	}
	etcd, err := newAuthority(filepath.Join(pki, "etcd"))
	if err != nil {
		return err
	}
	front, err := newAuthorityNamed(pki, "front-proxy-ca")
	if err != nil {
		return err
	}
	names := []string{name, "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}
	config := func(file, cert, user string, groups ...string) error {
		return ca.kubeconfig(filepath.Join(folder, file), cert, server, user, groups...)
	}
	for _, err := range []error{
		ca.issue("apiserver", leaf("kube-apiserver", nil, names, "127.0.0.1", address, "10.96.0.1")),
		ca.issue("apiserver-kubelet-client", leaf("kube-apiserver-kubelet-client", []string{"system:masters"}, nil)),
		front.issue("front-proxy-client", leaf("front-proxy-client", nil, nil)),
		etcd.issue("server", leaf(name, nil, []string{name, "localhost"}, "127.0.0.1", address)),
		etcd.issue("peer", leaf(name, nil, []string{name, "localhost"}, "127.0.0.1", address)),
		etcd.issue("../apiserver-etcd-client", leaf("kube-apiserver-etcd-client", nil, nil)),
		ca.issue("sa", leaf("service-accounts", nil, nil)),
		config("admin.conf", "admin", "kubernetes-admin", "system:masters"),
		config("scheduler.conf", "scheduler", "system:kube-scheduler"),
		config("controller-manager.conf", "controller-manager", "system:kube-controller-manager"),
		config("kubelet.conf", "kubelet", "system:node:"+name, "system:nodes"),
		config("proxy.conf", "proxy", "system:kube-proxy"),
	} {
		if err != nil {
			return err
		}
	}
	return publicKey(ca.path("sa.crt"), ca.path("sa.pub"))
}

// publicKey writes the public key of a certificate.
func publicKey(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	cert, err := x509.ParseCertificate(block(data))
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(cert.PublicKey)
	if err != nil {
		return err
	}
	return os.WriteFile(to, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o644)
}
