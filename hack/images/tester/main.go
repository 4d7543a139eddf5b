// Command tester is what the pods of end-to-end tests run where busybox is not enough.
//
//	tester serve [-http 8080] [-udp 8081] [-grpc 5000] [-tls 0 [-pair folder]] [-fail-after 10s] [-delay 0s]
//	tester lookup [-type host|cname|srv|ptr] <name>
//	tester fetch [-method GET] [-timeout 2s] [-times 1] [-insecure] [-bearer <file>] <url>
//	tester ask [-timeout 2s] <host:port> <words>      one datagram, and the answer to it
//
// Every server answers in words a shell can compare; nothing is kept between requests but what GET /seen counts.
package main

import (
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
)

func main() {
	verbs := map[string]func([]string) error{"serve": serve, "lookup": lookup, "fetch": fetch, "ask": ask}
	if len(os.Args) < 2 || verbs[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "tester: want one of serve, lookup, fetch, ask")
		os.Exit(2)
	}
	if err := verbs[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "tester:", err)
		os.Exit(1)
	}
}

// lookup prints what a name stands for, sorted, one answer a line; the pod's resolv.conf decides where and how it is asked.
func lookup(args []string) error {
	flags := flag.NewFlagSet("lookup", flag.ExitOnError)
	kind := flags.String("type", "host", "host, cname, srv or ptr")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var found []string
	var err error
	switch name := flags.Arg(0); *kind {
	case "host":
		found, err = net.LookupHost(name)
	case "ptr":
		found, err = net.LookupAddr(name)
	case "cname":
		var one string
		one, err = net.LookupCNAME(name)
		found = []string{one}
	case "srv":
		var all []*net.SRV
		_, all, err = net.LookupSRV("", "", name)
		for _, s := range all {
			found = append(found, fmt.Sprintf("%s:%d", s.Target, s.Port))
		}
	default:
		return fmt.Errorf("type %q is not known", *kind)
	}
	if err != nil {
		return err
	}
	slices.Sort(found)
	fmt.Println(strings.Join(found, "\n"))
	return nil
}

// fetch prints the bodies of answers, one a line; what is refused is an error, whatever its code.
func fetch(args []string) error {
	flags := flag.NewFlagSet("fetch", flag.ExitOnError)
	method := flags.String("method", http.MethodGet, "method of the request")
	timeout := flags.Duration("timeout", 2*time.Second, "how long one request may take")
	times := flags.Int("times", 1, "how many requests, each over a connection of its own")
	insecure := flags.Bool("insecure", false, "believe any certificate")
	bearer := flags.String("bearer", "", "file of the token to be known by")
	if err := flags.Parse(args); err != nil {
		return err
	}
	authorization := ""
	if *bearer != "" {
		token, err := os.ReadFile(*bearer)
		if err != nil {
			return err
		}
		authorization = "Bearer " + string(token)
	}
	client := http.Client{Timeout: *timeout, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: *insecure},
	}}
	for range *times {
		req, err := http.NewRequest(*method, flags.Arg(0), nil)
		if err != nil {
			return err
		}
		if authorization != "" {
			req.Header.Set("Authorization", authorization)
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			return err
		}
		if resp.StatusCode >= 300 {
			return fmt.Errorf("%s: %s", resp.Status, body)
		}
		fmt.Println(strings.TrimSpace(string(body)))
	}
	return nil
}

// ask sends one datagram and prints the answer.
func ask(args []string) error {
	flags := flag.NewFlagSet("ask", flag.ExitOnError)
	timeout := flags.Duration("timeout", 2*time.Second, "how long to wait for the answer")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 2 {
		return errors.New("want an address and what to say")
	}
	conn, err := net.Dial("udp", flags.Arg(0))
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(*timeout)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte(flags.Arg(1))); err != nil {
		return err
	}
	buf := make([]byte, 2048)
	n, err := conn.Read(buf)
	if err != nil {
		return err
	}
	fmt.Println(string(buf[:n]))
	return nil
}
