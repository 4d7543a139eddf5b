// Command wget fetches one URL, with the flags of busybox's wget that tests use. Debian's static busybox ends its own
// wget with a segmentation fault as soon as it looks up an address, so the test image holds this one in its place.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "wget:", err)
		os.Exit(1)
	}
}

func run() error {
	pflag.BoolP("quiet", "q", false, "say nothing; this one never says more than errors")
	spider := pflag.Bool("spider", false, "only see whether it is there")
	to := pflag.StringP("output-document", "O", "", "file to write to, - for stdout")
	seconds := pflag.IntP("timeout", "T", 900, "seconds after which to give up")
	pflag.Parse()
	if pflag.NArg() != 1 {
		return fmt.Errorf("want one URL, got %d", pflag.NArg())
	}
	url := pflag.Arg(0)
	if !strings.Contains(url, "://") {
		url = "http://" + url
	}
	client := http.Client{Timeout: time.Duration(*seconds) * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // the answer is read by then
	if resp.StatusCode >= 300 {
		return fmt.Errorf("server returned error: %s %s", resp.Proto, resp.Status)
	}
	if *spider {
		return nil
	}
	if *to == "-" {
		_, err = io.Copy(os.Stdout, resp.Body)
		return err
	}
	if *to == "" {
		if *to = path.Base(resp.Request.URL.Path); *to == "/" || *to == "." {
			*to = "index.html"
		}
	}
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	return os.WriteFile(*to, data, 0o644)
}
