package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"time"
)

const (
	// probed is the service that is called; the three endpoints of the others are nowhere.
	probed = "10.96.200.200:80"
	moves  = 10
)

// benchProxy holds the kernel to thousands of services: the first sync, and one endpoint of one service changed until
// packets follow. Packets are real: the probed service's endpoints are addresses of this node where this program listens
// and answers with the address that was reached. The floor puts the same table into the kernel with one iptables-restore.
func benchProxy(b *bench) error {
	p, err := startPlane(b)
	if err != nil {
		return err
	}
	if err := fillServices(b, p); err != nil {
		return err
	}
	if err := answer(); err != nil {
		return err
	}
	begun := time.Now()
	d, err := startProxy(b, p, "iptables", "none")
	if err != nil {
		return err
	}
	// The profile's request needs the port, which is served before the tables are written.
	if b.profiles != "" {
		time.Sleep(50 * time.Millisecond)
	}
	done := b.profile("first", d)
	if err := await("packets follow", time.Minute, func() error { _, err := reach(); return err }); err != nil {
		return fmt.Errorf("%w\n%s", err, d.tail())
	}
	first := cost{CPU: d.cpu(), Wall: time.Since(begun)}
	done()
	time.Sleep(2 * time.Second)
	memory := d.rss()
	done = b.profile("move", d, p.api)
	ours, err := meter(moves, d, p.servers(), times(moves, func(i int) error {
		to := fmt.Sprintf("192.0.2.%d", 20+i)
		if err := p.patch("/apis/discovery.k8s.io/v1/namespaces/bench/endpointslices/probed", slicePatch(to)); err != nil {
			return err
		}
		return await("packets to "+to, 30*time.Second, func() error {
			at, err := reach()
			if err == nil && at != to {
				err = fmt.Errorf("they go to %s", at)
			}
			return err
		})
	}))
	done()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, d.tail())
	}
	least, err := bareRestore()
	if err != nil {
		return err
	}
	b.add(row{Work: fmt.Sprintf("iptables, first sync of %d x 3", b.services), Ours: first, Floor: least, By: byWall})
	b.add(row{Work: "iptables, one endpoint changed", Ours: ours, Floor: least, By: byWall, Goal: "0.2s", Upstream: "0.26s, 76ms cpu"})
	b.add(row{Work: fmt.Sprintf("RSS, %d services", b.services), Value: mb(memory), Goal: "60 MB", Upstream: "131-192 MB"})
	return nil
}

// fillServices makes the services, and the slices that a controller would make of their pods.
func fillServices(b *bench, p *plane) error {
	make := func(name, address string, slice object) error {
		service := object{"apiVersion": "v1", "kind": "Service", "metadata": object{"name": name}, "spec": object{
			"ports": []object{{"name": "http", "port": 80, "targetPort": 8080}},
		}}
		if address != "" {
			service["spec"].(object)["clusterIP"] = address
		}
		if err := p.create("/api/v1/namespaces/bench/services", service); err != nil {
			return err
		}
		slice["apiVersion"], slice["kind"], slice["addressType"] = "discovery.k8s.io/v1", "EndpointSlice", "IPv4"
		slice["metadata"] = object{"name": name, "labels": object{"kubernetes.io/service-name": name}}
		slice["ports"] = []object{{"name": "http", "port": 8080, "protocol": "TCP"}}
		return p.create("/apis/discovery.k8s.io/v1/namespaces/bench/endpointslices", slice)
	}
	if err := make("probed", strings.TrimSuffix(probed, ":80"), object{"endpoints": endpoints("192.0.2.11", "192.0.2.12", "192.0.2.13")}); err != nil {
		return err
	}
	return parallel(b.services-1, 8, func(i int) error {
		at := func(n int) string { return fmt.Sprintf("10.%d.%d.%d", 128+n, i/250, 1+i%250) }
		return make(fmt.Sprintf("s%05d", i), "", object{"endpoints": endpoints(at(0), at(1), at(2))})
	})()
}

func endpoints(addresses ...string) []object {
	var all []object
	for _, a := range addresses {
		all = append(all, object{"addresses": []string{a}, "conditions": object{"ready": true}, "nodeName": "bench"})
	}
	return all
}

// slicePatch puts another first endpoint beside the two that stay.
func slicePatch(to string) string {
	return fmt.Sprintf(`{"endpoints":[{"addresses":[%q],"conditions":{"ready":true},"nodeName":"bench"},`+
		`{"addresses":["192.0.2.12"],"conditions":{"ready":true},"nodeName":"bench"},`+
		`{"addresses":["192.0.2.13"],"conditions":{"ready":true},"nodeName":"bench"}]}`, to)
}

// answer gives the node the endpoints' addresses, and says to each caller which of them was reached, for as long as the
// section runs.
func answer() error {
	for i := 11; i < 20+moves; i++ {
		if text, err := exec.Command("ip", "addr", "add", fmt.Sprintf("192.0.2.%d/32", i), "dev", "bench0").CombinedOutput(); err != nil {
			return fmt.Errorf("ip addr add: %w: %s", err, text)
		}
	}
	l, err := net.Listen("tcp4", "0.0.0.0:8080")
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(c.LocalAddr().String())
			_, _ = io.WriteString(c, host) // a caller that has gone needs no answer
			_ = c.Close()
		}
	}()
	return nil
}

// reach calls the probed service and answers where the call arrived.
func reach() (string, error) {
	c, err := net.DialTimeout("tcp4", probed, 50*time.Millisecond)
	if err != nil {
		return "", err
	}
	defer c.Close() //nolint:errcheck // only read
	text, err := io.ReadAll(c)
	return string(text), err
}

// bareRestore measures swapping the whole table in the kernel for itself.
func bareRestore() (cost, error) {
	table, err := exec.Command("iptables-legacy-save", "-t", "nat").Output()
	if err != nil {
		return cost{}, fmt.Errorf("iptables-legacy-save: %w", err)
	}
	const rounds = 3
	return meter(rounds, driver, nil, times(rounds, func(int) error {
		cmd := exec.Command("iptables-legacy-restore")
		cmd.Stdin = bytes.NewReader(table)
		if text, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("iptables-legacy-restore: %w: %s", err, text)
		}
		return nil
	}))
}

// contains tells whether JSON holds a piece, whatever its blanks.
func contains(text []byte, piece string) bool {
	return bytes.Contains(bytes.ReplaceAll(text, []byte(": "), []byte(":")), []byte(piece))
}
