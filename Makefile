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
NODES       ?= 2
PROXY_MODE  ?= iptables
POD_NETWORK ?= host-gw
CLUSTER = $(TOOLS)/cluster -out $(OUT) -nodes $(NODES) -proxy-mode $(PROXY_MODE) -pod-network $(POD_NETWORK) -pause-image $(PAUSE_IMAGE)
PACKAGES := containerd runc containernetworking-plugins iptables conntrack busybox-static iproute2

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
	go test ./cmd/... ./pkg/...
	cd staging/api && go test ./...

lint: $(TOOLS)/golangci-lint ## go vet and golangci-lint
	go vet ./cmd/... ./pkg/... ./hack/...
	$(TOOLS)/golangci-lint run ./cmd/... ./pkg/... ./hack/...
	cd staging/api && $(TOOLS)/golangci-lint run --config $(CURDIR)/.golangci.yml ./...

$(TOOLS)/golangci-lint: hack/tools/lint/go.mod
	cd hack/tools/lint && go build -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@touch $@

up: packages build images cluster $(TOOLS)/etcd ## Start a cluster on this machine; NODES=, PROXY_MODE=, POD_NETWORK=
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
	go build -o $@ ./hack/tools/kubectl
	@touch $@

images: packages ## Build the images every node holds
	@mkdir -p $(OUT)/images
	@go build -ldflags '-s -w' -o $(OUT)/images/pause ./hack/images/pause
	@go build -ldflags '-s -w' -o $(OUT)/images/wget ./hack/images/wget
	@go run ./hack/images -out $(OUT)/images -pause $(PAUSE_IMAGE) -test $(TEST_IMAGE) -pause-binary $(OUT)/images/pause -wget-binary $(OUT)/images/wget

print-pause-image:
	@echo $(PAUSE_IMAGE)

print-test-image:
	@echo $(TEST_IMAGE)

clean: ## Forget what was built
	rm -rf bin $(OUT)
