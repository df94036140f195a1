package main

import (
	"errors"
	"fmt"
	"io"

	"diglim/digestlist"
	"diglim/internal/cli"
	"diglim/internal/digest"
	"diglim/internal/kernel/diglim"
	"diglim/internal/kernel/ima"
	"diglim/internal/kernel/upload"
)

// diglimSystem is DIGLIM v3.
type diglimSystem struct{ *diglim.Interface }

func openDIGLIM(securityfs, cmdline string) (system, error) {
	i, err := diglim.Open(securityfs, cmdline)
	if err != nil {
		return nil, err
	}
	return diglimSystem{i}, nil
}

func (s diglimSystem) apply(a *application) (outcome, error) {
	return applyOneByOne(a, func(op upload.Op, l upload.List) (upload.Result, error) { return s.Apply(op, l, a.buffered) })
}

// applyOneByOne gives the lists to an interface that takes one after the other.
func applyOneByOne(a *application, apply func(upload.Op, upload.List) (upload.Result, error)) (o outcome, err error) {
	op := upload.Add
	if a.verb == del {
		op = upload.Del
	}
	for _, path := range a.paths {
		content, format, err := digestlist.ReadFile(path)
		var r upload.Result
		if err == nil {
			err = a.measure.list(path, content)
		}
		if err == nil {
			r, err = apply(op, upload.List{Path: path, Format: format, Content: content})
		}
		if err != nil {
			a.fail(path, err)
			continue
		}
		if r.Elsewhere != "" {
			fmt.Fprintf(a.stderr, "%s: the kernel has its content as %s, and was not asked\n", cli.Text(path), cli.Text(r.Elsewhere))
		}
		o.digests += r.Digests
		o.lists++
		if !r.Done {
			o.already++
		}
	}
	return o, nil
}

func (s diglimSystem) count() (int, error) { return s.Digests() }

func (s diglimSystem) query(d digest.Digest) (answer, error) {
	found, err := s.Query(d)
	if err != nil {
		return nil, err
	}
	var a answer
	if found.List != nil {
		a = append(a, "list "+found.List.Name.Label)
	}
	for _, h := range found.Holders {
		a = append(a, fmt.Sprintf("%s of %s", h.Type, h.Name.Label))
	}
	return a, nil
}

// diglimReport is DIGLIM's status.
type diglimReport struct{ diglim.Status }

func (s diglimSystem) status() (report, error) {
	st, err := s.Status()
	return diglimReport{st}, err
}

func (r diglimReport) object() cli.Object {
	orphans := []cli.Object{}
	for _, o := range r.Orphans {
		orphans = append(orphans, cli.Object{{Name: "name", Value: o.Name.String()}, {Name: "of", Value: o.Of}})
	}
	return cli.Object{
		{Name: "interface", Value: "diglim"},
		{Name: "digests", Value: cli.Object{
			{Name: "parser", Value: r.Counts.Parser},
			{Name: "file", Value: r.Counts.File},
			{Name: "metadata", Value: r.Counts.Metadata},
			{Name: "lists", Value: r.Counts.Lists},
		}},
		{Name: "orphans", Value: orphans},
		{Name: "attempts", Value: cli.Object{{Name: "add", Value: r.Attempts.Add}, {Name: "del", Value: r.Attempts.Del}}},
	}
}

func (r diglimReport) text(w io.Writer) error {
	_, err := fmt.Fprintf(w, "interface  diglim (DIGLIM v3)\nlists      %s\ndigests    %s of files, %s of parsers, %s of metadata\nIMA's log  %s to add, %s to delete: attempts, not what is there\n",
		cli.Count(r.Counts.Lists), cli.Count(r.Counts.File), cli.Count(r.Counts.Parser), cli.Count(r.Counts.Metadata),
		cli.Plural(r.Attempts.Add, "attempt"), cli.Count(r.Attempts.Del))
	for _, o := range r.Orphans {
		if o.Of == "" {
			fmt.Fprintf(w, "orphan     %s: its list is gone\n", cli.Text(o.Name.String()))
			continue
		}
		fmt.Fprintf(w, "orphan     %s: deleting it deletes %s\n", cli.Text(o.Name.String()), cli.Text(o.Of))
	}
	return err
}

// imaSystem is openEuler's IMA.
type imaSystem struct{ *ima.Interface }

func openIMA(securityfs, cmdline string) (system, error) {
	i, err := ima.Open(securityfs, cmdline)
	if err != nil {
		return nil, err
	}
	return imaSystem{i}, nil
}

func (s imaSystem) apply(a *application) (outcome, error) {
	return applyOneByOne(a, func(op upload.Op, l upload.List) (upload.Result, error) { return s.Apply(op, l, a.buffered) })
}

func (s imaSystem) count() (int, error) { return s.Digests() }

func (imaSystem) query(digest.Digest) (answer, error) {
	return nil, errors.New("this kernel cannot be asked for a digest")
}

// imaReport is openEuler's status.
type imaReport struct{ ima.Status }

func (s imaSystem) status() (report, error) {
	st, err := s.Status()
	return imaReport{st}, err
}

func (r imaReport) object() cli.Object {
	return cli.Object{
		{Name: "interface", Value: "ima"},
		{Name: "digests", Value: r.Digests},
		{Name: "measure", Value: r.Measure},
		{Name: "appraise", Value: r.Appraise},
	}
}

func (r imaReport) text(w io.Writer) error {
	uses := "nothing (neither ima_digest_list_pcr= nor ima_appraise_digest_list= on the kernel command line)"
	switch {
	case r.Measure && r.Appraise:
		uses = "measurement and appraisal"
	case r.Measure:
		uses = "measurement"
	case r.Appraise:
		uses = "appraisal"
	}
	_, err := fmt.Fprintf(w, "interface  ima (openEuler)\ndigests    %s\nused for   %s, unless the kernel has switched lists off since\n", cli.Count(r.Digests), uses)
	return err
}
