# Targets are listed by `make help`. Flags are the same everywhere, so that one build cache serves all.
export GOFLAGS := -trimpath -buildvcs=false
export CGO_ENABLED := 0

OUT    := $(CURDIR)/_out
TOOLS  := $(OUT)/tools/bin
DAEMONS := $(notdir $(wildcard cmd/*))

# A component's version is its own newest tag (apiserver/v1.2.3), or v0.1.0-dev before the first.
version = $(shell git describe --tags --match '$(1)/v*' --abbrev=8 2>/dev/null | sed 's|^$(1)/||' | grep . || echo v0.1.0-dev)

.PHONY: help build test house lint unit clean $(DAEMONS)

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

clean: ## Forget what was built
	rm -rf bin $(OUT)
