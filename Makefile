# Targets are listed by `make help`. Flags are the same everywhere, so that one build cache serves all.
export GOFLAGS := -trimpath -buildvcs=false
export CGO_ENABLED := 0

OUT    := $(CURDIR)/_out
TOOLS  := $(OUT)/tools/bin
DAEMONS := $(notdir $(wildcard cmd/*))

# A component's version is its own newest tag (apiserver/v1.2.3), or v0.1.0-dev before the first.
version = $(shell git describe --tags --match '$(1)/v*' --abbrev=8 2>/dev/null | sed 's|^$(1)/||' | grep . || echo v0.1.0-dev)

PAUSE_IMAGE := registry.sextant.local/pause:3.10
TEST_IMAGE  := registry.sextant.local/busybox:1
DNS_IMAGE   := registry.sextant.local/coredns:1.15.0
KUBECTL_VERSION    := v1.37.2
CONTAINERD_VERSION := v2.4.2
RUNC_VERSION       := 1.5.2
NODES       ?= 2
PROXY_MODE  ?= iptables
POD_NETWORK ?= host-gw
# RUNTIME=distro takes the distribution's containerd and runc instead of the built ones.
RUNTIME     ?= built
CLUSTER = $(TOOLS)/cluster -out $(OUT) -nodes $(NODES) -proxy-mode $(PROXY_MODE) -pod-network $(POD_NETWORK) -pause-image $(PAUSE_IMAGE) -runtime $(RUNTIME)
PACKAGES := containernetworking-plugins iptables conntrack busybox-static iproute2
ifeq ($(RUNTIME),distro)
PACKAGES += containerd runc
else
PACKAGES += gcc libc6-dev libseccomp-dev pkg-config
RUNTIME_TOOLS := $(addprefix $(TOOLS)/,containerd containerd-shim-runc-v2 ctr runc)
endif

.PHONY: help build test house lint unit e2e clean up down images packages cluster print-pause-image print-test-image $(DAEMONS)

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

build: $(DAEMONS) ## Build every component into bin/

$(DAEMONS):
	go build -ldflags '-s -w -X main.version=$(call version,$@)' -o bin/$@ ./cmd/$@

test: lint house unit ## Everything CI runs

house: ## The rules of the house
	go test ./hack/house

unit: ## Unit and integration tests; etcd runs inside them
	go test ./cmd/... ./pkg/... ./manifests/...
	cd staging/api && go test ./...

lint: $(TOOLS)/golangci-lint ## go vet and golangci-lint
	go vet ./cmd/... ./pkg/... ./hack/... ./manifests/...
	$(TOOLS)/golangci-lint run ./cmd/... ./pkg/... ./hack/... ./manifests/...
	cd staging/api && $(TOOLS)/golangci-lint run --config $(CURDIR)/.golangci.yml ./...

$(TOOLS)/golangci-lint: hack/tools/lint/go.mod
	cd hack/tools/lint && go build -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@touch $@

up: packages build images cluster $(TOOLS)/etcd $(RUNTIME_TOOLS) ## Start a cluster on this machine; NODES=, PROXY_MODE=, POD_NETWORK=, RUNTIME=
	$(CLUSTER) up

down: cluster ## End that cluster and leave nothing behind
	$(CLUSTER) down

e2e: up $(TOOLS)/kubectl ## Drive a real cluster with stock kubectl; the cluster is ended whatever comes of it
	go test -tags e2e -count=1 -timeout 15m ./hack/e2e; code=$$?; $(CLUSTER) down; exit $$code

packages: # Install what is missing of the distribution's
	@dpkg -s $(PACKAGES) >/dev/null 2>&1 || apt-get install -y --no-install-recommends $(PACKAGES)

cluster:
	@go build -o $(TOOLS)/cluster ./hack/cluster

$(TOOLS)/etcd: go.mod
	go build -o $@ go.etcd.io/etcd/server/v3
	@touch $@

$(TOOLS)/kubectl: go.mod hack/tools/kubectl/main.go
	go build -ldflags '-s -w -X k8s.io/component-base/version.gitVersion=$(KUBECTL_VERSION)' -o $@ ./hack/tools/kubectl
	@touch $@

$(TOOLS)/coredns: hack/tools/coredns/go.mod hack/tools/coredns/main.go
	cd hack/tools/coredns && go build -ldflags '-s -w' -o $@ .
	@touch $@

$(TOOLS)/containerd $(TOOLS)/containerd-shim-runc-v2 $(TOOLS)/ctr: hack/tools/containerd/go.mod
	cd hack/tools/containerd && go build -ldflags '-s -w -X github.com/containerd/containerd/v2/version.Version=$(CONTAINERD_VERSION)' -o $@ github.com/containerd/containerd/v2/cmd/$(@F)
	@touch $@

# runc joins namespaces before Go starts, in C, and filters system calls with libseccomp.
$(TOOLS)/runc: hack/tools/runc/go.mod | packages
	cd hack/tools/runc && CGO_ENABLED=1 go build -tags seccomp -ldflags '-s -w -X main.version=$(RUNC_VERSION)' -o $@ github.com/opencontainers/runc
	@touch $@

images: packages $(TOOLS)/coredns ## Build the images every node holds
	@mkdir -p $(OUT)/images
	@go build -ldflags '-s -w' -o $(OUT)/images/pause ./hack/images/pause
	@go build -ldflags '-s -w' -o $(OUT)/images/wget ./hack/images/wget
	@go run ./hack/images -out $(OUT)/images -pause $(PAUSE_IMAGE) -test $(TEST_IMAGE) -dns $(DNS_IMAGE) -pause-binary $(OUT)/images/pause -wget-binary $(OUT)/images/wget -dns-binary $(TOOLS)/coredns

print-pause-image:
	@echo $(PAUSE_IMAGE)

print-test-image:
	@echo $(TEST_IMAGE)

clean: ## Forget what was built
	rm -rf bin $(OUT)
