package vm_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"diglim/test/vm"
)

// bootTree is what guests of the boot tests have in common, whatever their
// kernel: what "make install" places, an owner's key, and two disks of a small
// system, one with lists of all its files, one with lists of half of them.
type bootTree struct {
	over       string
	full, half string
	stale      string // a list that only the initramfs has, of a file that the system has no more
}

// checkScript is what runs last in a system that has come up. It says what there
// is to see, on the console, and ends.
const checkScript = `#!/usr/bin/busybox sh
exec >/dev/console 2>&1
say() { while read -r line; do echo "CHECK $line"; done; }
echo up since $(busybox cut -d' ' -f1 /proc/uptime) | say
busybox readlink /proc/1/exe | say
busybox pidof agetty >/dev/null && echo login | say
systemctl --failed --plain --no-legend | say
status=$(diglim-upload status --interface bpf 2>&1)
echo "$status" | say
log=/sys/kernel/security/ima/ascii_runtime_measurements
echo measured $(busybox grep -c '^12 .* /run/diglim/measured/' $log), by the administrator $(busybox grep -c '^10 .* /usr/lib/systemd/systemd *$' $log) | say
case $status in
*"denied     0 since boot"* | *"no gate"*) ;;
*) busybox timeout 2 diglim-upload watch --since boot 2>&1 | say ;;
esac
unknown 2>&1 | say
case $status in
*"locked  yes"*) (diglim-upload watch --since boot & echo $! >/run/watch) | { read -r line; echo "$line" | say; busybox kill $(busybox cat /run/watch); } ;;
esac
busybox sync
busybox poweroff -f
`

const unknownScript = "#!/usr/bin/busybox sh\necho unknown ran\n"

const checkService = `[Unit]
After=basic.target login.service systemd-tmpfiles-setup.service
[Service]
Type=idle
ExecStart=/usr/bin/check
`

func writeBootTree(t *testing.T) bootTree {
	t.Helper()
	ctx := t.Context()
	dir := t.TempDir()
	b := bootTree{over: filepath.Join(dir, "over"), full: filepath.Join(dir, "full"), half: filepath.Join(dir, "half")}
	makeInstall(t, "install", b.over)
	bin := filepath.Join(b.over, "usr/bin")
	_, key, cert := certificate(t, dir)
	write(t, filepath.Join(b.over, "etc/diglim/keys/owner.pem"), read(t, cert), 0o644)
	write(t, filepath.Join(b.over, "etc/diglim/boot.conf"), []byte("mode enforce\nscope all\n"), 0o644)
	write(t, filepath.Join(b.over, "etc/ima/ima-policy"), []byte("measure func=BPRM_CHECK mask=MAY_EXEC\n"), 0o644)

	tree := filepath.Join(dir, "tree")
	if err := vm.WriteSystemdRoot(ctx, tree); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(tree, "usr/bin/check"), []byte(checkScript), 0o755)
	write(t, filepath.Join(tree, "usr/bin/diglim-upload"), read(t, filepath.Join(bin, "diglim-upload")), 0o755)
	write(t, filepath.Join(tree, "etc/systemd/system/check.service"), []byte(checkService), 0o644)
	if err := os.Symlink("../check.service", filepath.Join(tree, "etc/systemd/system/multi-user.target.wants/check.service")); err != nil {
		t.Fatal(err)
	}

	lists := filepath.Join(tree, "etc/digest_lists")
	gen := filepath.Join(bin, "diglim-gen")
	disk := func(path string, dirs ...string) {
		t.Helper()
		if err := os.RemoveAll(lists); err != nil {
			t.Fatal(err)
		}
		for _, d := range dirs {
			label := strings.ReplaceAll(d, "/", "-")
			command(t, gen, "files", "--output", lists, "--label", label, filepath.Join(tree, d))
			command(t, gen, "sign", "--key", key, "--cert", cert, filepath.Join(lists, "0-file_list-compact-"+label))
		}
		write(t, filepath.Join(tree, "usr/bin/unknown"), []byte(unknownScript), 0o755)
		if err := vm.WriteDisk(ctx, path, tree, 64<<20); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(tree, "usr/bin/unknown")); err != nil {
			t.Fatal(err)
		}
	}
	unknown := filepath.Join(dir, "unknown")
	write(t, unknown, []byte(unknownScript), 0o755)
	command(t, gen, "files", "--output", dir, "--label", "stale", unknown)
	b.stale = filepath.Join(dir, "0-file_list-compact-stale")
	disk(b.full, "usr/bin", "usr/sbin", "usr/lib")
	disk(b.half, "usr/bin", "usr/lib")
	return b
}

// makeInstall installs for a system whose prefix is /usr, below dir.
func makeInstall(t *testing.T, target, dir string) {
	t.Helper()
	for _, pkg := range []string{"diglim-upload", "diglim-gen"} {
		if err := vm.Build(t.Context(), filepath.Join(t.TempDir(), pkg), "diglim/cmd/"+pkg); err != nil { // what make looks at, go test must see
			t.Fatal(err)
		}
	}
	if err := filepath.WalkDir("../../dist", func(path string, _ os.DirEntry, err error) error {
		_, e := os.Stat(path)
		return errors.Join(err, e)
	}); err != nil {
		t.Fatal(err)
	}
	command(t, "make", "-s", "-C", "../..", target, "DESTDIR="+dir, "PREFIX=/usr")
}

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func write(t *testing.T, path string, data []byte, mode os.FileMode) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, mode)); err != nil {
		t.Fatal(err)
	}
}

// appendFiles writes an initramfs that is another one, and files that come in
// front of its own: the kernel unpacks one archive after the other.
func appendFiles(t *testing.T, image, from string, files []vm.File) {
	t.Helper()
	var b bytes.Buffer
	b.Write(read(t, from))
	b.Write(make([]byte, -b.Len()&3))
	if err := vm.WriteCPIO(&b, files); err != nil {
		t.Fatal(err)
	}
	write(t, image, b.Bytes(), 0o644)
}

// A systemBoot is a boot of the small system, and what its console says.
type systemBoot struct {
	name    string
	series  string // of kernels; empty for all
	tool    string // that made the initramfs
	half    bool   // lists of half the system
	conf    string // instead of the usual boot.conf
	cmdline string
	want    []string // regular expressions, in this order
	not     string   // regular expression
}

const (
	dracut         = "dracut"
	dracutSystemd  = "dracut with systemd"
	initramfsTools = "initramfs-tools"
)

// up is what a system says that has come up, and halfKnown why half a list is
// refused.
const (
	up        = `CHECK up since [\d.]+\s+(guest login: )?CHECK /usr/lib/systemd/systemd\s+CHECK login\s`
	halfKnown = `diglim-upload: error: \d+ of \d+ files that the system to come cannot do without are in no list: /sbin/agetty, /sbin/sulogin\s`
	enforced  = `CHECK .*unknown: Operation not permitted`
)

var systemBoots = []systemBoot{
	{name: "dracut", tool: dracut, conf: "mode enforce\nscope all\nlock\nmeasure-pcr 12\n",
		want: []string{up, `mode  enforce     scope  all     locked  yes`, `in the initramfs`, `CHECK denied     0 since boot`, `CHECK measured 10, by the administrator 1`, enforced, `CHECK \{.*"denied".*"/usr/bin/unknown"`},
		not:  `diglim-upload: |unknown ran`},
	{name: "dracut with systemd", series: vm.Series[1], tool: dracutSystemd, conf: "mode enforce\nscope all\nlock\nmeasure-pcr 12\n", cmdline: "rd.systemd.show_status=0",
		want: []string{up, `mode  enforce     scope  all     locked  yes`, `in the initramfs`, `CHECK denied     0 since boot`, `CHECK measured 10, by the administrator 1`, enforced},
		not:  `diglim-upload: |unknown ran`},
	{name: "initramfs-tools", tool: initramfsTools, conf: "mode enforce\nscope all\nmeasure-pcr 12\n",
		want: []string{up, `mode  enforce     scope  all     locked  no`, `in the initramfs`, `CHECK denied     0 since boot`, `CHECK measured 9, by the administrator 1`, enforced},
		not:  `diglim-upload: |CHECK \{|unknown ran`},
	{name: "off", series: vm.Series[0], tool: initramfsTools, half: true, cmdline: "diglim=off",
		want: []string{up, `CHECK interface  bpf .*no gate`, `CHECK unknown ran`}, not: `diglim-upload: `},
	{name: "rdinit and log", series: vm.Series[1], tool: initramfsTools, half: true, cmdline: "rdinit=/usr/bin/diglim-upload diglim.mode=log diglim.onfail=poweroff",
		want: []string{`diglim-upload: mode log and not enforce, by diglim.mode=log on the kernel command line`, up, `mode  log `, `CHECK unknown ran`}, not: `error`},

	{name: "half and continue", series: vm.Series[0], tool: initramfsTools, half: true,
		want: []string{halfKnown, `hint: `, `diglim-upload: going on in mode log \(onfail continue\)`, up, `mode  log `, `CHECK unknown ran`}},
	{name: "half and emergency", series: vm.Series[1], tool: initramfsTools, half: true, cmdline: "diglim.onfail=emergency",
		want: []string{halfKnown, `diglim-upload: asking for a shell \(onfail emergency\); diglim.onfail=continue and diglim=off .* are ways back`,
			`diglim-upload could not put the digest lists of /root in force\s+Rebooting automatically due to panic= boot argument`}, not: `CHECK`},
	{name: "bad conf and emergency", series: vm.Series[0], tool: dracut, conf: "onfail emergency\nmode enforc\n", cmdline: "rd.shell=0 rd.emergency=poweroff",
		want: []string{`diglim-upload: error: mode "enforc" is not known`, `asking for a shell`, `diglim-upload could not put digest lists in force`}, not: `CHECK`},
	{name: "no BPF LSM and poweroff", series: vm.Series[1], tool: initramfsTools, cmdline: "lsm=lockdown,yama,apparmor diglim.onfail=poweroff",
		want: []string{`bpf     BPF LSM is not active, only lockdown`, `hint: add bpf to lsm=`, `diglim-upload: powering off \(onfail poweroff\)`}, not: `CHECK|[Pp]anic`},
}

func makeImage(ctx context.Context, k vm.Kernel, tool, over, image string) error {
	switch tool {
	case dracut:
		return vm.Dracut(ctx, k, over, image)
	case dracutSystemd:
		return vm.Dracut(ctx, k, over, image, "systemd", "systemd-initrd", "dracut-systemd")
	}
	return vm.InitramfsTools(ctx, k, over, image)
}

// TestInitramfs boots a small system with systemd from a disk, by initramfs images
// that dracut made, without systemd and with it, and one of initramfs-tools, in mode
// enforce from the first act on, and with all that can go wrong.
func TestInitramfs(t *testing.T) {
	vm.Require(t)
	b := writeBootTree(t)
	eachKernel(t, func(t *testing.T, ctx context.Context, k vm.Kernel) {
		dir := t.TempDir()
		over := filepath.Join(dir, "over")
		if err := os.CopyFS(over, os.DirFS(b.over)); err != nil {
			t.Fatal(err)
		}
		if err := vm.WriteModules(ctx, k, over); err != nil {
			t.Fatal(err)
		}
		images := map[string]string{}
		for _, boot := range systemBoots {
			if boot.series != "" && !strings.HasPrefix(k.Release, boot.series+".") {
				continue
			}
			if images[boot.tool] == "" {
				image := filepath.Join(dir, strings.ReplaceAll(boot.tool, " ", "-"))
				if err := makeImage(ctx, k, boot.tool, over, image); err != nil {
					t.Fatal(err)
				}
				images[boot.tool] = image
			}
			t.Run(boot.name, func(t *testing.T) {
				dir := t.TempDir()
				m := vm.Machine{Kernel: k, Initrd: filepath.Join(dir, "initrd"), Disk: filepath.Join(dir, "disk"), TPM: true,
					Cmdline: "root=/dev/vda rootfstype=ext4 rw " + boot.cmdline}
				files := []vm.File{{Name: "etc/digest_lists/0-file_list-compact-stale", Mode: 0o644, Path: b.stale}}
				if boot.conf != "" {
					files = append(files, vm.File{Name: "etc/diglim/boot.conf", Mode: 0o644, Data: []byte(boot.conf)})
				}
				appendFiles(t, m.Initrd, images[boot.tool], files)
				disk := b.full
				if boot.half {
					disk = b.half
				}
				write(t, m.Disk, read(t, disk), 0o644)
				console, err := vm.Console(ctx, m)
				if err != nil {
					t.Error(err)
				}
				boot.check(t, console)
				if since := regexp.MustCompile(`up since ([\d.]+)`).FindStringSubmatch(console); since != nil {
					t.Logf("up after %s s", since[1])
				}
			})
		}
	})
}

func (b systemBoot) check(t *testing.T, console string) {
	t.Helper()
	rest := console
	for _, want := range b.want {
		at := regexp.MustCompile(want).FindStringIndex(rest)
		if at == nil {
			t.Errorf("the console does not say, or not in this order: %s\n%s", want, console)
			return
		}
		rest = rest[at[1]:]
	}
	if b.not != "" {
		if said := regexp.MustCompile(b.not).FindString(console); said != "" {
			t.Errorf("the console says %q\n%s", said, console)
		}
	}
	if line := kernelTrouble.FindString(console); line != "" {
		t.Errorf("the kernel complains: %s\n%s", line, console)
	}
}
