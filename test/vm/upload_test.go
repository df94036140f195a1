package vm_test

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"diglim/digestlist"
	"diglim/internal/digest"
	"diglim/internal/modsig"
	"diglim/internal/rpmtest"
	"diglim/test/vm"
	"diglim/test/vm/plan"
)

// compactList is a compact list of n digests.
func compactList(t *testing.T, n int) []byte {
	t.Helper()
	block := digestlist.Block{Type: digestlist.File, Algorithm: digest.SHA256}
	for i := range n {
		block.Digests = append(block.Digests, digest.Sum(digest.SHA256, binary.BigEndian.AppendUint32(nil, uint32(i))))
	}
	b, err := digestlist.AppendCompact(nil, digestlist.V3, digestlist.LittleEndian, []digestlist.Block{block})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What diglim-upload does, and what the kernel knows then.
func TestUpload(t *testing.T) {
	eachKernel(t, func(t *testing.T, ctx context.Context, k vm.Kernel) {
		upload := filepath.Join(t.TempDir(), "diglim-upload")
		if err := vm.Build(ctx, upload, "diglim/cmd/diglim-upload"); err != nil {
			t.Fatal(err)
		}
		trailer := modsig.Signature{Type: modsig.PKCS7, Bytes: []byte("signature")}
		oops := modsig.Append(compactList(t, 2), trailer)
		binary.BigEndian.PutUint32(oops[len(oops)-len(modsig.Marker)-4:], 1000) // more than there is
		rpm := rpmtest.Package{Name: "p", Algo: 8, Files: []rpmtest.File{
			rpmtest.Regular("/usr/bin/p", 0o755, "p"), rpmtest.Regular("/etc/p", 0o644, "c"), rpmtest.Regular("/etc/q", 0o644, "d")}}
		files := []vm.File{
			buildModule(t, ctx, k),
			{Name: "busybox", Mode: 0o755, Path: "/bin/busybox"},
			{Name: "diglim-upload", Mode: 0o755, Path: upload},
		}
		for name, data := range map[string][]byte{
			"lists/0-file_list-rpm-p-1.0-1.noarch":                    rpm.Header(),
			"lists/1-file_list-compact-signed":                        modsig.Append(compactList(t, 3), trailer),
			"lists/2-file_list-compact-large":                         compactList(t, 150_000), // 4.8 MB
			"harmful/0-file_list-compact-" + strings.Repeat("x", 160): compactList(t, 1),
			"harmful/1-file_list-compact-signature-too-large":         oops,
			"harmful/2-file_list-compact-empty":                       nil,
			"harmful/3-file_list-compact-version":                     {2, 0, 1, 0},
			"harmful/4-file_list-compact-good":                        compactList(t, 4),
		} {
			files = append(files, vm.File{Name: name, Mode: 0o644, Data: append([]byte{}, data...)})
		}

		const dir = "/sys/kernel/security/integrity/diglim"
		var p plan.Plan
		type answer struct {
			output string // regular expression
			exit   int
		}
		want := map[string]answer{}
		step := func(name, script, output string, exit int) {
			p.Early = append(p.Early, plan.Command{Name: name, Argv: []string{"/busybox", "sh", "-c", script}})
			want[name] = answer{output, exit}
		}
		count := func(name, files, lists string) {
			step(name, "/busybox cat "+dir+"/digests_count", `Parser digests: 0\nFile digests: `+files+`\nMetadata digests: 0\nDigest list digests: `+lists+`\n`, 0)
		}
		p.Modules = []string{"/modules/diglim_v3.ko"}

		// The large list goes in two parts, the rpm list as what changes and what does not.
		step("add", "/diglim-upload add /lists", `^diglim: added 150,006 digests from 3 lists in .* \(0 there before, 0 failed\)\n$`, 0)
		count("added", "150003", "5")
		step("names", "/busybox ls "+dir+"/digest_lists_loaded | /busybox grep -v ascii | /busybox sed s/sha256-[0-9a-f]*-// | /busybox sort",
			`^0-file_list-rpm-p-1.0-1.noarch\n0-file_list-rpm-p-1.0-1.noarch\n1-file_list-compact-signed\n2-file_list-compact-large\n2-file_list-compact-large\n$`, 0)
		step("status", "/diglim-upload status", `lists      5\ndigests    150,003 of files`, 0)
		step("add again", "/diglim-upload add --interface diglim /lists", `from 3 lists in .* \(3 there before, 0 failed\)`, 0)

		// Somebody else is busy, and then is not.
		step("busy", "exec 3>"+dir+"/digest_list_del; (/busybox sleep 1) & exec 3>&-; (: > "+dir+"/digest_list_add); /diglim-upload del /lists/1-file_list-compact-signed",
			`(?s)resource busy\n.*deleted 3 digests from 1 list .* \(0 not there, 0 failed\)`, 0)
		count("deleted one", "150003", "4")
		step("buffer", "/diglim-upload add --buffer /lists/1-file_list-compact-signed && /diglim-upload del --buffer /lists/1-file_list-compact-signed", `(?s)added 3 .*deleted 3 `, 0)
		step("del", "/diglim-upload del /lists", `\(1 not there, 0 failed\)`, 0)
		count("deleted", "0", "0")

		// What would crash the original is refused here; the rest goes.
		step("harmful", "/diglim-upload add /harmful", `(?s)name of 18\d bytes, this kernel takes 177.*signature.*the limit is.*empty list.*input ends early.*added 4 digests from 1 list .* \(0 there before, 4 failed\)`, 1)
		count("after harmful", "4", "1")

		// As the kernel would start it: nothing open, nothing mounted, no
		// environment. What it mounts it unmounts, and errors find the kernel's log.
		step("bare", "/busybox umount /sys/kernel/security /sys; /busybox env -i /diglim-upload del /harmful/4-file_list-compact-good <&- >&- 2>&-", `^$`, 0)
		step("bare failing", "/busybox env -i /diglim-upload add /missing <&- >&- 2>&-", `^$`, 1)
		step("unmounted", "/busybox grep -c sys /proc/mounts", `^0\n$`, 1)
		step("log", "/busybox dmesg | /busybox grep 'diglim-upload: '", `error: stat /missing: no such file or directory`, 0)
		step("mounted", "/busybox mount -t sysfs sysfs /sys && /busybox mount -t securityfs securityfs /sys/kernel/security", `^$`, 0)
		count("at last", "0", "0")

		step("no interface", "/busybox rmmod diglim_v3; /diglim-upload add --interface diglim /lists", `(?s)^error: no kernel interface accepts digest lists here\n  diglim  .*\nhint: `, 2)

		r, err := vm.Boot(ctx, writeMachine(t, ctx, k, p, t.TempDir(), files...))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range p.Early {
			output, exit, err := r.Command(c.Name)
			if err != nil {
				t.Fatal(err)
			}
			if w := want[c.Name]; exit != w.exit || !regexp.MustCompile(w.output).MatchString(output) {
				t.Errorf("%s: exit code %d, want %d; output\n%s\nwant %s", c.Name, exit, w.exit, output, w.output)
			}
		}
		checkKernelLog(t, r)
		if _, err := os.Stat(filepath.Join(r.Out, plan.Finished)); err != nil {
			t.Error(err)
		}
	})
}
