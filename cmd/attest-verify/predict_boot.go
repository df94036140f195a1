package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"diglim/internal/digest"
	"diglim/internal/measured"
	"diglim/internal/source/plain"
)

// boot goes through what diglim-upload boot measures: first in the initramfs,
// then with the lists of the system that it switches to.
func (p *prediction) boot() error {
	for _, name := range []string{"uploader", "keyring", "ima-policy", "mode", "scope", "lock", "pcr", "interface"} {
		if p.cmd.Flags().Changed(name) {
			return fmt.Errorf("--%s is not for --initramfs, which has it", name)
		}
	}
	img, err := readImage(p.initramfs, p.hash)
	if err != nil {
		return fmt.Errorf("%s: %w", p.initramfs, err)
	}
	if err := p.configure(img); err != nil {
		return err
	}
	lock := p.config.Lock
	p.config.Lock = false // that is the last act
	policy, ok := img.contents[measured.EarlyPolicy]
	if !ok {
		policy = img.contents[measured.PolicyFile]
	}
	if err := p.start(policy); err != nil {
		return err
	}
	p.add(measured.ProgramName, img.contents[img.program])
	for _, name := range img.below(measured.KeyDir) {
		p.add(measured.KeyName(strings.TrimPrefix(name, measured.KeyDir+"/")), img.contents[name])
	}
	list, err := img.list()
	if err != nil {
		return err
	}
	own := predictedList{name: measured.InitramfsList, content: list}
	lists := []predictedList{own}
	for _, name := range img.below(measured.ListDir) {
		if base := strings.TrimPrefix(name, measured.ListDir+"/"); base != own.name && base[0] != '.' && !strings.Contains(base, "/") {
			lists = append(lists, predictedList{name: base, content: img.contents[name]})
		}
	}
	if err := p.addLists(lists); err != nil {
		return err
	}

	p.config.Lock = lock
	p.add(measured.ConfigName, p.config.Text())
	if lists, err = p.findLists(); err != nil {
		return err
	}
	return p.addLists(append(lists, own))
}

// configure takes the settings from the boot.conf of an image, and from the
// kernel command line.
func (p *prediction) configure(img *image) error {
	measures := false
	n := 0
	for line := range strings.Lines(string(img.contents[measured.BootConf])) {
		n++
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		var err error
		switch name, value := fields[0], strings.Join(fields[1:], " "); name {
		case "onfail":
		case "measure-pcr":
			measures = true
			err = p.cmd.Flags().Set("pcr", value)
		case "lock":
			p.config.Lock = value == "" || value == "true"
		case "mode", "interface":
			err = p.cmd.Flags().Set(name, value)
		case "scope":
			if err = p.cmd.Flags().Set(name, value); path.IsAbs(value) {
				p.rules, err = img.contents[value], nil
				if p.rules == nil {
					err = fmt.Errorf("%s is not in the initramfs", value)
				}
			}
		default:
			err = fmt.Errorf("what %q changes is not predicted", name)
		}
		if err != nil {
			return fmt.Errorf("%s: %s:%d: %w", p.initramfs, measured.BootConf, n, err)
		}
	}
	if !measures {
		return fmt.Errorf("%s: %s says no measure-pcr", p.initramfs, measured.BootConf)
	}
	for field := range strings.FieldsSeq(p.cmdline) {
		switch name, value, _ := strings.Cut(field, "="); {
		case name == "diglim.mode":
			p.config.Mode = value
		case name == "diglim" && value == "off":
			return errors.New("nothing is measured with diglim=off on the kernel command line")
		}
	}
	return nil
}

// An image is what an initramfs has of the uploader.
type image struct {
	files    []plain.File
	program  string            // path of diglim-upload
	digest   digest.Digest     // of it
	contents map[string][]byte // by path
}

func readImage(name string, alg digest.Algorithm) (*image, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	img := &image{contents: make(map[string][]byte)}
	if img.files, err = plain.Initramfs(f, alg); err != nil {
		return nil, err
	}
	wanted := make(map[string]digest.Digest)
	for _, file := range img.files {
		switch dir, base := path.Split(file.Path); {
		case base == measured.ProgramName && path.Base(dir) == "bin" && file.Mode&0o111 != 0:
			if img.program != "" && img.digest != file.Digest {
				return nil, fmt.Errorf("both %s and %s", img.program, file.Path)
			}
			img.program, img.digest = file.Path, file.Digest
			wanted[file.Path] = file.Digest
		case strings.HasPrefix(file.Path, "/etc/"):
			wanted[file.Path] = file.Digest
		}
	}
	if img.program == "" {
		return nil, errors.New("no bin/diglim-upload in it")
	}
	if _, err := f.Seek(0, 0); err != nil {
		return nil, err
	}
	contents, err := plain.Contents(f, slices.Collect(maps.Values(wanted)))
	if err != nil {
		return nil, err
	}
	for name, d := range wanted {
		img.contents[name] = contents[d]
		if img.contents[name] == nil && d != digest.Sum(alg) {
			return nil, fmt.Errorf("%s: more than %d bytes", name, plain.MaxContent)
		}
	}
	return img, nil
}

// below returns the files below a directory, in the order of a walk.
func (img *image) below(dir string) (names []string) {
	for name := range img.contents {
		if strings.HasPrefix(name, dir+"/") {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int { return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/")) })
	return names
}

// list is the list that the uploader makes of the initramfs.
func (img *image) list() ([]byte, error) {
	var code []digest.Digest
	for _, f := range img.files {
		if measured.IsCode(f.Path, f.Mode, f.ELF) {
			code = append(code, f.Digest)
		}
	}
	return measured.AppendInitramfsList(nil, img.digest, code)
}
