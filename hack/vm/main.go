// Command vm runs a package's tests in a guest whose kernel has what the host's lacks: IPVS, cgroups of version 2, huge pages, and modules at all.
//
//	vm [-run regexp] [-with path,path] ./pkg/proxy/ipvs
//
// Flow: Debian's cloud kernel is fetched once into _out/vm with apt-get download; the test binary, busybox, the modules asked for
// and those that they need go into an initramfs; qemu boots it without KVM; init loads the modules and runs the tests, and says
// on the serial line how they ended. With files of the host's (-with) the guest has a disk that holds them, and begins there. Nothing of it needs the network, and the guest sees nothing of the host.
package main

import (
	"bufio"
	"bytes"
	"debug/elf"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	out = "_out/vm"
	// said is what init prints before the tests' exit code.
	said = "sextant-vm-exit:"
	// patience is how long a guest may take; an idle machine needs ten seconds.
	patience = 5 * time.Minute
	// mounts are what programs look for, and how tests know where they are.
	mounts = "export SEXTANT_GUEST=1\nmount -t proc proc /proc\nmount -t sysfs sys /sys\nmount -t devtmpfs dev /dev\nmount -t cgroup2 cgroup2 /sys/fs/cgroup\necho 8 > /proc/sys/vm/nr_hugepages\n" +
		"mount -t tmpfs run /run\n"
)

// wanted are modules that tests of packets and links need; a kernel may have some built in.
const wanted = "ip_vs ip_vs_rr ip_vs_wrr ip_vs_lc ip_vs_wlc ip_vs_sh dummy bridge br_netfilter veth vxlan nf_conntrack nf_tables nft_ct nft_masq nft_nat nft_chain_nat " +
	"nft_fib_ipv4 nft_fib_ipv6 nft_fib nft_reject_ipv4 nft_reject_ipv6 nft_reject nft_numgen nf_conntrack_netlink nfnetlink " +
	"virtio_pci virtio_blk ext4 crc32c_generic overlay"

func main() {
	run := flag.String("run", "", "which tests to run, as go test -run")
	cpu := flag.Bool("cpu", false, "begin each line with the seconds of CPU that the guest has used: its own clock runs on while the host does other work")
	with := flag.String("with", "", "files and folders the tests need, comma separated: of the repository, or absolute")
	memory := flag.Int("memory", 1024, "the guest's memory, MiB")
	cpus := flag.Int("cpus", 1, "the guest's processors")
	limit := flag.Duration("patience", patience, "how long the guest may take")
	kernel := flag.String("kernel", "", "folder with boot/vmlinuz-* and lib/modules; empty fetches Debian's")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "vm: name one package, like ./pkg/proxy/ipvs")
		os.Exit(2)
	}
	g := guest{cpu: *cpu, cpus: *cpus, memory: *memory, limit: *limit}
	if *with != "" {
		g.with = strings.Split(*with, ",")
	}
	code, err := g.test(flag.Arg(0), *run, *kernel)
	if err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err)
		os.Exit(1)
	}
	os.Exit(code)
}

// guest is what a run is like.
type guest struct {
	cpu    bool
	cpus   int
	memory int // MiB
	limit  time.Duration
	with   []string
	// disk is the image the guest begins on; empty is none.
	disk string
}

func (g guest) test(pkg, run, kernel string) (int, error) {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return 0, err
	}
	if kernel == "" {
		kernel = filepath.Join(out, "kernel")
		if err := fetch(kernel); err != nil {
			return 0, err
		}
	}
	images, err := filepath.Glob(filepath.Join(kernel, "boot", "vmlinuz-*"))
	if err != nil || len(images) == 0 {
		return 0, fmt.Errorf("no kernel in %s", kernel)
	}
	dir, err := os.MkdirTemp(out, "run-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a folder of _out
	binary := filepath.Join(dir, "test")
	build := exec.Command("go", "test", "-c", "-o", binary, pkg)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build the tests: %w: %s", err, text)
	}
	release := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	image := filepath.Join(dir, "initramfs")
	if len(g.with) > 0 {
		if g.disk, err = root(dir, pkg, binary, run, g.with); err != nil {
			return 0, err
		}
	}
	if err := pack(image, kernel, release, binary, run, g.disk != ""); err != nil {
		return 0, err
	}
	return g.boot(images[0], image)
}

// fetch gets Debian's kernel, which a distribution's own package brings; it is unpacked, not installed.
func fetch(into string) error {
	if found, _ := filepath.Glob(filepath.Join(into, "boot", "vmlinuz-*")); len(found) > 0 { // the pattern is well-formed
		return nil
	}
	if err := os.MkdirAll(into, 0o755); err != nil {
		return err
	}
	script := `set -e
cd "$1"
name=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9][^ ]*\).*/\1/p' | head -1)
apt-get download "$name"
dpkg-deb -x linux-image-*.deb .
rm linux-image-*.deb`
	if text, err := exec.Command("sh", "-c", script, "sh", into).CombinedOutput(); err != nil {
		return fmt.Errorf("fetch Debian's linux-image-cloud-amd64: %w: %s", err, text)
	}
	return nil
}

// modules answers the files of the wanted modules, each after those it needs.
func modules(kernel, release string) ([]string, error) {
	files := map[string]string{}
	root := filepath.Join(kernel, "lib", "modules", release)
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if name, ok := strings.CutSuffix(filepath.Base(path), ".ko"); ok {
			files[strings.ReplaceAll(name, "-", "_")] = path
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var ordered []string
	done := map[string]bool{}
	var add func(string) error
	add = func(name string) error {
		path, there := files[name]
		if done[name] || !there {
			return nil // built into the kernel
		}
		done[name] = true
		needs, err := depends(path)
		if err != nil {
			return err
		}
		for _, n := range needs {
			if err := add(n); err != nil {
				return err
			}
		}
		ordered = append(ordered, path)
		return nil
	}
	for _, name := range strings.Fields(wanted) {
		if err := add(name); err != nil {
			return nil, err
		}
	}
	return ordered, nil
}

// depends reads which modules a module needs from the module itself.
func depends(path string) ([]string, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read module %s: %w", path, err)
	}
	defer f.Close() //nolint:errcheck // only read
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("%s is not a module", path)
	}
	text, err := section.Data()
	if err != nil {
		return nil, fmt.Errorf("read module %s: %w", path, err)
	}
	for _, word := range strings.Split(string(text), "\x00") {
		if names, ok := strings.CutPrefix(word, "depends="); ok && names != "" {
			return strings.Split(strings.ReplaceAll(names, "-", "_"), ","), nil
		}
	}
	return nil, nil
}

// pack writes the initramfs: a cpio archive in the "newc" form.
func pack(path, kernel, release, binary, run string, disk bool) error {
	files, err := modules(kernel, release)
	if err != nil {
		return err
	}
	var a archive
	for _, dir := range []string{"proc", "sys", "dev", "tmp", "run", "bin", "sbin", "mod"} {
		a.add(dir, 0o040755, nil)
	}
	init := "#!/bin/busybox sh\nexport PATH=/bin:/sbin\n/bin/busybox --install -s /bin\n" + mounts + "mount -t tmpfs tmp /tmp\n"
	if disk {
		init = "#!/bin/busybox sh\nexport PATH=/bin:/sbin\n/bin/busybox --install -s /bin\nmount -t devtmpfs dev /dev\n"
	}
	for i, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("mod/%03d-%s", i, filepath.Base(file))
		a.add(name, 0o100644, text)
		init += "insmod /" + name + "\n"
	}
	rest := map[string]string{"bin/busybox": "/bin/busybox"}
	if disk {
		init += "mkdir /new && mount -t ext4 /dev/vda /new && umount /dev && exec switch_root /new /start\n"
	} else {
		rest["test"] = binary
		init += "cd /tmp && /test -test.v -test.run '" + strings.ReplaceAll(run, "'", "") + "'\necho " + said + "$?\npoweroff -f\n"
	}
	a.add("init", 0o100755, []byte(init))
	for name, from := range rest {
		text, err := os.ReadFile(from)
		if err != nil {
			return fmt.Errorf("%w; install the package busybox-static", err)
		}
		a.add(name, 0o100755, text)
	}
	a.add("TRAILER!!!", 0, nil)
	return os.WriteFile(path, a.Bytes(), 0o644)
}

// archive is a cpio archive being made.
type archive struct {
	bytes.Buffer
	inode int
}

func (a *archive) add(name string, mode int, text []byte) {
	a.inode++
	fmt.Fprintf(a, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", a.inode, mode, 0, 0, 1, 0, len(text), 0, 0, 0, 0, len(name)+1, 0)
	a.WriteString(name + "\x00")
	a.pad()
	a.Write(text)
	a.pad()
}

func (a *archive) pad() { a.Write(make([]byte, (4-a.Len()%4)%4)) }

// boot runs the guest, shows what the tests say, and answers their exit code.
func (g guest) boot(kernel, initramfs string) (int, error) {
	cmd := exec.Command("qemu-system-x86_64", "-M", "q35", "-accel", "tcg", "-cpu", "max", "-m", strconv.Itoa(g.memory), "-smp", strconv.Itoa(g.cpus), "-nodefaults", "-display", "none", "-serial", "stdio", "-net", "none",
		"-no-reboot", "-kernel", kernel, "-initrd", initramfs, "-append", "console=ttyS0 quiet panic=-1 rdinit=/init")
	if g.disk != "" {
		cmd.Args = append(cmd.Args, "-drive", "if=none,id=root,format=raw,cache=unsafe,file="+g.disk, "-device", "virtio-blk-pci,drive=root")
	}
	serial, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start qemu: %w; install the package qemu-system-x86", err)
	}
	stop := time.AfterFunc(g.limit, func() { _ = cmd.Process.Kill() })
	defer stop.Stop()
	code := -1
	lines := bufio.NewReader(serial)
	for {
		line, err := lines.ReadString('\n')
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), said); ok {
			if _, err := fmt.Sscan(rest, &code); err != nil {
				return 0, fmt.Errorf("the guest said %q: %w", line, err)
			}
		} else if g.cpu && line != "" {
			fmt.Printf("%7.2f %s", used(cmd.Process.Pid), line)
		} else {
			fmt.Print(line)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, err
		}
	}
	if err := cmd.Wait(); err != nil && code < 0 {
		return 0, fmt.Errorf("the guest ended: %w", err)
	}
	if code < 0 {
		return 0, fmt.Errorf("the guest ended, or took more than %v, and the tests said nothing", g.limit)
	}
	return code, nil
}

// used is how many seconds of CPU a process has had; 0 where the kernel does not say.
func used(pid int) float64 {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name, which may hold anything, ends with the last bracket; the two counts are the 12th and 13th words after it, in hundredths.
	words := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var user, system float64
	if len(words) < 13 {
		return 0
	}
	_, err = fmt.Sscan(words[11]+" "+words[12], &user, &system)
	if err != nil {
		return 0
	}
	return (user + system) / 100
}
