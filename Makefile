# Targets are listed by `make help`. Flags are the same everywhere, so that one build cache serves all.
export GOFLAGS := -trimpath -buildvcs=false
export CGO_ENABLED := 0

OUT    := $(CURDIR)/_out
TOOLS  := $(OUT)/tools/bin
DAEMONS := $(notdir $(wildcard cmd/*))

# A component's version is its own newest tag (apiserver/v1.2.3), or v0.1.0-dev before the first.
version = $(shell git describe --tags --match '$(1)/v*' --abbrev=8 2>/dev/null | sed 's|^$(1)/||' | grep . || echo v0.1.0-dev)

REGISTRY    := registry.sextant.local
PAUSE_IMAGE := $(REGISTRY)/pause:3.10
TEST_IMAGE  := $(REGISTRY)/busybox:1
DNS_IMAGE   := $(REGISTRY)/coredns:1.15.0
KUBECTL_VERSION    := v1.37.2
CONTAINERD_VERSION := v2.4.2
RUNC_VERSION       := 1.5.2
NODES       ?= 2
PROXY_MODE  ?= iptables
POD_NETWORK ?= host-gw
# RUNTIME=distro takes the distribution's containerd and runc instead of the built ones.
RUNTIME     ?= built
CLUSTER = $(TOOLS)/cluster -out $(OUT) -bin $(CURDIR)/bin -addons $(CURDIR)/manifests/addons -nodes $(NODES) -proxy-mode $(PROXY_MODE) -pod-network $(POD_NETWORK) -pause-image $(PAUSE_IMAGE) -runtime $(RUNTIME)
PACKAGES := containernetworking-plugins iptables nftables conntrack busybox-static iproute2
ifeq ($(RUNTIME),distro)
PACKAGES += containerd runc
# Volumes made of images came with containerd 2.1.
UNSUPPORTED = -skip '/.*/.*ImageVolume'
else
PACKAGES += gcc libc6-dev libseccomp-dev pkg-config
RUNTIME_TOOLS := $(addprefix $(TOOLS)/,containerd containerd-shim-runc-v2 ctr runc)
endif

.PHONY: guest chaos crash fuzz-pods stock stock-images help build test house lint unit e2e e2e-all bench bench-large generate generated clean up down free needs images node-images daemon-images packages cluster \
	systemd-analyze print-pause-image print-test-image $(DAEMONS)

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

build: $(DAEMONS) ## Build every component into bin/

# gRPC's trace pages bring in templates, and with them every method of every type: a quarter of a daemon's size.
$(DAEMONS):
	go build -tags grpcnotrace -ldflags '-s -w -X main.version=$(call version,$@) -X k8s.io/component-base/version.gitVersion=$(KUBECTL_VERSION)' -o bin/$@ ./cmd/$@

test: free lint generated house unit e2e ## Everything CI runs

house: ## The rules of the house
	go test -count=1 ./hack/house

unit: needs systemd-analyze ## Unit and integration tests; etcd runs inside them
	go test ./cmd/... ./pkg/... ./manifests/... $$(go list ./hack/... | grep -v /hack/house)
	cd staging/api && go test ./...

lint: $(TOOLS)/golangci-lint ## go vet and golangci-lint
	go vet -tags e2e ./cmd/... ./pkg/... ./hack/... ./manifests/...
	$(TOOLS)/golangci-lint run --allow-parallel-runners --build-tags e2e ./cmd/... ./pkg/... ./hack/... ./manifests/...
	cd staging/api && $(TOOLS)/golangci-lint run --allow-parallel-runners --config $(CURDIR)/.golangci.yml ./...

generate: ## Make every generated file anew
	cd pkg/apiserver/openapi && go generate

# What is generated is committed, and equals what its sources give. Packed files are compared unpacked.
GENERATED := pkg/apiserver/openapi/definitions.gz
generated:
	@mkdir -p $(OUT)/generated && for f in $(GENERATED); do gzip -dc $$f > $(OUT)/generated/$$(basename $$f); done
	@$(MAKE) -s generate
	@for f in $(GENERATED); do gzip -dc $$f | cmp -s - $(OUT)/generated/$$(basename $$f) || \
	{ echo "$$f was not what its sources give; it is now: commit it" >&2; exit 1; }; done

$(TOOLS)/golangci-lint: hack/tools/lint/go.mod
	cd hack/tools/lint && go build -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@touch $@

# All that a cluster is started from.
needs: packages build node-images cluster $(TOOLS)/etcd $(RUNTIME_TOOLS)

up: needs ## Start a cluster on this machine; NODES=, PROXY_MODE=, POD_NETWORK=, RUNTIME=
	@$(CLUSTER) up

down: cluster ## End that cluster and leave nothing behind
	@$(CLUSTER) down

# A test starts and ends clusters of its own, so none may stand.
free: cluster
	@$(CLUSTER) free

e2e: free needs daemon-images $(TOOLS)/kubectl ## Drive a real cluster with stock kubectl, end it, and see that nothing is left
	@$(CLUSTER) census $(OUT)/census
	@CLUSTER='$(CLUSTER)' go test -tags e2e -count=1 -timeout 10m ./hack/cluster
	@code=0; { $(CLUSTER) up && go test -tags e2e -count=1 -timeout 20m -skip '^Test(Input|Stock)' ./hack/e2e && \
	go test -tags e2e -count=1 -timeout 20m $(UNSUPPORTED) ./hack/e2e/conformance $(CONFORMANCE); } || code=1; \
	$(CLUSTER) down && $(CLUSTER) same $(OUT)/census || code=1; exit $$code

e2e-all: ## The same on three nodes with what takes minutes, on the distribution's containerd and runc, on nftables with tunnels; flannel, IPVS in a guest, chaos
	$(MAKE) --no-print-directory e2e NODES=3 CONFORMANCE='-args -slow'
	$(MAKE) --no-print-directory e2e RUNTIME=distro
	$(MAKE) --no-print-directory e2e PROXY_MODE=nftables POD_NETWORK=vxlan
	$(MAKE) --no-print-directory stock flannel guest chaos crash fuzz-pods

stock: free needs stock-images $(TOOLS)/kubectl $(TOOLS)/helm ## Run programs of others, as they were published, on a cluster of their own
	@$(CLUSTER) census $(OUT)/census
	@code=0; { $(CLUSTER) up && go test -tags e2e -count=1 -timeout 8m -run '^TestStock' ./hack/e2e; } || code=1; \
	$(CLUSTER) down && $(CLUSTER) same $(OUT)/census || code=1; exit $$code

flannel: POD_NETWORK = flannel
flannel: free needs $(TOOLS)/flannel $(TOOLS)/kubectl ## Join pods by flannel, as a third party would: they reach each other and Services, and policies hold
	@$(CLUSTER) census $(OUT)/census
	@code=0; { $(CLUSTER) up && go test -tags e2e -count=1 -timeout 8m -run '^Test(Web|NetworkPolicy)$$' ./hack/e2e; } || code=1; \
	$(CLUSTER) down && $(CLUSTER) same $(OUT)/census || code=1; exit $$code

# What a kubelet and its runtime need of this machine.
GUEST_FILES := _out/tools/bin/containerd,_out/tools/bin/containerd-shim-runc-v2,_out/tools/bin/runc,_out/tools/bin/ctr,bin/apiserver,_out/images/pause.tar,_out/images/test.tar,/usr/lib/cni/bridge,/usr/lib/cni/host-local,/usr/lib/cni/loopback,/usr/lib/cni/portmap,/usr/bin/ip
# What a cluster needs besides.
CLUSTER_FILES := $(GUEST_FILES),_out/tools/bin/cluster,_out/tools/bin/etcd,_out/tools/bin/kubectl,_out/images/coredns.tar,bin/scheduler,bin/controller-manager,bin/kubelet,bin/proxy,bin/ctl,manifests/addons,Makefile,/usr/bin/make,/usr/bin/nsenter,/usr/sbin/sysctl,/usr/sbin/nft
# The same with the distribution's containerd, and its crun instead of runc.
CRUN_FILES := $(subst /runc,/crun,$(subst _out/tools/bin,/usr/bin,$(GUEST_FILES)))
CRUN_TESTS := ^Test(Unified|ARunToTheEnd|ExecAndAttach)$$
guest: needs $(TOOLS)/kubectl ## What this kernel lacks, in one that has it: every way through Services and policies by IPVS, a whole cluster in that mode, cgroups of version 2, huge pages, crun
	@command -v qemu-system-x86_64 >/dev/null || apt-get install -y --no-install-recommends qemu-system-x86
	go run ./hack/vm -run TestMatrix ./pkg/proxy
	go run ./hack/vm ./pkg/proxy/ipvs
	go run ./hack/vm -run 'TestCgroups' ./pkg/kubelet
	go run ./hack/vm -run 'TestHugePages' ./pkg/kubelet/volume
	go run ./hack/vm -memory 3072 -patience 15m -run TestUnified -with $(GUEST_FILES) ./pkg/kubelet/realtest
	GOFLAGS='$(GOFLAGS) -tags=e2e' go run ./hack/vm -memory 4096 -cpus 2 -patience 30m -run TestGuest -with $(CLUSTER_FILES) ./hack/e2e
	@dpkg -s containerd crun >/dev/null 2>&1 || apt-get install -y --no-install-recommends containerd crun
	go run ./hack/vm -memory 3072 -patience 15m -run '$(CRUN_TESTS)' -with $(CRUN_FILES) ./pkg/kubelet/realtest

chaos: ## Endpoints come and go under load for five minutes, while the proxy is killed and started again
	SEXTANT_CHAOS=5m go test -count=1 -timeout 10m -run TestChaos -v ./pkg/proxy

crash: ## Every controller dies after every write of its own, every second, third and fifth, and sees things late by chance
	SEXTANT_CRASH=all go test -count=1 -timeout 60m -run 'TestCrash|TestLag' ./pkg/controllermanager

fuzz-pods: needs ## Random pods on a real runtime for five minutes, while containers, containerd and the kubelet are killed; SEXTANT_FUZZ_SEED= repeats
	SEXTANT_FUZZ=$${SEXTANT_FUZZ:-5m} go test -count=1 -timeout 20m -run TestWFuzz -v ./pkg/kubelet/realtest

bench: needs ## Measure what the daemons cost, beside floors of the same run; BENCH=-only=apiserver,kubelet
	go run ./hack/bench $(BENCH)

bench-large: needs ## Measure a large cluster and crowds of clients, which takes many minutes
	go run ./hack/bench -only=large,crowd,controllers-large $(BENCH)

packages: # Install what is missing of the distribution's
	@dpkg -s $(PACKAGES) >/dev/null 2>&1 || apt-get install -y --no-install-recommends $(PACKAGES) || \
	{ apt-get update && apt-get install -y --no-install-recommends $(PACKAGES); }

# The units are held to systemd's own reading; a machine need not run systemd for it.
systemd-analyze:
	@command -v systemd-analyze >/dev/null || apt-get install -y --no-install-recommends systemd || \
	{ apt-get update && apt-get install -y --no-install-recommends systemd; }

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

# Flannel's package of tunnels over UDP is partly in C, and no tag leaves it out.
$(TOOLS)/flannel: hack/tools/flannel/go.mod | packages
	cd hack/tools/flannel && CGO_ENABLED=1 go build -ldflags '-s -w' -o $@ github.com/flannel-io/flannel
	@touch $@

# Programs that came as modules, at the versions of their go.mod in hack/tools.
$(TOOLS)/helm: PROGRAM = helm.sh/helm/v4/cmd/helm
$(TOOLS)/sample-apiserver: PROGRAM = k8s.io/sample-apiserver
$(TOOLS)/metrics-server: PROGRAM = sigs.k8s.io/metrics-server/cmd/metrics-server
$(TOOLS)/kube-state-metrics: PROGRAM = k8s.io/kube-state-metrics/v2
$(addprefix $(TOOLS)/,helm sample-apiserver metrics-server kube-state-metrics): $(TOOLS)/%: hack/tools/%/go.mod
	cd hack/tools/$* && go build -ldflags '-s -w' -o $@ $(PROGRAM)
	@touch $@

$(TOOLS)/prometheus-operator: hack/tools/prometheus-operator/go.mod
	cd hack/tools/prometheus-operator && go build -ldflags '-s -w' -o $@ github.com/prometheus-operator/prometheus-operator/cmd/operator
	cd hack/tools/prometheus-operator && go build -ldflags '-s -w' -o $(TOOLS)/ github.com/prometheus-operator/prometheus-operator/cmd/admission-webhook
	@touch $@

# Their manifests are the modules' own, and so are the names of their images.
stock-images: $(addprefix $(TOOLS)/,sample-apiserver metrics-server kube-state-metrics prometheus-operator etcd)
	@rm -rf $(OUT)/stock && mkdir -p $(OUT)/stock/images
	@go run ./hack/images -out $(OUT)/stock/images etcd=registry.k8s.io/etcd:v3.7.0=$(TOOLS)/etcd \
		sample-apiserver=docker.io/library/kube-sample-apiserver:latest=$(TOOLS)/sample-apiserver \
		metrics-server=gcr.io/k8s-staging-metrics-server/metrics-server:master=$(TOOLS)/metrics-server \
		kube-state-metrics=registry.k8s.io/kube-state-metrics/kube-state-metrics:v2.18.0=$(TOOLS)/kube-state-metrics \
		prometheus-operator=quay.io/prometheus-operator/prometheus-operator:v0.85.0=$(TOOLS)/prometheus-operator \
		admission-webhook=quay.io/prometheus-operator/admission-webhook:v0.85.0=$(TOOLS)/admission-webhook
	@cp -r --no-preserve=mode $$(cd hack/tools/sample-apiserver && go list -m -f '{{.Dir}}' k8s.io/sample-apiserver)/artifacts/example $(OUT)/stock/sample-apiserver
	@cp -r --no-preserve=mode $$(cd hack/tools/metrics-server && go list -m -f '{{.Dir}}' sigs.k8s.io/metrics-server)/manifests/base $(OUT)/stock/metrics-server
	@cp -r --no-preserve=mode $$(cd hack/tools/kube-state-metrics && go list -m -f '{{.Dir}}' k8s.io/kube-state-metrics/v2)/examples/standard $(OUT)/stock/kube-state-metrics
	@mkdir $(OUT)/stock/prometheus-operator && from=$$(cd hack/tools/prometheus-operator && go list -m -f '{{.Dir}}' github.com/prometheus-operator/prometheus-operator) && \
	cp -r --no-preserve=mode $$from/bundle.yaml $$from/example $(OUT)/stock/prometheus-operator

images: node-images daemon-images ## Build the images of nodes and of static pods

node-images: packages $(TOOLS)/coredns
	@mkdir -p $(OUT)/images
	@go build -ldflags '-s -w' -o $(OUT)/images/pause ./hack/images/pause
	@go build -ldflags '-s -w' -o $(OUT)/images/ ./hack/images/wget ./hack/images/tester
	@go run ./hack/images -out $(OUT)/images -test $(TEST_IMAGE)=$(OUT)/images/wget=$(OUT)/images/tester \
		pause=$(PAUSE_IMAGE)=$(OUT)/images/pause coredns=$(DNS_IMAGE)=$(TOOLS)/coredns

daemon-images: build $(TOOLS)/etcd
	@go run ./hack/images -out $(OUT)/images etcd=$(REGISTRY)/etcd:dev=$(TOOLS)/etcd \
		$(foreach d,apiserver scheduler controller-manager,$(d)=$(REGISTRY)/$(d):dev=bin/$(d))

print-pause-image:
	@echo $(PAUSE_IMAGE)

print-test-image:
	@echo $(TEST_IMAGE)

clean: ## Forget what was built
	rm -rf bin $(OUT)
