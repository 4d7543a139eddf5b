// Command images writes the images of the one-machine cluster as OCI archives, without a registry or a Docker daemon.
//
//	images -out <folder> [-test <image>=<program>=<program>...] [<file>=<image>=<program>]...
//
// An image is one layer made from a list of files, so that a node can import it and a test can trust what is in it. Most
// hold one static program, which is their entry point; the test image is the machine's busybox.
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// entry is one file of a layer: a copy of a file of this machine, a link, or a folder.
type entry struct {
	path, from, link string
	dir              bool
	mode             int64
}

// image is what an archive holds.
type image struct {
	name       string
	entrypoint []string
	cmd        []string
	files      []entry
}

func main() {
	out := flag.String("out", "_out/images", "where the archives are written")
	test := flag.String("test", "", "name of the test image and the programs it holds in place of busybox's or beside them, <image>=<program>=<program>")
	flag.Parse()
	if err := run(*out, *test, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func run(out, test string, programs []string) error {
	images := map[string]image{}
	if part := strings.Split(test, "="); test != "" {
		box, err := busybox(part[0], part[1:])
		if err != nil {
			return err
		}
		images["test"] = box
	}
	for _, p := range programs {
		part := strings.Split(p, "=")
		if len(part) != 3 {
			return fmt.Errorf("want <file>=<image>=<program>, got %q", p)
		}
		program := filepath.Base(part[2])
		images[part[0]] = image{name: part[1], entrypoint: []string{"/" + program}, files: []entry{{path: program, from: part[2], mode: 0o755}}}
	}
	return write(out, images)
}

// write makes the archives, one for each name.
func write(out string, images map[string]image) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	for file, i := range images {
		data, err := i.archive()
		if err != nil {
			return fmt.Errorf("image %s: %w", i.name, err)
		}
		if err := os.WriteFile(filepath.Join(out, file+".tar"), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// busybox is the test image: the machine's static busybox under every name it answers to, but for those of the programs.
func busybox(name string, programs []string) (image, error) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return image{}, fmt.Errorf("busybox-static is not installed: %w", err)
	}
	names, err := exec.Command(path, "--list").Output()
	if err != nil {
		return image{}, fmt.Errorf("ask busybox for its names: %w", err)
	}
	files := []entry{{path: "bin", dir: true, mode: 0o755}, {path: "bin/busybox", from: path, mode: 0o755}}
	taken := map[string]bool{"busybox": true}
	for _, p := range programs {
		taken[filepath.Base(p)] = true
		files = append(files, entry{path: "bin/" + filepath.Base(p), from: p, mode: 0o755})
	}
	for _, n := range strings.Fields(string(names)) {
		if !taken[n] {
			files = append(files, entry{path: "bin/" + n, link: "/bin/busybox"})
		}
	}
	for _, d := range []string{"dev", "etc", "proc", "sys", "tmp", "var"} {
		files = append(files, entry{path: d, dir: true, mode: 0o755})
	}
	return image{name: name, cmd: []string{"sh"}, files: files}, nil
}

// layer is the tar of the image's files.
func (i image) layer() ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range i.files {
		var data []byte
		h := &tar.Header{Name: f.path, Mode: f.mode, Typeflag: tar.TypeReg}
		switch {
		case f.dir:
			h.Typeflag = tar.TypeDir
		case f.link != "":
			h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.link, 0o777
		default:
			var err error
			if data, err = os.ReadFile(f.from); err != nil {
				return nil, err
			}
			h.Size = int64(len(data))
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

type object map[string]any

// archive is the image as a tar of an OCI layout: blobs by digest, and an index that names the image.
func (i image) archive() ([]byte, error) {
	layer, err := i.layer()
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	put := func(name string, data []byte) error {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data)), Typeflag: tar.TypeReg}); err != nil {
			return err
		}
		_, err := w.Write(data)
		return err
	}
	blob := func(mediaType string, data []byte) (object, error) {
		sum := sha256.Sum256(data)
		digest := hex.EncodeToString(sum[:])
		return object{"mediaType": mediaType, "digest": "sha256:" + digest, "size": len(data)}, put("blobs/sha256/"+digest, data)
	}
	layerRef, err := blob("application/vnd.oci.image.layer.v1.tar", layer)
	if err != nil {
		return nil, err
	}
	config, err := json.Marshal(object{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": object{"Entrypoint": i.entrypoint, "Cmd": i.cmd, "Env": []string{"PATH=/bin"}},
		"rootfs": object{"type": "layers", "diff_ids": []any{layerRef["digest"]}},
	})
	if err != nil {
		return nil, err
	}
	configRef, err := blob("application/vnd.oci.image.config.v1+json", config)
	if err != nil {
		return nil, err
	}
	manifest, err := json.Marshal(object{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": configRef, "layers": []any{layerRef},
	})
	if err != nil {
		return nil, err
	}
	ref, err := blob("application/vnd.oci.image.manifest.v1+json", manifest)
	if err != nil {
		return nil, err
	}
	ref["annotations"] = object{"io.containerd.image.name": i.name, "org.opencontainers.image.ref.name": i.name}
	index, err := json.Marshal(object{"schemaVersion": 2, "manifests": []any{ref}})
	if err != nil {
		return nil, err
	}
	if err := put("index.json", index); err != nil {
		return nil, err
	}
	if err := put("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}
