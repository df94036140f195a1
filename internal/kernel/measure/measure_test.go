package measure

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"diglim/internal/digest"
	"diglim/internal/kernel/tpmextend"
	"diglim/internal/measured"
	"diglim/tpm/imalog"
	"diglim/tpm/tpmtest"
)

// A kernelOfFiles is no kernel but plain files where one has its own, and
// functions that do what IMA would. Real ones are tested in guests.
type kernelOfFiles struct {
	t     *testing.T
	files kernelFiles
	pcr   int             // that the policy measures into; 0 is none
	order []string        // names measured
	log   []tpmtest.Entry // all
	seen  map[string]bool // paths given to the user
}

func newKernel(t *testing.T) *kernelOfFiles {
	t.Helper()
	k := &kernelOfFiles{t: t, seen: map[string]bool{}}
	root := t.TempDir()
	k.files = kernelFiles{root: root, securityfs: filepath.Join(root, "security"), read: k.read,
		chown: func(f *os.File) error { k.seen[f.Name()] = true; return nil }}
	k.write("security/ima/policy", "")
	k.write("security/ima/binary_runtime_measurements", "")
	k.write("sys/class/tpm/tpm0/pcr-sha1/12", strings.Repeat("0", 40)+"\n")
	k.write("sys/class/tpm/tpm0/pcr-sha256/12", strings.Repeat("0", 64)+"\n")
	k.log = []tpmtest.Entry{tpmtest.NewEntry("boot_aggregate", digest.Sum(digest.SHA256, nil))}
	k.write("security/ima/binary_runtime_measurements", string(tpmtest.Log(digest.SHA1, k.log...)))
	return k
}

func (k *kernelOfFiles) write(name, content string) {
	k.t.Helper()
	path := filepath.Join(k.files.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		k.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		k.t.Fatal(err)
	}
}

// read measures a file as IMA does, if the policy that was written says so.
func (k *kernelOfFiles) read(path string) error {
	if policy, err := os.ReadFile(filepath.Join(k.files.securityfs, "ima/policy")); err == nil && strings.HasPrefix(string(policy), measured.Rule(12)+"\n") {
		k.pcr = 12
		// It takes no other.
		if err := os.Remove(filepath.Join(k.files.securityfs, "ima/policy")); err != nil {
			return err
		}
	}
	if k.pcr == 0 || !k.seen[path] {
		return nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	logged := strings.TrimPrefix(path, k.files.root)
	e := tpmtest.Entry{PCR: k.pcr, Template: "ima-ng", Digest: digest.Sum(digest.SHA256, content), Path: logged}
	k.log = append(k.log, e)
	f, err := os.OpenFile(filepath.Join(k.files.securityfs, "ima/binary_runtime_measurements"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	name, _ := measured.Name(logged)
	k.order = append(k.order, name)
	if _, err := os.Stat(k.files.root + "/sys"); err == nil {
		k.write("sys/class/tpm/tpm0/pcr-sha256/12", strings.Repeat("A", 64)+"\n")
	}
	_, err = f.Write(tpmtest.Log(digest.SHA1, e))
	return errors.Join(err, f.Close())
}

func (k *kernelOfFiles) measure(pcr int, names ...string) {
	k.t.Helper()
	m, err := open(k.files, "", pcr)
	if err != nil {
		k.t.Fatal(err)
	}
	for _, name := range names {
		if err := m.File(name, []byte(name)); err != nil {
			k.t.Fatal(err)
		}
	}
	if err := m.Close(); err != nil {
		k.t.Fatal(err)
	}
}

// What is measured is in IMA's log, once and in order, over several runs; and
// nothing is left behind.
func TestMeasure(t *testing.T) {
	k := newKernel(t)
	k.measure(0, "config") // nothing was measured, nothing is
	if k.order != nil {
		t.Errorf("measured %q", k.order)
	}
	k.measure(12, "config", "lists/b", "lists/a", "lists/b")
	k.measure(12, "config", "lists/a")
	k.measure(0, "keys/dir/key", "lists/c")
	if want := []string{"ima-policy", "config", "lists/b", "lists/a", "keys/dir/key", "lists/c"}; !slices.Equal(k.order, want) {
		t.Errorf("measured %q, want %q", k.order, want)
	}
	if _, err := os.Stat(k.files.root + measured.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
	if m, err := open(k.files, "", 13); m != nil || err == nil || !strings.HasPrefix(err.Error(), "PCR 12 is what") {
		t.Errorf("another PCR: %v", err)
	}
	k.measure(12) // the lock is free
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*kernelOfFiles)
		want   string
	}{
		"too late":        {func(k *kernelOfFiles) { os.Remove(filepath.Join(k.files.securityfs, "ima/policy")) }, ErrTooLate.Error()},
		"nothing happens": {func(k *kernelOfFiles) { k.files.chown = func(*os.File) error { return nil } }, "measure ima-policy: " + ErrNot.Error()},
		"no TPM":          {func(k *kernelOfFiles) { os.RemoveAll(k.files.root + "/sys") }, ErrNoTPM.Error()},
		"no IMA":          {func(k *kernelOfFiles) { os.RemoveAll(k.files.securityfs) }, "IMA log: "},
		"own policy":      {func(k *kernelOfFiles) { k.write(measured.PolicyFile, "\nmeasure pcr=12") }, "IMA policy /etc/ima/ima-policy: line 2: "},
		"early policy": {func(k *kernelOfFiles) {
			k.write(measured.EarlyPolicy, "/etc/ima/ima-policy")
			k.write(measured.PolicyFile, "")
		}, "IMA policy /etc/diglim/ima-policy: line 1: "},
		"a log that is none": {func(k *kernelOfFiles) {
			k.write("security/ima/binary_runtime_measurements", strings.Repeat("x", 100))
		}, "IMA log: entry 1: "},
		"a TPM that IMA has not found": {func(k *kernelOfFiles) {
			read := k.files.read
			k.files.read = func(path string) error {
				err := read(path)
				k.write("sys/class/tpm/tpm0/pcr-sha256/12", strings.Repeat("0", 64)+"\n")
				return err
			}
		}, ErrNoTPM.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKernel(t)
			c.change(k)
			m, err := open(k.files, "", 12)
			if m != nil || err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("%v, want %s", err, c.want)
			}
			if _, err := os.Stat(k.files.root + measured.Dir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("left behind: %v", err)
			}
		})
	}
	var none *Measurer
	if err := errors.Join(none.File("config", nil), none.Close()); err != nil {
		t.Error(err)
	}
}

// A countingTPM keeps commands.
type countingTPM struct{ commands [][]byte }

func (c *countingTPM) Write(b []byte) (int, error) {
	c.commands = append(c.commands, bytes.Clone(b))
	return len(b), nil
}

func (c *countingTPM) Read(b []byte) (int, error) {
	return copy(b, []byte{0x80, 2, 0, 0, 0, 19, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0}), nil
}

func (c *countingTPM) Close() error { return nil }

// What is unknown is logged and extended once, also by the next who watches, and
// the log says where between IMA's entries it belongs.
func TestExtend(t *testing.T) {
	k := newKernel(t)
	tpm := &countingTPM{}
	if _, err := openExtender(k.files.root, k.files.securityfs, tpm); !errors.Is(err, ErrNothing) {
		t.Errorf("nothing measured: %v", err)
	}
	extend := func(paths ...string) {
		t.Helper()
		x, err := openExtender(k.files.root, k.files.securityfs, tpm)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			if err := x.Add(path, digest.Sum(digest.SHA256, []byte(path))); err != nil {
				t.Fatal(err)
			}
		}
		if err := x.Close(); err != nil {
			t.Fatal(err)
		}
	}
	k.measure(12, "config")
	extend("/tmp/a", "/tmp/b", "/tmp/a")
	k.measure(0, "lists/c")
	extend("/tmp/a", "/tmp/c")
	log, err := os.ReadFile(k.files.root + measured.LogPath)
	if err != nil {
		t.Fatal(err)
	}
	records, err := measured.Records(log)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []measured.Content{{Path: "/tmp/a", After: 2}, {Path: "/tmp/b", After: 2}, {Path: "/tmp/c", After: 3}} {
		want.Digest = digest.Sum(digest.SHA256, []byte(want.Path))
		if len(records) != 3 || records[i].Content != want || records[i].PCR != 12 {
			t.Fatalf("records %+v", records)
		}
		command, err := tpmextend.Command(12, []digest.Digest{digest.Sum(digest.SHA1, want.Text()), digest.Sum(digest.SHA256, want.Text())})
		if err != nil || !bytes.Equal(tpm.commands[i], command) {
			t.Errorf("command %d: %x, want %x, %v", i, tpm.commands[i], command, err)
		}
	}
	if len(tpm.commands) != 3 {
		t.Errorf("%d commands", len(tpm.commands))
	}
	// One that is killed has written half a record, or a whole one that the PCR does
	// not have; the next one puts both right.
	for i, killed := range []struct {
		log      []byte
		extended int // records that the PCR has
		commands int // that put it right
	}{{log, 3, 0}, {log[:len(log)-1], 2, 0}, {log, 2, 1}, {log, 0, 0}} {
		value, err := measured.Replay(imalog.Zero(digest.SHA1), sums(t, k.log, digest.SHA1), records[:killed.extended])
		if err != nil {
			t.Fatal(err)
		}
		k.write("sys/class/tpm/tpm0/pcr-sha1/12", strings.ToUpper(value.Hex())+"\n")
		if err := os.WriteFile(k.files.root+measured.LogPath, killed.log, 0o644); err != nil {
			t.Fatal(err)
		}
		before := len(tpm.commands)
		extend()
		done := tpm.commands[before:]
		if len(done) != killed.commands {
			t.Errorf("killed %d: commands %x", i, done)
		}
		for _, command := range done {
			if want, err := tpmextend.Command(12, records[2].Digests); err != nil || !bytes.Equal(command, want) {
				t.Errorf("killed %d: command %x, want %x, %v", i, command, want, err)
			}
		}
		left, err := os.ReadFile(k.files.root + measured.LogPath)
		if _, bad := measured.Records(left); err != nil || bad != nil {
			t.Errorf("killed %d: log: %v, %v", i, err, bad)
		}
	}
	k.write("run/log/diglim/measure.cel", string(log[:len(log)/2])+"\n")
	if _, err := openExtender(k.files.root, k.files.securityfs, tpm); err == nil || !strings.Contains(err.Error(), "measure.cel: record ") {
		t.Errorf("a log that is none: %v", err)
	}
}

// sums are the bank's hashes of a log's entries on PCR 12.
func sums(t *testing.T, log []tpmtest.Entry, bank digest.Algorithm) (sums []digest.Digest) {
	t.Helper()
	for e, err := range imalog.Entries(bytes.NewReader(tpmtest.Log(digest.SHA1, log...)), imalog.Layout{Hash: digest.SHA1}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.PCR == 12 {
			sums = append(sums, e.Sum(bank))
		}
	}
	return sums
}
