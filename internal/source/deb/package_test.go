package deb

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"diglim/internal/digest"
	"diglim/internal/source/plain"
)

var longName = "usr/share/" + strings.Repeat("long/", 300) + "name"

// wholeTar has a member of each kind.
func wholeTar(t testing.TB) []byte {
	su := regular("./usr/bin/su", "su")
	su.Mode = 0o104755
	return tarball(t,
		tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755}, tar.Header{Typeflag: tar.TypeDir, Name: "./usr/", Mode: 0o755},
		su, regular("./usr/bin/empty", ""), regular(longName, "long"),
		tar.Header{Typeflag: tar.TypeSymlink, Name: "./bin", Linkname: "usr/bin"},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "./etc", Linkname: "/../../etc"},
		tar.Header{Typeflag: tar.TypeLink, Name: "./usr/bin/sudo", Linkname: "./usr/bin/su"},
		tar.Header{Typeflag: tar.TypeLink, Name: "./bin2", Linkname: "bin"},
		tar.Header{Typeflag: tar.TypeChar, Name: "./dev/null"}, tar.Header{Typeflag: tar.TypeFifo, Name: "./run/pipe"},
	)
}

func wholeFiles() []plain.File {
	return []plain.File{
		{Path: "/usr/bin/su", Mode: 0o4755, Size: 2, Digest: sha("su")},
		{Path: "/usr/bin/empty", Mode: 0o644, Digest: sha("")},
		{Path: "/" + longName, Mode: 0o644, Size: 4, Digest: sha("long")},
		{Path: "/usr/bin/sudo", Mode: 0o4755, Size: 2, Digest: sha("su")},
	}
}

func TestReadPackage(t *testing.T) {
	control, data := controlTar(t, "test", "1:2.0-1", "amd64"), wholeTar(t)
	format := arMember{"debian-binary", []byte("2.0\n")}
	for name, deb := range map[string][]byte{
		"gzip":  ar(format, arMember{"control.tar.gz", gz(control)}, arMember{"data.tar.gz", gz(data)}),
		"xz":    ar(format, arMember{"control.tar.xz", xz(t, control)}, arMember{"data.tar.xz", xz(t, data)}),
		"zstd":  ar(format, arMember{"control.tar.zst", zst(t, control)}, arMember{"data.tar.zst", zst(t, data)}),
		"plain": ar(format, arMember{"control.tar", control}, arMember{"data.tar", data}),
		"mixed": ar(format, arMember{"control.tar", control}, arMember{"data.tar.xz", xz(t, data)}),
		"a later minor version, slashes, members besides": ar(arMember{"debian-binary/", []byte("2.1\nmore\n")},
			arMember{"_first", []byte("odd")}, arMember{"control.tar.gz/", gz(control)}, arMember{"_gpgorigin", []byte("sig")}, arMember{"data.tar.gz/", gz(data)}, arMember{"_last", nil}),
	} {
		p, files, err := readPackage(bytes.NewReader(deb))
		if err != nil || p.String() != "test_1:2.0-1_amd64" || !reflect.DeepEqual(files, wholeFiles()) {
			t.Errorf("%s: %s, %+v, %v", name, p, files, err)
		}
	}
}

func TestReadPackageRefusals(t *testing.T) {
	control := arMember{"control.tar.gz", gz(controlTar(t, "test", "1", "amd64"))}
	data := arMember{"data.tar.gz", gz(wholeTar(t))}
	format := arMember{"debian-binary", []byte("2.0\n")}
	good := ar(format, control, data)
	withControl := func(headers ...tar.Header) []byte {
		return ar(format, arMember{"control.tar", tarball(t, headers...)}, data)
	}
	with := func(headers ...tar.Header) []byte {
		return ar(format, control, arMember{"data.tar", tarball(t, headers...)})
	}
	link := func(to string) tar.Header { return tar.Header{Typeflag: tar.TypeLink, Name: "b", Linkname: to} }
	a := regular("a", "x")
	lying := tarball(t, a)
	copy(lying[124:], "77777777777\x00") // 8 GiB, by one block of data
	fixChecksum(lying)
	sparse := tarball(t, a)
	sparse[156] = tar.TypeGNUSparse
	fixChecksum(sparse)
	paxSparse := bytes.ReplaceAll(tarball(t, tar.Header{Typeflag: tar.TypeReg, Name: "a", Mode: 0o644, Format: tar.FormatPAX,
		Uname:      "1\n0\n1\n" + strings.Repeat("\x00", 506) + "x",
		PAXRecords: map[string]string{"GNU_sparse.major": "1", "GNU_sparse.minor": "0", "GNU_sparse.realsize": "1"}}), []byte("GNU_"), []byte("GNU."))
	for _, c := range []struct {
		name string
		deb  []byte
		text string
	}{
		{"nothing", nil, "unexpected EOF"},
		{"text", []byte("this is no package"), "ar magic: offset 0"},
		{"an RPM", append([]byte{0xed, 0xab, 0xee, 0xdb}, make([]byte, 100)...), "ar magic"},
		{"magic only", []byte(arMagic), "without debian-binary"},
		{"no format", ar(control, data), "expected debian-binary"},
		{"version 3", ar(arMember{"debian-binary", []byte("3.0\n")}, control, data), "must be 2"},
		{"version 20", ar(arMember{"debian-binary", []byte("20.0\n")}, control, data), "must be 2"},
		{"no version", ar(arMember{"debian-binary", nil}, control, data), "must be 2"},
		{"long version", ar(arMember{"debian-binary", bytes.Repeat([]byte("2.0\n"), 100)}, control, data), "limit"},
		{"data before control", ar(format, data, control), "expected control.tar"},
		{"no control", ar(format, data), "expected control.tar"},
		{"no data", ar(format, control), "without data.tar"},
		{"data twice", ar(format, control, data, data), "expected no other"},
		{"control twice", ar(format, control, control, data), "expected data.tar"},
		{"another member", ar(format, control, arMember{"extra", nil}, data), "expected data.tar"},
		{"underscore first", ar(arMember{"_x", nil}, format, control, data), "expected debian-binary"},
		{"bzip2", ar(format, control, arMember{"data.tar.bz2", []byte("BZh9")}), "bz2"},
		{"not as its name says", ar(format, control, arMember{"data.tar.xz", gz(wholeTar(t))}), "xz"},
		{"garbage behind", append(bytes.Clone(good), "garbage"...), "ar header"},
		{"60 bytes behind", append(bytes.Clone(good), make([]byte, 60)...), "ar header"},
		{"size lies", bytes.Replace(good, []byte("4         `\n"), []byte("9999999999`\n"), 1), "limit"},
		{"size is none", bytes.Replace(good, []byte("4         `\n"), []byte("-4        `\n"), 1), "not a number"},
		{"no end of header", bytes.Replace(good, []byte("`\n"), []byte("``"), 1), "ends in"},
		{"no control file", withControl(regular("x", "")), "no name, version"},
		{"control is a link", withControl(tar.Header{Typeflag: tar.TypeSymlink, Name: "control", Linkname: "/etc/passwd"}), "not a regular file"},
		{"control twice in it", withControl(regular("control", "Package: a\nVersion: 1\nArchitecture: all\n"), regular("./control", "Package: b\n")), "twice"},
		{"control without version", withControl(regular("control", "Package: a\nArchitecture: all\n")), "no name, version"},
		{"two packages", withControl(regular("control", "Package: a\nVersion: 1\nArchitecture: all\n\nPackage: b\n")), "twice"},
		{"a script twice", withControl(regular("control", "Package: a\nVersion: 1\nArchitecture: all\n"), regular("prerm", "x"), regular("./prerm", "y")), "twice"},
		{"a script is a link", withControl(regular("control", "Package: a\nVersion: 1\nArchitecture: all\n"), tar.Header{Typeflag: tar.TypeSymlink, Name: "postinst", Linkname: "/bin/sh"}), "not a regular file"},
		{"name climbs", withControl(regular("control", "Package: ../a\nVersion: 1\nArchitecture: all\n")), "cannot be one"},
		{"junk behind the tar", ar(format, control, arMember{"data.tar.gz", gz(append(wholeTar(t), "junk"...))}), "behind the end"},
		{"junk behind the stream", ar(format, control, arMember{"data.tar.gz", append(gz(wholeTar(t)), "junk"...)}), "gzip"},
		{"climbs", with(regular("../etc/passwd", "x")), "climbs"},
		{"climbs inside", with(regular("a/../../etc/passwd", "x")), "climbs"},
		{"absolute", with(regular("/etc/passwd", "x")), "absolute"},
		{"newline", with(regular("a\nb", "x")), "control characters"},
		{"a name of 64 KiB", with(regular(strings.Repeat("x/", 32<<10)+"x", "x")), "name"},
		{"a file twice", with(a, regular("./a", "y")), "twice"},
		{"a link over a file", with(a, tar.Header{Typeflag: tar.TypeSymlink, Name: "./a", Linkname: "b"}), "twice"},
		{"hard link out", with(a, link("../../etc/shadow")), "climbs"},
		{"hard link to the root", with(a, link("/etc/shadow")), "absolute"},
		{"hard link to nothing", with(a, link("c")), "not before it"},
		{"hard link to what follows", with(link("a"), a), "not before it"},
		{"hard link to itself", with(link("b")), "not before it"},
		{"a size that lies", ar(format, control, arMember{"data.tar", lying}), "more than the limit"},
		{"sparse", ar(format, control, arMember{"data.tar", sparse}), "data.tar"},
		{"sparse by pax", ar(format, control, arMember{"data.tar", paxSparse}), "sparse files"},
		{"another type", with(tar.Header{Typeflag: 'S' + 1, Name: "a"}), "not supported"},
	} {
		p, files, err := readPackage(bytes.NewReader(c.deb))
		if err == nil {
			t.Errorf("%s: %s, %+v", c.name, p, files)
		} else if text := err.Error(); !strings.Contains(text, c.text) || strings.ContainsAny(text, "\n\x00") || len(text) > 300 {
			t.Errorf("%s: %.400q", c.name, text)
		}
	}
	for _, deb := range [][]byte{good, ar(format, control, arMember{"data.tar.xz", xz(t, wholeTar(t))}), ar(format, control, arMember{"data.tar.zst", zst(t, wholeTar(t))})} {
		for i := range deb {
			if _, _, err := readPackage(bytes.NewReader(deb[:i])); err == nil && i != len(deb) {
				t.Errorf("cut at %d of %d: no error", i, len(deb))
			}
		}
	}
}

// fixChecksum makes a tar header good that has been changed.
func fixChecksum(b []byte) {
	copy(b[148:], "        ")
	sum := 0
	for _, c := range b[:512] {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
}

// A package that unpacks to too many members, or to names without end, is
// refused before it takes much memory.
func TestPackageMemory(t *testing.T) {
	many := func(n int, name string) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for i := range n {
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("%s%07d", name, i)}); err != nil {
				t.Fatal(err)
			}
		}
		return newDeb(t, "bomb", "1", "all", b.Bytes())
	}
	for name, c := range map[string]struct {
		deb  []byte
		text string
	}{
		"members": {many(maxFiles+1, ""), "more than 262144 members"},
		"paths":   {many(maxPaths/4000+1, strings.Repeat("x", 4000)), "paths of more than"},
	} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		_, _, err := readPackage(bytes.NewReader(c.deb))
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
		if after.HeapSys > before.HeapSys+(128<<20) {
			t.Errorf("%s: %d bytes of heap", name, after.HeapSys-before.HeapSys)
		}
	}
}

// What dpkg-deb packs, in each way to compress it, is what lies on the disk.
func TestAsDpkgDeb(t *testing.T) {
	dpkg := tool(t, "dpkg-deb")
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree")
	for name, data := range map[string]string{
		"DEBIAN/control":             "Package: probe\nVersion: 1:1.0~rc1-2\nArchitecture: amd64\nMulti-Arch: same\nMaintainer: x\nDescription: x\n",
		"DEBIAN/postinst":            "#!/bin/sh\n# postinst\n",
		"DEBIAN/prerm":               "#!/bin/sh\n# prerm\n",
		"DEBIAN/config":              "#!/bin/sh\n# config\n",
		"DEBIAN/templates":           "Template: probe/x\nType: string\nDescription: x\n",
		"usr/bin/probe":              "#!/bin/sh\n",
		"usr/share/" + "ümlaut":      "x",
		"usr/share/empty":            "",
		strings.Repeat("d/", 150):    "",
		longName[:200] + "/x":        "long",
		"usr/lib/" + "large":         strings.Repeat("large", 100_000),
		"etc/a file with spaces.txt": "spaces",
	} {
		path := filepath.Join(tree, name)
		if strings.HasSuffix(name, "/") {
			path += "x"
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(tree, "usr/bin/probe"), 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(tree, "usr/bin/probe"), filepath.Join(tree, "usr/bin/alias")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("probe", filepath.Join(tree, "usr/bin/link")); err != nil {
		t.Fatal(err)
	}
	for _, script := range []string{"postinst", "prerm", "config"} {
		if err := os.Chmod(filepath.Join(tree, "DEBIAN", script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	want := onDisk(t, tree, "probe:amd64")
	for _, compression := range []string{"none", "gzip", "xz", "zstd"} {
		path := filepath.Join(dir, compression+".deb")
		if out, err := exec.Command(dpkg, "-Z"+compression, "--build", tree, path).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if _, _, err := ReadFile(path, Options{}); !errors.Is(err, ErrUnsigned) {
			t.Errorf("%s: a lone package: %v", compression, err)
		}
		p, files, err := ReadFile(path, Options{AllowUnsigned: true})
		if err != nil {
			t.Errorf("%s: %v", compression, err)
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if p.String() != "probe_1:1.0~rc1-2_amd64" || p.Filename != path || p.Size != int64(len(b)) || p.SHA256 != digest.Sum(digest.SHA256, b) {
			t.Errorf("%s: %+v", compression, p)
		}
		same(t, compression, files, want)
	}
	for _, path := range []string{dir, filepath.Join(dir, "missing"), "/dev/null"} {
		if _, _, err := ReadFile(path, Options{AllowUnsigned: true}); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// onDisk returns the files of an unpacked package, by path, and the scripts in
// DEBIAN as those of that name.
func onDisk(t testing.TB, root, infoName string) map[string]plain.File {
	t.Helper()
	paths, errs := plain.Find([]string{root})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	files := make(map[string]plain.File)
	for _, path := range paths {
		f, err := plain.Read(path, digest.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		f.Path = strings.TrimPrefix(path, root)
		if script, ok := strings.CutPrefix(f.Path, "/DEBIAN/"); !ok {
			files[f.Path] = f
		} else if slices.Contains(scripts, script) {
			f.Path = "/var/lib/dpkg/info/" + infoName + "." + script
			files[f.Path] = f
		}
	}
	return files
}

func same(t testing.TB, name string, files []plain.File, want map[string]plain.File) {
	t.Helper()
	if len(files) != len(want) || len(files) == 0 {
		t.Errorf("%s: %d files, %d on the disk", name, len(files), len(want))
	}
	for _, f := range files {
		if f != want[f.Path] {
			t.Errorf("%s: %+v, on the disk %+v", name, f, want[f.Path])
		}
	}
}
