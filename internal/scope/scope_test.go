package scope

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"diglim/internal/kernel/gate/set"
)

func TestParse(t *testing.T) {
	uid, ext4, own := uint32(1000), uint64(0xef53), uint64(0x12345678)
	rules, err := Parse([]byte("# what users bring\nlog owner=1000 path=/home # theirs\n\nenforce fs=ext4\nlog fs=0x12345678\nlog\n"))
	want := []set.Rule{{Owner: &uid, Path: "/home"}, {Enforce: true, FS: &ext4}, {FS: &own}, {}}
	if err != nil || !reflect.DeepEqual(rules, want) {
		t.Errorf("Parse = %+v, %v", rules, err)
	}
	if again, err := Parse([]byte(strings.Join(Format(rules), "\n"))); err != nil || !reflect.DeepEqual(again, rules) {
		t.Errorf("Format = %q, %v", Format(rules), err)
	}
	if name := Name(rules); name != "4 rules" {
		t.Errorf("Name = %q", name)
	}
}

func TestRefused(t *testing.T) {
	for text, want := range map[string]string{
		"log\ndeny":                             `line 2: mode "deny" is not known`,
		"log owner":                             `line 1: "owner" is not NAME=VALUE`,
		"log owner=":                            `is not NAME=VALUE`,
		"log owner=root":                        `owner "root" is not a user id`,
		"log owner=4294967296":                  `is not a user id`,
		"log owner=1 owner=2":                   `owner twice`,
		"log fs=ext5":                           `file system "ext5" is not known`,
		"log fs=61267":                          `is not known`,
		"log path=home":                         `path "home" is not`,
		"log path=/home/":                       `path "/home/" is not`,
		"log path=/":                            `path "/" is not`,
		"log path=/a/../b":                      `is not`,
		"log path=/" + strings.Repeat("x", 232): `at most 232 bytes`,
		"log group=0":                           `"group" is not known`,
		strings.Repeat("log\n", 33):             `line 33: more than 32 rules`,
		"log " + strings.Repeat("x", 1<<16):     `token too long`,
	} {
		if rules, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %+v, %v, want %s", text, rules, err, want)
		}
	}
}

func TestNames(t *testing.T) {
	for _, name := range []string{All, Vendor} {
		rules, err := Load(name)
		if err != nil || Name(rules) != name {
			t.Errorf("%s: %v, %v", name, rules, err)
		}
	}
	if _, err := Load(filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("no error without the file")
	}
	file := filepath.Join(t.TempDir(), "rules")
	if err := os.WriteFile(file, []byte("log path=/opt\nx"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(file); err == nil || !strings.Contains(err.Error(), file+": line 2: ") {
		t.Errorf("Load: %v", err)
	}
}
