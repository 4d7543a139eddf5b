package kubelet

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"

	"golang.org/x/sys/unix"

	"github.com/sextant-k8s/sextant/pkg/kubelet/lifecycle"
	"github.com/sextant-k8s/sextant/pkg/kubelet/metrics"
)

const cgroupMount = "/sys/fs/cgroup"

// defaultPeriod is the kernel's, microseconds.
const defaultPeriod = 100000

// cgroups keeps the tree <root>/kubepods[/burstable|/besteffort]/pod<uid>, on cgroup v1 in every controller's
// hierarchy, on v2 in the one. A controller the machine lacks, or forbids us, is left out with one warning: pods run
// without that limit rather than not at all.
type cgroups struct {
	root string
	// slices is systemd, where that keeps the cgroups; nil where they are ours.
	slices *systemd
	v2     bool
	log    *slog.Logger
	// metrics may be nil.
	metrics *metrics.Set
	// unbounded tells whether a pod has CPUs of its own, on which nothing holds it back.
	unbounded func(uid string) bool
	// pids is how many processes a pod may have, 0 is any number; period is the kernel's for cpu limits in microseconds, 0 is
	// to set none.
	pids, period int64
	// flat: pods have no cgroups of their own; their containers lie side by side in the root.
	flat bool
	// changed: a pod's cgroup has come or gone, and with it what its class asks for.
	changed func()

	// folders are hierarchies' and controllers' answers: what is mounted does not change under a kubelet.
	folders struct {
		once             sync.Once
		written, mounted []string
	}

	mu     sync.Mutex
	warned map[string]bool
}

func newCgroups(root, driver string, log *slog.Logger) *cgroups {
	var st unix.Statfs_t
	v2 := unix.Statfs(cgroupMount, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
	if root == "" {
		root = "/"
	}
	c := &cgroups{root: root, v2: v2, period: defaultPeriod, changed: func() {}, log: log, warned: map[string]bool{}}
	if driver == "systemd" {
		c.slices = &systemd{dial: dialSystemd}
	}
	return c
}

// controllers are the hierarchies written to, as folders.
func (c *cgroups) controllers() []string {
	c.folders.once.Do(c.find)
	return c.folders.written
}

// hierarchies are all there are: a runtime makes the pod's cgroup in more of them than we set limits in.
func (c *cgroups) hierarchies() []string {
	c.folders.once.Do(c.find)
	return c.folders.mounted
}

func (c *cgroups) find() {
	f := &c.folders
	if c.v2 {
		f.written, f.mounted = []string{cgroupMount}, []string{cgroupMount}
		return
	}
	for _, n := range []string{"cpu", "memory", "pids", "cpuset", "cpuacct", "blkio", "devices", "freezer", "hugetlb", "systemd"} {
		dir := filepath.Join(cgroupMount, n)
		if st, err := os.Stat(dir); err == nil && st.IsDir() {
			f.written = append(f.written, dir)
		}
	}
	entries, err := os.ReadDir(cgroupMount)
	if err != nil {
		f.mounted = f.written
		return
	}
	for _, e := range entries {
		if e.IsDir() {
			f.mounted = append(f.mounted, filepath.Join(cgroupMount, e.Name()))
		}
	}
}

func (c *cgroups) path(pod *v1.Pod) string {
	return filepath.Join(c.root, "kubepods", classDir(lifecycle.QOS(pod)), "pod"+string(pod.UID))
}

func classDir(q v1.PodQOSClass) string {
	if q == v1.PodQOSGuaranteed {
		return ""
	}
	return strings.ToLower(string(q))
}

// Parent is the cgroup in which the runtime makes the pod's own.
func (c *cgroups) Parent(pod *v1.Pod) string {
	if c.flat {
		return c.root
	}
	if c.slices == nil {
		return c.path(pod)
	}
	return podSlice(classDir(lifecycle.QOS(pod)), string(pod.UID))
}

// podSlice is the name of a pod's slice.
func podSlice(class, uid string) string {
	return strings.TrimSuffix(classSlice(class), ".slice") + "-pod" + strings.ReplaceAll(uid, "-", "_") + ".slice"
}

// classSlice is that of a class, "" of all pods.
func classSlice(class string) string {
	if class == "" {
		return "kubepods.slice"
	}
	return "kubepods-" + class + ".slice"
}

// Create makes the pod's cgroup and writes its limits; doing so again changes nothing.
func (c *cgroups) Create(pod *v1.Pod) error {
	if c.flat {
		return nil
	}
	defer c.timed("create", time.Now())
	defer c.changed()
	if c.slices != nil {
		if err := c.slices.ensure(c.Parent(pod), c.v2, c.limits(pod)); err != nil {
			// The runtime asks for the slice too, and the pod runs unbounded rather than not at all.
			c.warn("the pod's slice", err)
		}
		return nil
	}
	path := c.path(pod)
	c.ensure(path)
	if err := c.set(path, c.limits(pod), false); err != nil {
		c.warn("the pod's limits", err)
	}
	return nil
}

func (c *cgroups) timed(what string, begun time.Time) { c.metrics.Cgroup(what, time.Since(begun)) }

// ensure makes a cgroup in every hierarchy that is written to.
func (c *cgroups) ensure(path string) {
	for _, ctl := range c.controllers() {
		if err := os.MkdirAll(filepath.Join(ctl, path), 0o755); err != nil {
			c.warn(filepath.Base(ctl), err)
			continue
		}
		if c.v2 {
			c.delegate(path)
		}
		if filepath.Base(ctl) == "cpuset" {
			c.inheritCPUs(ctl, path)
		}
	}
}

// Resize writes a running pod's limits: with grow only those which are larger than what stands, so that its containers
// find room before they grow, and give it back after they shrank.
func (c *cgroups) Resize(pod *v1.Pod, grow bool) error {
	if c.flat {
		return nil
	}
	defer c.timed("update", time.Now())
	path := c.path(pod)
	if c.slices != nil {
		path = slicePath(c.Parent(pod))
	}
	if c.v2 && !grow {
		// Version 1 refuses by itself; version 2 would kill what does not fit.
		if err := fits(filepath.Join(cgroupMount, path, "memory.current"), c.limits(pod).memory); err != nil {
			return err
		}
	}
	if c.slices != nil {
		l := c.limits(pod)
		if grow {
			l = c.larger(path, l)
		}
		return c.slices.bound(c.Parent(pod), c.v2, l)
	}
	return c.set(path, c.limits(pod), grow)
}

// fits refuses a limit of memory, 0 for none, below what the file says is used; a file that cannot be read refuses nothing.
func fits(current string, limit int64) error {
	raw, err := os.ReadFile(current)
	if err != nil || limit == 0 {
		return nil
	}
	if used, err := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64); err == nil && used > limit {
		return fmt.Errorf("attempting to set pod memory limit (%d) below current usage (%d)", limit, used)
	}
	return nil
}

// larger is limits which take nothing from what a cgroup has; what cannot be read is left as wanted.
func (c *cgroups) larger(path string, l limits) limits {
	read := func(controller, file string) int64 {
		if c.v2 {
			controller = ""
		}
		raw, err := os.ReadFile(filepath.Join(cgroupMount, controller, path, file))
		word, _, _ := strings.Cut(strings.TrimSpace(string(raw)), " ")
		n, perr := strconv.ParseInt(word, 10, 64)
		switch {
		case err != nil:
			return 1
		case perr != nil, n < 0, n > 1<<60:
			return 0 // no limit
		}
		return n
	}
	quota, memory := "cpu.cfs_quota_us", "memory.limit_in_bytes"
	if c.v2 {
		quota, memory = "cpu.max", "memory.max"
	}
	more := func(want, have int64) int64 {
		if want == 0 || have == 0 {
			return 0
		}
		return max(want, have)
	}
	l.quota, l.memory = more(l.quota, read("cpu", quota)), more(l.memory, read("memory", memory))
	return l
}

func (c *cgroups) limits(pod *v1.Pod) limits {
	l := podLimits(pod)
	if c.period == 0 || c.unbounded != nil && c.unbounded(string(pod.UID)) {
		l.quota = 0
	}
	l.quota, l.period, l.pids = l.quota*c.period/defaultPeriod, c.period, c.pids
	return l
}

// set writes limits; a controller which is absent or forbidden is one warning, any other refusal is the answer.
func (c *cgroups) set(path string, l limits, grow bool) error {
	var errs []error
	write := func(controller, file string, value int64, text string) {
		dir := filepath.Join(cgroupMount, controller, path)
		if c.v2 {
			dir = filepath.Join(cgroupMount, path)
		}
		name := filepath.Join(dir, file)
		if grow {
			raw, err := os.ReadFile(name)
			word, _, _ := strings.Cut(strings.TrimSpace(string(raw)), " ")
			if have, perr := strconv.ParseInt(word, 10, 64); err != nil || word == "max" || perr == nil && (have < 0 || have >= value && value >= 0) {
				return
			}
		}
		err := os.WriteFile(name, []byte(text), 0o644)
		if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("writing %s to %s: %w", text, file, err))
		} else if err != nil {
			c.warn(file, err)
		}
	}
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	if c.v2 {
		most := func(n int64, after string) string {
			if n <= 0 {
				return "max" + after
			}
			return number(n) + after
		}
		period := cmp.Or(l.period, defaultPeriod)
		if l.shares > 0 {
			write("", "cpu.weight", 1+(l.shares-2)*9999/262142, number(1+(l.shares-2)*9999/262142))
		}
		write("", "cpu.max", orNone(l.quota), most(l.quota, " "+number(period)))
		write("", "memory.max", orNone(l.memory), most(l.memory, ""))
		if l.pids > 0 {
			write("", "pids.max", l.pids, number(l.pids))
		}
		for size, n := range l.pages {
			write("", "hugetlb."+size+".max", n, number(n))
		}
		return errors.Join(errs...)
	}
	if l.shares > 0 {
		write("cpu", "cpu.shares", l.shares, number(l.shares))
	}
	if l.period > 0 && l.period != defaultPeriod {
		write("cpu", "cpu.cfs_period_us", l.period, number(l.period))
	}
	write("cpu", "cpu.cfs_quota_us", orNone(l.quota), number(orNone(l.quota)))
	write("memory", "memory.limit_in_bytes", orNone(l.memory), number(orNone(l.memory)))
	if l.pids > 0 {
		write("pids", "pids.max", l.pids, number(l.pids))
	}
	for size, n := range l.pages {
		write("hugetlb", "hugetlb."+size+".limit_in_bytes", n, number(n))
	}
	return errors.Join(errs...)
}

// orNone is -1 for no limit, which is more than any.
func orNone(n int64) int64 {
	if n <= 0 {
		return -1
	}
	return n
}

// limits are what a cgroup may use: quota in microseconds of a period, memory in bytes. 0 is no limit, but of shares. pages
// are huge pages in bytes by the kernel's names of their sizes.
type limits struct {
	shares, quota, period, memory, pids int64
	pages                               map[string]int64
}

// podLimits are a pod's sums. A limit holds for the pod only when every container has it.
func podLimits(pod *v1.Pod) limits {
	var cpu, cpuLimit, mem int64
	allCPU, allMem := true, true
	for _, k := range pod.Spec.Containers {
		r := k.Resources
		cpu += r.Requests.Cpu().MilliValue()
		cpuLimit += r.Limits.Cpu().MilliValue()
		mem += r.Limits.Memory().Value()
		allCPU = allCPU && !r.Limits.Cpu().IsZero()
		allMem = allMem && !r.Limits.Memory().IsZero()
	}
	for _, k := range pod.Spec.InitContainers {
		r := k.Resources
		sidecar := k.RestartPolicy != nil && *k.RestartPolicy == v1.ContainerRestartPolicyAlways
		if sidecar {
			cpu += r.Requests.Cpu().MilliValue()
			cpuLimit += r.Limits.Cpu().MilliValue()
			mem += r.Limits.Memory().Value()
		} else {
			cpu = max(cpu, r.Requests.Cpu().MilliValue())
			cpuLimit = max(cpuLimit, r.Limits.Cpu().MilliValue())
			mem = max(mem, r.Limits.Memory().Value())
		}
		allCPU = allCPU && !r.Limits.Cpu().IsZero()
		allMem = allMem && !r.Limits.Memory().IsZero()
	}
	if r := pod.Spec.Resources; r != nil {
		// The pod's own figures stand above the sums of its containers.
		if q, ok := r.Requests[v1.ResourceCPU]; ok {
			cpu = q.MilliValue()
		}
		if q, ok := r.Limits[v1.ResourceCPU]; ok {
			cpuLimit, allCPU = q.MilliValue(), true
		}
		if q, ok := r.Limits[v1.ResourceMemory]; ok {
			mem, allMem = q.Value(), true
		}
	}
	if over := pod.Spec.Overhead; over != nil {
		cpu, cpuLimit, mem = cpu+over.Cpu().MilliValue(), cpuLimit+over.Cpu().MilliValue(), mem+over.Memory().Value()
	}
	l := limits{shares: max(cpu*1024/1000, 2)}
	if allCPU && cpuLimit > 0 {
		l.quota = max(cpuLimit*100, 1000)
	}
	if allMem {
		l.memory = mem
	}
	for _, size := range pageSizes(pod) {
		if l.pages == nil {
			l.pages = map[string]int64{}
		}
		l.pages[kernelSize(size)] = request(pod, v1.ResourceName(v1.ResourceHugePagesPrefix+size))
	}
	return l
}

var delegated = []string{"+cpu", "+cpuset", "+memory", "+pids", "+io", "+hugetlb"}

// delegate turns the v2 controllers on along the path.
func (c *cgroups) delegate(path string) {
	dir := cgroupMount
	for _, part := range strings.Split(strings.Trim(path, "/"), "/") {
		for _, ctl := range delegated {
			_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte(ctl), 0o644)
		}
		dir = filepath.Join(dir, part)
	}
	for _, ctl := range delegated {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte(ctl), 0o644)
	}
}

// inheritCPUs copies cpus and mems down: a v1 cpuset without them takes no process.
func (c *cgroups) inheritCPUs(ctl, path string) {
	dir := ctl
	for _, part := range strings.Split(strings.Trim(path, "/"), "/") {
		next := filepath.Join(dir, part)
		for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
			have, err := os.ReadFile(filepath.Join(next, f))
			if err != nil || strings.TrimSpace(string(have)) != "" {
				continue
			}
			if v, err := os.ReadFile(filepath.Join(dir, f)); err == nil {
				_ = os.WriteFile(filepath.Join(next, f), v, 0o644)
			}
		}
		dir = next
	}
}

// Destroy removes the pod's cgroups, whatever its class was, with all the runtime left below them.
func (c *cgroups) Destroy(uid string) error {
	defer c.timed("destroy", time.Now())
	defer c.changed()
	var errs []error
	stopped := map[string]bool{}
	for _, ctl := range c.hierarchies() {
		for _, class := range []string{"", "burstable", "besteffort"} {
			dir := filepath.Join(ctl, c.root, "kubepods", class, "pod"+uid)
			if c.slices != nil {
				dir = filepath.Join(ctl, slicePath(podSlice(class, uid)))
			}
			if _, err := os.Lstat(dir); err != nil {
				continue
			}
			if c.slices != nil && !stopped[class] {
				stopped[class] = true
				if err := c.slices.remove(podSlice(class, uid)); err != nil {
					errs = append(errs, err)
				}
			}
			if err := removeTree(dir); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// removeTree removes cgroups deepest first. What still runs in them belongs to a pod that has ended, and nobody knows it
// any more (a runtime which died while it made a container leaves such behind), so it is killed.
func removeTree(top string) error {
	var err error
	for try := range 40 {
		if err = removeDirs(top); err == nil {
			return nil
		}
		// The last process may still be leaving by itself.
		if try >= 3 {
			killAll(top)
		}
		time.Sleep(25 * time.Millisecond)
	}
	return err
}

func removeDirs(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeDirs(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err = unix.Rmdir(dir); err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return fmt.Errorf("removing cgroup %s: %w", dir, err)
}

// killAll ends every process of a tree of cgroups.
func killAll(top string) {
	_ = filepath.WalkDir(top, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return nil // it is being removed
		}
		raw, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil {
			return nil
		}
		for _, f := range strings.Fields(string(raw)) {
			// 0 stands for a process of another process namespace, and to kill(2) for ourselves.
			if pid, err := strconv.Atoi(f); err == nil && pid > 1 && pid != os.Getpid() {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		return nil
	})
}

func (c *cgroups) warn(what string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.warned[what] {
		c.warned[what] = true
		c.log.Warn("a cgroup setting is left out", "what", what, "err", err)
	}
}
