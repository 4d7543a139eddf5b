package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// probed is the service that is called; the three endpoints of the others are nowhere.
	probed = "10.96.200.200:80"
	moves  = 10
)

// dials is how many first packets are timed; a tenth of them are quicker than what is told, which other work on the machine moves least.
const dials = 1000

// floors put a whole ruleset into the kernel by the tools alone, by mode.
var floors = map[string]func() (cost, error){"iptables": bareRestore, "nftables": bareLoad}

// benchProxy holds the kernel to more and more services, in each mode: the first sync, one endpoint of one service changed until
// packets follow, and what a first packet takes. Packets are real: the probed service's endpoints are addresses of this node where this program
// listens and answers with the address that was reached. The floor puts the same rules into the kernel once, with the mode's own tool.
func benchProxy(b *bench) error {
	p, err := startPlane(b)
	if err != nil {
		return err
	}
	if err := answer(); err != nil {
		return err
	}
	filled := 0
	for _, services := range []int{10, b.services / 5, b.services, 2 * b.services} {
		if err := fillServices(p, filled, services, 3); err != nil {
			return err
		}
		filled = services
		for _, mode := range []string{"iptables", "nftables"} {
			if err := benchMode(b, p, mode, services, 3); err != nil {
				return fmt.Errorf("%s, %d services: %w", mode, services, err)
			}
		}
	}
	return nil
}

// benchServices is the same of a very large cluster, in the mode for it.
func benchServices(b *bench) error {
	p, err := startPlane(b)
	if err != nil {
		return err
	}
	if err := answer(); err != nil {
		return err
	}
	// 45,000 services with 250,000 endpoints in all.
	const services, few, many = 45_000, 20_000, 5
	if err := fillServices(p, 0, few, many); err != nil {
		return err
	}
	if err := fillServices(p, few, services, many+1); err != nil {
		return err
	}
	return benchMode(b, p, "nftables", services, many)
}

// benchMode measures one mode at one number of services, and leaves no rules.
func benchMode(b *bench, p *plane, mode string, services, endpoints int) error {
	// An earlier turn left the first endpoint elsewhere.
	if err := p.patch("/apis/discovery.k8s.io/v1/namespaces/bench/endpointslices/probed", slicePatch("192.0.2.11")); err != nil {
		return err
	}
	begun := time.Now()
	d, err := startProxy(b, p, mode, "none")
	if err != nil {
		return err
	}
	// The profile's request needs the port, which is served before the tables are written.
	if b.profiles != "" {
		time.Sleep(50 * time.Millisecond)
	}
	done := b.profile(fmt.Sprint(mode, "-first-", services), d)
	if err := await("packets follow", time.Minute, func() error { _, err := reach(); return err }); err != nil {
		return fmt.Errorf("%w\n%s", err, d.tail())
	}
	first := cost{CPU: d.cpu(), Wall: time.Since(begun)}
	done()
	// The heap of starting goes back a second after all is written, the other family and what another mode left, too.
	time.Sleep(5 * time.Second)
	memory, anonymous := d.rss(), d.anonymous()
	done = b.profile(fmt.Sprint(mode, "-move-", services), d, p.api)
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
	packet, err := firstPacket()
	if err != nil {
		return err
	}
	least, err := floors[mode]()
	if err != nil {
		return err
	}
	d.stop()
	if text, err := exec.Command(filepath.Join(b.bin, "proxy"), "--cleanup", "--proxy-mode", mode, "--pod-network", "none").CombinedOutput(); err != nil {
		return fmt.Errorf("clean up: %w: %s", err, text)
	}
	goals := map[string][3]string{
		"iptables5000":   {"", "0.2s", "0.26s, 76ms cpu"},
		"nftables5000":   {"1s", "15ms, 2ms cpu", "1.44s, 214ms cpu"},
		"iptables10000":  {"3s", "", ""},
		"nftables10000":  {"2s", "15ms, 2ms cpu", ""},
		"iptables10000m": {"80 MB", "", ""}, "nftables10000m": {"80 MB", "", ""}, "iptables5000m": {"60 MB", "131-192 MB", ""}, "nftables5000m": {"60 MB", "131-192 MB", ""},
	}
	key := fmt.Sprint(mode, services)
	b.add(row{Work: fmt.Sprintf("%s, first sync of %d x %d", mode, services, endpoints), Ours: first, Floor: least, By: byWall, Goal: goals[key][0], Line: mode + " first sync", At: services})
	b.add(row{Work: mode + ", one endpoint changed", Ours: ours, Floor: least, By: byWall, Goal: goals[key][1], Upstream: goals[key][2], Line: mode + " one endpoint changed", At: services})
	b.add(row{Work: mode + ", a first packet and its answer", Ours: cost{Wall: packet}})
	b.add(row{Work: fmt.Sprintf("%s, RSS (anonymous)", mode), Value: mb(memory) + " (" + mb(anonymous) + ")", Goal: goals[key+"m"][0], Upstream: goals[key+"m"][1]})
	return nil
}

// firstPacket answers the time of connecting to the probed service.
func firstPacket() (time.Duration, error) {
	all := make([]time.Duration, 0, dials)
	for range dials {
		begun := time.Now()
		c, err := net.DialTimeout("tcp4", probed, time.Second)
		if err != nil {
			return 0, err
		}
		all = append(all, time.Since(begun))
		_, _ = io.Copy(io.Discard, c) // until it has said who it is
		_ = c.Close()
	}
	slices.Sort(all)
	return all[len(all)/10], nil
}

// fillServices makes the services from one number up to another, and the slices that a controller would make of their pods. The first is the probed one.
func fillServices(p *plane, from, to, ends int) error {
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
	if from == 0 {
		from = 1
		if err := make("probed", strings.TrimSuffix(probed, ":80"), object{"endpoints": endpoints("192.0.2.11", "192.0.2.12", "192.0.2.13")}); err != nil {
			return err
		}
	}
	return parallel(to-from, 8, func(i int) error {
		n := from + i
		var at []string
		for e := range ends {
			at = append(at, fmt.Sprintf("10.%d.%d.%d", 128+e, n/250, 1+n%250))
		}
		return make(fmt.Sprintf("s%05d", n), "", object{"endpoints": endpoints(at...)})
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

// bareLoad measures what nft takes to load the ruleset that the kernel holds, after flushing it, in one transaction.
func bareLoad() (cost, error) {
	rules, err := exec.Command("nft", "list", "ruleset").Output()
	if err != nil {
		return cost{}, fmt.Errorf("nft list ruleset: %w", err)
	}
	kept := append([]byte("flush ruleset\n"), rules...)
	const rounds = 3
	return meter(rounds, driver, nil, times(rounds, func(int) error {
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = bytes.NewReader(kept)
		if text, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("nft -f: %w: %s", err, text)
		}
		return nil
	}))
}

// contains tells whether JSON holds a piece, whatever its blanks.
func contains(text []byte, piece string) bool {
	return bytes.Contains(bytes.ReplaceAll(text, []byte(": "), []byte(":")), []byte(piece))
}
