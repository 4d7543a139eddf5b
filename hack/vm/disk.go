package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// root makes the guest's disk in a folder: busybox, the tests, and what they need of the host. A path of the repository stands at the
// same place below /src, where the tests begin in their package's folder; an absolute one where it was, a program with its libraries.
func root(dir, pkg, binary, run string, with []string) (string, error) {
	tree := filepath.Join(dir, "root")
	for _, d := range []string{"proc", "sys", "dev", "tmp", "run", "bin", "sbin", "etc", "var", filepath.Join("src", pkg)} {
		if err := os.MkdirAll(filepath.Join(tree, d), 0o755); err != nil {
			return "", err
		}
	}
	text := "#!/bin/busybox sh\nexport PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root\n/bin/busybox --install -s /bin\n" + mounts +
		"cd /src/" + filepath.Clean(pkg) + " && /test -test.v -test.run '" + strings.ReplaceAll(run, "'", "") + "'\necho " + said + "$?\nsync\npoweroff -f\n"
	for name, content := range map[string]string{"start": text, "etc/passwd": "root:x:0:0:root:/:/bin/sh\n", "etc/group": "root:x:0:\n", "etc/resolv.conf": "nameserver 192.0.2.53\n", "etc/hosts": "127.0.0.1 localhost\n"} {
		if err := os.WriteFile(filepath.Join(tree, name), []byte(content), 0o755); err != nil {
			return "", err
		}
	}
	script := `set -e
root=$1
put() { mkdir -p "$root/$(dirname "$2")"; cp -rL --no-preserve=ownership "$1" "$root/$2"; }
libs() { ldd "$1" 2>/dev/null | grep -o '/[^ ]*' | while read -r lib; do [ -e "$root/$lib" ] || put "$lib" "$lib"; done; }
put "$2" test; put /bin/busybox bin/busybox; shift 2
for path; do
	case $path in
	/*) put "$path" "$path" ;;
	*) put "$path" "src/$path" ;;
	esac
	find -L "$path" -type f -perm -100 | while read -r file; do libs "$file"; done
done
truncate -s 4G "$root.img"
mke2fs -q -t ext4 -F -d "$root" "$root.img"
rm -r "$root"`
	make := exec.Command("sh", append([]string{"-c", script, "sh", tree, binary}, with...)...)
	if said, err := make.CombinedOutput(); err != nil {
		return "", fmt.Errorf("make the guest's disk: %w: %s", err, said)
	}
	return tree + ".img", nil
}
