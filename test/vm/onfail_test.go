package vm_test

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"diglim/internal/rpmtest"
	"diglim/test/vm"
)

// A bootFailure is what makes the first stage of a boot fail, in an initramfs.
type bootFailure struct {
	name        string
	break_, fix string // shell scripts
	why         string // on the console, a regular expression
	on          string // what continue goes on with
}

const (
	inLog   = `in mode log`
	without = `without the gate`
	damaged = `as it is: .*no such file or directory` // and it decides nothing
)

var bootFailures = []bootFailure{
	{"no keys", "mv /keys /gone", "mv /gone /keys", `keyring: .*/keys: no such file or directory`, without},
	{"another key", "mv /keys /gone; mv /otherkeys /keys", "mv /keys /otherkeys; mv /gone /keys", `1-file_list-rpm-p-1.0-1: unknown key [0-9a-f]+`, inLog},
	{"a bad list", "cp /bad /etc/digest_lists/2-file_list-rpm-q-1.0-1", "rm /etc/digest_lists/2-*", `2-file_list-rpm-q-1.0-1: signature does not match`, inLog},
	{"a list that is cut", "head -c 100 /bad >/etc/digest_lists/2-file_list-rpm-q-1.0-1", "rm /etc/digest_lists/2-*", `2-file_list-rpm-q-1.0-1: .*`, inLog},
	{"a read-only file system", "rm -f /etc/digest_lists/0-*; mount -o remount,ro /", "mount -o remount,rw /", `0-file_list-compact-initramfs: read-only file system`, without},
	{"a full file system", "rm -f /etc/digest_lists/0-*; dd if=/dev/zero of=/fill bs=1M 2>/dev/null", "rm /fill", `0-file_list-compact-initramfs: no space left on device`, inLog},
	{"a damaged set", "mkdir -p /sys/fs/bpf/diglim", "rm -rf /sys/fs/bpf/diglim", `(sets|events|counters): .*no such file or directory`, damaged},
	{"a bad boot.conf", "echo colour green >>/emergency; echo colour green >>/continue", "sed -i '/colour/d' /emergency /continue", `:5: flag --colour=green is not known`, inLog},
	// The last one: once something was to be measured, all that follows is.
	{"no TPM", "echo measure-pcr 12 >>/emergency; echo measure-pcr 12 >>/continue", "sed -i '/measure/d' /emergency /continue", `IMA extends no TPM`, without},
}

// Each failure says why, and leaves the system as onfail says: emergency without
// a gate, so that whoever comes can do anything; continue with nothing denied.
func TestOnfail(t *testing.T) {
	eachKernel(t, func(t *testing.T, ctx context.Context, k vm.Kernel) {
		files, _ := uploaderFiles(t, ctx)
		vendor, other := rpmtest.NewKey(t, "vendor", nil), rpmtest.NewKey(t, "other", nil)
		_, good := packageList(t, vendor, "p", "p")
		bad := bytes.Replace(good, []byte("usr"), []byte("etc"), 1)
		const conf = "mode enforce\nscope all\nkeyring /keys\n"
		for name, data := range map[string][]byte{
			"keys/vendor.gpg": rpmtest.Public(t, vendor), "otherkeys/other.gpg": rpmtest.Public(t, other),
			"etc/digest_lists/1-file_list-rpm-p-1.0-1": good, "bad": bad,
			"emergency": []byte(conf + "onfail emergency\n"), "continue": []byte(conf + "onfail continue\n"),
		} {
			files = append(files, vm.File{Name: name, Mode: 0o644, Data: data})
		}
		const boot = `PATH=/bin; echo "<6>CASE %s, %s" >/dev/kmsg; %s; /diglim-upload boot --conf /%[2]s 2>&1; echo exit $?; /diglim-upload status --interface bpf 2>&1 | head -n 1; %[4]s; /diglim-upload stop >/dev/null`
		var s steps
		s.add("prepare", "/busybox mkdir /bin; /busybox --install -s /bin; /busybox mount -t bpf bpf /sys/fs/bpf", `^$`, 0)
		s.add("nothing wrong", fmt.Sprintf(boot, "nothing", "emergency", "true", `printf '#!/busybox sh\necho ran\n' >/new; chmod 755 /new; /new`),
			`^exit 0\ninterface  bpf .*mode  enforce     scope  all     locked  no\n.*not permitted`, 0)
		for _, f := range bootFailures {
			emergency, cont := `interface  bpf .*no gate\n`, map[string]string{inLog: `interface  bpf .*mode  log`, without: `interface  bpf .*no gate`}[f.on]
			if f.on == damaged {
				emergency, cont = `error: .*no such file or directory\n`, `error: .*no such file or directory\n`
			}
			s.add(f.name+", emergency", fmt.Sprintf(boot, f.name, "emergency", f.break_, f.fix), `^exit 3\n`+emergency, 0)
			s.add(f.name+", continue", fmt.Sprintf(boot, f.name, "continue", f.break_, f.fix), `^exit 1\n`+cont, 0)
		}
		// The boot is over: nothing of this is for a system that runs.
		s.addAfter("later", "/busybox true; /diglim-upload boot --conf /emergency", `error: this is no initramfs, and the boot is over`, 2)

		tree := t.TempDir()
		for _, f := range files[:2] {
			write(t, tree+"/"+f.Name, read(t, f.Path), 0o755)
		}
		r, err := vm.Boot(ctx, writeMachine(t, ctx, k, s.plan, tree, files...))
		if err != nil {
			t.Fatal(err)
		}
		s.check(t, r)
		log, err := r.KernelLog()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range bootFailures {
			for onfail, what := range map[string]string{"emergency": `asking for a shell`, "continue": `going on ` + f.on} {
				_, said, _ := strings.Cut(log, "CASE "+f.name+", "+onfail+"\n")
				said, _, _ = strings.Cut(said, "CASE ")
				if want := `(?s)diglim-upload: error: [^\n]*` + f.why + `.*diglim-upload: ` + what; !regexp.MustCompile(want).MatchString(said) {
					t.Errorf("%s, %s: the kernel's log does not say %s:\n%s", f.name, onfail, want, said)
				}
			}
		}
		checkKernelLog(t, r)
	})
}
