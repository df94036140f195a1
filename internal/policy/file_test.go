package policy_test

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"diglim/internal/digest"
	"diglim/internal/policy"
	"diglim/tpm"
)

var (
	a = digest.Sum(digest.SHA256, []byte("a"))
	b = digest.Sum(digest.SHA256, []byte("b"))
	c = digest.Sum(digest.SHA256, []byte("c"))
	d = digest.Sum(digest.SHA256, []byte("d"))
)

// full says everything that a policy can say.
var full = fmt.Sprintf(`# a policy
policy 1
serial 7
valid-from 2026-01-01
valid-until 2026-12-31
ima sha256:10            # as kernels do
ak keys/web-1.pub
ak-attributes required
lists lists
lists "more lists"
keyring /etc/pki/rpm-gpg
keyring "a \"key\".gpg"
signing-key keys/ima.pem
signing-key "keys/more ima.der"
ima-policy ima.conf
unsigned-lists accept
weak-signatures accept
quoted sha256:0-7,10
quoted sha1:0
extended sha256:0-7
pcr sha256:7 %[1]s %[2]s "Secure Boot, before and after the dbx update"
pcr sha256:4 %[1]s
file sha256:%[1]s "an initramfs script # of this host"
file sha256:%[2]s at "/run/a b" "generated at boot"
deny sha256:%[2]s "CVE-2026-1234"
violations report
unknown-files report
secure-boot required
firmware-log 0,7
event 0xc0000001 7 "a vendor's own"
uki linux.efi
uki "older linux.efi"
boot-loader shimx64.efi
boot-loader sha256:%[2]s "option ROM"
kernel-command-line "root=/dev/vda quiet"
kernel-command-line "root=/dev/vda debug"
initramfs sha256:%[1]s "made by dracut"
initramfs initrd.img
grub grubx64.efi
grub sha256:%[3]s "GRUB"
grub-command "insmod gzio"
kernel vmlinuz
kernel sha256:%[4]s "mine"
padded report
tpm-firmware at-least 0x2019102300163636
`, a.Hex(), b.Hex(), c.Hex(), d.Hex())

func TestParseFile(t *testing.T) {
	pcr := func(alg digest.Algorithm, list ...int) (p []tpm.PCR) {
		for _, i := range list {
			p = append(p, tpm.PCR{Bank: alg, Index: i})
		}
		return p
	}
	want := &policy.File{
		Policy: policy.Policy{
			Bank:             digest.SHA256,
			PCR:              10,
			Denied:           map[digest.Digest]string{b: "CVE-2026-1234"},
			Events:           map[policy.Event]string{{PCR: 7, Type: 0xc0000001}: "a vendor's own"},
			CommandLines:     []string{"root=/dev/vda quiet", "root=/dev/vda debug"},
			Started:          map[digest.Digest]string{b: "option ROM", c: "GRUB", d: "mine"},
			GRUB:             map[digest.Digest]bool{c: true},
			Kernels:          map[digest.Digest]string{d: "mine"},
			Initrds:          map[digest.Digest]string{a: "made by dracut"},
			ReportViolations: true,
			ReportUnknown:    true,
			Quoted:           append(pcr(digest.SHA256, 0, 1, 2, 3, 4, 5, 6, 7, 10), pcr(digest.SHA1, 0)...),
			Extended:         pcr(digest.SHA256, 0, 1, 2, 3, 4, 5, 6, 7),
			Expected: []policy.Expectation{
				{PCR: tpm.PCR{Bank: digest.SHA256, Index: 7}, Values: []digest.Digest{a, b}, Reason: "Secure Boot, before and after the dbx update"},
				{PCR: tpm.PCR{Bank: digest.SHA256, Index: 4}, Values: []digest.Digest{a}},
			},
			MinFirmware:  0x2019102300163636,
			SecureBoot:   true,
			NamedKey:     true,
			Firmware:     []int{0, 7},
			ReportPadded: true,
			Serial:       7,
			From:         time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
			Until:        time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC),
		},
		AK:            "keys/web-1.pub",
		UKIs:          []string{"linux.efi", "older linux.efi"},
		BootLoaders:   []string{"shimx64.efi"},
		GRUBs:         []string{"grubx64.efi"},
		KernelFiles:   []string{"vmlinuz"},
		Initramfses:   []string{"initrd.img"},
		Lists:         []string{"lists", "more lists"},
		Keyrings:      []string{"/etc/pki/rpm-gpg", `a "key".gpg`},
		SigningKeys:   []string{"keys/ima.pem", "keys/more ima.der"},
		IMAPolicies:   []string{"ima.conf"},
		AllowUnsigned: true,
		AllowWeak:     true,
		Files:         []policy.Rule{{Digest: a, Reason: "an initramfs script # of this host"}, {Digest: b, Path: "/run/a b", Reason: "generated at boot"}},
	}
	if err := want.Commands.Add("insmod gzio"); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"as it is": full, "CRLF": strings.ReplaceAll(full, "\n", "\r\n"), "no end of line": strings.TrimSuffix(full, "\n")} {
		got, err := policy.ParseFile([]byte(text))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// The policy in docs/formats is one, and strict.
func TestDocumentedPolicy(t *testing.T) {
	doc, err := os.ReadFile("../../docs/formats/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(doc), "```policy\n")
	text, _, end := strings.Cut(text, "```")
	if !ok || !end {
		t.Fatal("no policy in docs/formats/policy.md")
	}
	f, err := policy.ParseFile([]byte(text))
	if err != nil || len(f.Files) != 2 || len(f.Denied) != 1 || f.ReportUnknown {
		t.Errorf("%+v, %v", f, err)
	}
}

// What a file does not say is as strict as can be.
func TestSayingNothingRejects(t *testing.T) {
	got, err := policy.ParseFile([]byte("policy 1"))
	if err != nil || !got.Rejects() || got.ReportUnknown || got.ReportViolations || got.AllowUnsigned || got.AllowWeak {
		t.Errorf("%+v, %v", got, err)
	}
	if text := words(got); !strings.Contains(text, "rejects every host") {
		t.Error(text)
	}
}

// Every statement of a good policy breeds bad ones.
func TestBadFiles(t *testing.T) {
	lines := strings.SplitAfter(strings.TrimSuffix(full, "\n"), "\n")
	bad := map[string]string{
		"empty":                   "",
		"a remark":                "# policy 1\n",
		"no version":              strings.Join(lines[2:], ""),
		"version 2":               "policy 2\n",
		"not UTF-8":               full + "# \xff\n",
		"NUL":                     full + "\x00\n",
		"unknown statement":       full + "trust everything\n",
		"keyword in quotes":       full + "\"lists\" lists\n",
		"open quote":              full + "lists \"lists\n",
		"quote in a word":         full + "lists a\"b\"\n",
		"no blank after a quote":  full + "lists \"a\"b\n",
		"bad escape":              full + `lists "\q"` + "\n",
		"65 words":                full + "pcr sha256:5" + strings.Repeat(" "+a.Hex(), 65) + "\n",
		"event without reason":    full + "event 0xc0000002 7 reason\n",
		"event of no PCR":         full + "event 0xc0000002 24 \"reason\"\n",
		"event of two PCRs":       full + "event 0xc0000002 6-7 \"reason\"\n",
		"event of 33 bits":        full + "event 0x1c0000002 7 \"reason\"\n",
		"event that is known":     full + "event 0x4 7 \"reason\"\n",
		"event twice":             full + "event 0xc0000001 7 \"reason\"\n",
		"empty path":              full + "lists \"\"\n",
		"a PCR twice":             full + "quoted sha256:0\n",
		"values twice":            full + "pcr sha256:4 " + b.Hex() + "\n",
		"no value":                full + "pcr sha256:5 \"reason\"\n",
		"no PCR":                  full + "quoted sha256\n",
		"PCR 24":                  full + "quoted sha256:24\n",
		"backwards":               full + "quoted sha256:3-1\n",
		"bank of no hash":         full + "quoted sm3:1\n",
		"bank of no TPM":          full + "quoted md5:1\n",
		"unknown bank":            full + "quoted sha257:1\n",
		"two PCRs for IMA":        "policy 1\nima sha256:10-11\n",
		"value of another bank":   "policy 1\npcr sha384:4 " + a.Hex() + "\n",
		"value that is no hex":    "policy 1\npcr sha256:4 " + strings.Repeat("x", 64) + "\n",
		"two PCRs, one value":     "policy 1\npcr sha256:4,5 " + a.Hex() + "\n",
		"no reason":               "policy 1\nfile " + a.String() + " at /x\n",
		"reason without quotes":   "policy 1\nfile " + a.String() + " because\n",
		"empty reason":            "policy 1\nfile " + a.String() + " \" \"\n",
		"no digest":               "policy 1\nfile /usr/bin/true \"mine\"\n",
		"bare hex":                "policy 1\nfile " + a.Hex() + " \"mine\"\n",
		"path without at":         "policy 1\nfile " + a.String() + " in /x \"mine\"\n",
		"at nothing":              "policy 1\nfile " + a.String() + " at \"\" \"mine\"\n",
		"at and no path":          "policy 1\nfile " + a.String() + " at \"mine\"\n",
		"deny without reason":     "policy 1\ndeny " + a.String() + "\n",
		"firmware, other word":    "policy 1\ntpm-firmware exactly 1\n",
		"firmware, no number":     "policy 1\ntpm-firmware at-least v1\n",
		"firmware, 65 bits":       "policy 1\ntpm-firmware at-least 0x10000000000000000\n",
		"serial 0":                "policy 1\nserial 0\n",
		"serial below 0":          "policy 1\nserial -1\n",
		"no day":                  "policy 1\nvalid-until 2026-02-30\n",
		"a time":                  "policy 1\nvalid-until 2026-02-03T00:00:00Z\n",
		"firmware log, IMA's PCR": "policy 1\nfirmware-log 0-10\nima sha256:10\n",
		"firmware log, PCR 24":    "policy 1\nfirmware-log 24\n",
		"boot loader of nothing":  "policy 1\nboot-loader \"\"\n",
		"boot loader, no digest":  "policy 1\nboot-loader shimx64.efi \"mine\"\n",
		"no image":                "policy 1\nuki \"\"\n",
		"empty command line":      "policy 1\nkernel-command-line \"\"\n",
		"blank at its end":        "policy 1\nkernel-command-line \"quiet \"\n",
		"command line of two":     "policy 1\nkernel-command-line root=/dev/vda quiet\n",
		"GRUB told nothing":       "policy 1\ngrub-command \"\"\n",
		"GRUB told twice":         "policy 1\ngrub-command a\ngrub-command \"a\"\n",
		"initramfs, no reason":    "policy 1\ninitramfs " + a.String() + "\n",
		"initramfs, no digest":    "policy 1\ninitramfs initrd.img \"mine\"\n",
		"padded accepted":         "policy 1\npadded accept\n",
		"violations ignored":      "policy 1\nviolations ignore\n",
		"unknown files accepted":  "policy 1\nunknown-files accept\n",
	}
	for i, line := range lines[1:] {
		keyword, _, _ := strings.Cut(line, " ")
		bad[fmt.Sprintf("line %d without words", i+2)] = strings.Join(lines[:i+1], "") + keyword + "\n"
		bad[fmt.Sprintf("line %d with five words more", i+2)] = strings.Join(lines[:i+1], "") + strings.TrimRight(strings.SplitN(line, "   ", 2)[0], "\n") + " x x x x x\n"
		if !slices.Contains([]string{"lists", "keyring", "signing-key", "ima-policy", "quoted", "extended", "file", "deny", "pcr", "uki", "initramfs", "boot-loader", "grub", "grub-command", "kernel"}, keyword) {
			bad[fmt.Sprintf("line %d twice", i+2)] = full + line
		}
	}
	if len(bad) < 90 {
		t.Errorf("%d bad files only", len(bad))
	}
	for name, text := range bad {
		f, err := policy.ParseFile([]byte(text))
		if err == nil || f != nil || !strings.HasPrefix(err.Error(), "line ") {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
	if _, err := policy.ParseFile(make([]byte, 5<<20)); err == nil || !strings.Contains(err.Error(), "limit") {
		t.Errorf("5 MiB: %v", err)
	}
	_, err := policy.ParseFile([]byte("policy 1\n\n# x\nviolations ignore\n"))
	if want := `line 4: violations: "ignore" is neither report nor deny`; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func words(f *policy.File) string {
	var s strings.Builder
	for _, c := range f.Words() {
		fmt.Fprintf(&s, "%s %s", c.About, c.Text)
		if c.Caution {
			fmt.Fprint(&s, " (caution)")
		}
		fmt.Fprintln(&s)
	}
	return s.String()
}

// Whatever lets something pass is said aloud.
func TestWords(t *testing.T) {
	f, err := policy.ParseFile([]byte(full))
	if err != nil {
		t.Fatal(err)
	}
	text := words(f)
	for _, want := range []string{
		"PCR 10 (sha256)", `"keys/web-1.pub"`, `"more lists"`, "lists that nobody signed are believed (caution)", "MD5 and SHA-1 are believed (caution)",
		`at "/run/a b" only: generated at boot`, "whoever lists it: CVE-2026-1234", "in no list is reported, and the host trusted all the same (caution)",
		"while it was measured is reported, and the host trusted all the same (caution)", "one of 2 values: Secure Boot", "had Secure Boot on", "explained by the firmware's log in PCRs 0 7", "as strong as SHA-1",
		"with an event of type 0xc0000001 on PCR 7 passes: a vendor's own (caution)", "0x2019102300163636 or later",
		`by the kernel image "older linux.efi"`, `the boot loader "shimx64.efi"`, "option ROM", `"boot-loader" needs "firmware-log" with PCR 4`, "one of these 2 images", `needs "firmware-log" with PCR 9`, `the kernel command line "root=/dev/vda debug"`, "made by dracut",
		`GRUB "grubx64.efi"`, "GRUB sha256:", `the kernel "vmlinuz", started by GRUB`, "started by GRUB: mine", `the initramfs "initrd.img"`, "nothing but 1 text,", `"grub" needs "firmware-log" with PCRs 4, 8 and 9`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in:\n%s", want, text)
		}
	}
	f, err = policy.ParseFile([]byte("policy 1\nima sha1:10\nlists lists\nkeyring k\n"))
	if err != nil {
		t.Fatal(err)
	}
	text = words(f)
	for _, want := range []string{"SHA-1 collisions can be made", "given to check with --ak", "in no list is a reason for distrust", "without Secure Boot passes (caution)", "any firmware version passes (caution)", "other firmware, boot loader or kernel passes"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in:\n%s", want, text)
		}
	}
	const grub = "policy 1\nima sha256:10\nlists lists\nkeyring k\nfirmware-log 0-9\ngrub grubx64.efi\n"
	for _, c := range []struct{ more, want string }{
		{"", `rejects every host: "grub" needs "grub-command"`},
		{"grub-command x\nkernel-command-line x\n", `rejects every host: where GRUB starts the kernel`},
		{"grub-command \"menuentry **\"\n", `boot with what * and ** stand for in "menuentry **" passes (caution)`},
		{"grub-command x\n", "boot without an initramfs passes where GRUB reads none"},
	} {
		if f, err = policy.ParseFile([]byte(grub + c.more)); err != nil {
			t.Fatal(err)
		}
		if text := words(f); !strings.Contains(text, c.want) {
			t.Errorf("%q is not in:\n%s", c.want, text)
		}
	}
	if f, err = policy.ParseFile([]byte(grub + "grub-command x\ninitramfs initrd.img\n")); err != nil {
		t.Fatal(err)
	}
	if text := words(f); strings.Contains(text, "rejects") || strings.Contains(text, "without an initramfs") {
		t.Errorf("%s", text)
	}
	const byHand = "by anything else passes, which can extend PCRs from 8 on by hand"
	for expected, caution := range map[string]bool{
		"": true, "pcr sha256:0 " + a.Hex(): true, "pcr sha256:4 " + a.Hex(): false, "pcr sha256:7 " + a.Hex(): false, "firmware-log 4": false, "firmware-log 0": true,
	} {
		if f, err = policy.ParseFile([]byte("policy 1\nima sha256:10\nlists lists\nkeyring k\nuki linux.efi\n" + expected)); err != nil {
			t.Fatal(err)
		}
		if text := words(f); strings.Contains(text, byHand) != caution {
			t.Errorf("with %q it is not %v that %q is in:\n%s", expected, caution, byHand, text)
		}
	}
}

func FuzzParseFile(f *testing.F) {
	f.Add([]byte(full))
	f.Add([]byte("policy 1\nlists \"\\x00\"\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := policy.ParseFile(b)
		if (p == nil) == (err == nil) {
			t.Fatalf("%v, %v", p, err)
		}
		if err == nil && (len(p.Words()) == 0 || p.Known.Len() > 0) {
			t.Errorf("%+v", p)
		}
	})
}
