// Package scope says which files the gate refuses when they are in no list, and
// which it only reports.
package scope

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"path"
	"reflect"
	"strconv"
	"strings"

	"diglim/internal/kernel/gate/set"
)

// The scopes that have a name.
const (
	All    = "all"    // every file
	Vendor = "vendor" // all but what lies where users put theirs
)

// vendor are the directories that belong to who runs the machine (FHS 3.0), not
// to who made the distribution.
var vendor = [...]string{"/usr/local", "/opt", "/home", "/root", "/srv", "/tmp", "/var", "/run", "/mnt", "/media"}

// magics are the file systems that rules can name (statfs(2)).
var magics = map[string]uint64{
	"btrfs": 0x9123683e, "erofs": 0xe0f5e1e2, "ext4": 0xef53, "f2fs": 0xf2f52010, "fuse": 0x65735546, "iso9660": 0x9660,
	"nfs": 0x6969, "overlay": 0x794c7630, "ramfs": 0x858458f6, "squashfs": 0x73717368, "tmpfs": 0x01021994, "vfat": 0x4d44, "xfs": 0x58465342,
}

// maxFile is the limit on a file of rules in bytes.
const maxFile = 64 << 10

// Load returns the rules of a scope: All, Vendor, or the name of a file.
func Load(name string) ([]set.Rule, error) {
	switch name {
	case All:
		return nil, nil
	case Vendor:
		rules := make([]set.Rule, len(vendor))
		for i, dir := range vendor {
			rules[i].Path = dir
		}
		return rules, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("scope: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("more than %d bytes", maxFile)
	}
	if err != nil {
		return nil, fmt.Errorf("scope: %s: %w", name, err)
	}
	rules, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("scope: %s: %w", name, err)
	}
	return rules, nil
}

// Name returns what a scope is called: All, Vendor, or how many rules it has.
func Name(rules []set.Rule) string {
	vendor, _ := Load(Vendor)
	switch {
	case len(rules) == 0:
		return All
	case reflect.DeepEqual(rules, vendor):
		return Vendor
	}
	return fmt.Sprintf("%d rules", len(rules))
}

// Format writes rules, each as Parse reads it, with file systems as numbers.
func Format(rules []set.Rule) (lines []string) {
	for _, r := range rules {
		line := set.Log.String()
		if r.Enforce {
			line = set.Enforce.String()
		}
		if r.Owner != nil {
			line += fmt.Sprintf(" owner=%d", *r.Owner)
		}
		if r.FS != nil {
			line += fmt.Sprintf(" fs=%#x", *r.FS)
		}
		if r.Path != "" {
			line += " path=" + r.Path
		}
		lines = append(lines, line)
	}
	return lines
}

// Parse reads rules, one a line:
//
//	log|enforce [owner=UID] [fs=NAME|MAGIC] [path=PREFIX]
//
// where # and what follows is a comment, and MAGIC a number with 0x in front.
// Errors name the line.
func Parse(text []byte) ([]set.Rule, error) {
	var rules []set.Rule
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		rule, err := parseRule(fields)
		if err == nil && len(rules) == set.MaxRules {
			err = fmt.Errorf("more than %d rules", set.MaxRules)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		rules = append(rules, rule)
	}
	return rules, lines.Err()
}

func parseRule(fields []string) (set.Rule, error) {
	mode, err := set.ParseMode(fields[0])
	if err != nil {
		return set.Rule{}, err
	}
	r := set.Rule{Enforce: mode == set.Enforce}
	for _, field := range fields[1:] {
		name, value, ok := strings.Cut(field, "=")
		var twice bool
		switch {
		case !ok || value == "":
			return set.Rule{}, fmt.Errorf("%q is not NAME=VALUE", field)
		case name == "owner":
			twice = r.Owner != nil
			uid, err := strconv.ParseUint(value, 10, 32)
			if err != nil {
				return set.Rule{}, fmt.Errorf("owner %q is not a user id", value)
			}
			owner := uint32(uid)
			r.Owner = &owner
		case name == "fs":
			twice = r.FS != nil
			magic, known := magics[value]
			if hex, found := strings.CutPrefix(value, "0x"); found && !known {
				if magic, err = strconv.ParseUint(hex, 16, 32); err == nil {
					known = true
				}
			}
			if !known {
				return set.Rule{}, fmt.Errorf("file system %q is not known; its magic number can be given instead, 0xef53", value)
			}
			r.FS = &magic
		case name == "path":
			twice = r.Path != ""
			r.Path = value
			if value == "/" || !path.IsAbs(value) || path.Clean(value) != value || len(value) > set.MaxPath {
				return set.Rule{}, fmt.Errorf("path %q is not an absolute, clean path below the root of at most %d bytes", value, set.MaxPath)
			}
		default:
			return set.Rule{}, fmt.Errorf("%q is not known: owner, fs and path are", name)
		}
		if twice {
			return set.Rule{}, fmt.Errorf("%s twice", name)
		}
	}
	return r, nil
}
