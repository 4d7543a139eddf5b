module github.com/sextant-k8s/sextant/hack/tools/etcd

go 1.26.0
