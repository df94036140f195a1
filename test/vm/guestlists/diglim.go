package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"diglim/digestlist"
	"diglim/internal/digest"
	"diglim/internal/kernel"
	"diglim/internal/kernel/diglim"
	"diglim/internal/kernel/upload"

	"golang.org/x/sys/unix"
)

// diglimCases adds, deletes and asks, with names that get in each other's way.
func diglimCases(out io.Writer) error {
	i, err := diglim.Open(kernel.Securityfs, "")
	if err != nil {
		return err
	}
	content, err := digestlist.AppendCompact(nil, digestlist.V3, digestlist.LittleEndian, []digestlist.Block{
		block(digestlist.Parser, "p", "all"), block(digestlist.File, "f", "all"), block(digestlist.Metadata, "all")})
	if err != nil {
		return err
	}
	lists := map[string]upload.List{}
	for _, name := range []string{"0-file_list-compact-a", "0-file_list-compact-b"} {
		l := upload.List{Path: filepath.Join("/tmp", name), Format: digestlist.FormatCompact, Content: content}
		if err := os.WriteFile(l.Path, content, 0o644); err != nil {
			return err
		}
		lists[name[len(name)-1:]] = l
	}

	// Each case prints what came of it and what the kernel has then.
	row := func(id string, err error, format string, args ...any) error {
		s, statusErr := i.Status()
		if statusErr != nil {
			return fmt.Errorf("%s: status: %w", id, statusErr)
		}
		have := fmt.Sprintf("P%d F%d M%d L%d", s.Counts.Parser, s.Counts.File, s.Counts.Metadata, s.Counts.Lists)
		for _, l := range s.Lists {
			have += " " + l.Name.Label
		}
		for _, o := range s.Orphans {
			have += fmt.Sprintf(" %s->%q", o.Name.Label, o.Of)
		}
		_, err = fmt.Fprintf(out, "%s\t%s\t%s\t%s\n", id, fmt.Sprintf(format, args...), told(err), have)
		return err
	}
	apply := func(id string, op upload.Op, list string) error {
		r, err := i.Apply(op, lists[list], false)
		return row(id, err, "%d %t %s", r.Digests, r.Done, r.Elsewhere)
	}
	rawly := func(id, file, list string) error {
		_, err := raw(filepath.Join(kernel.Securityfs, diglim.Dir, file), unix.O_WRONLY, []byte(lists[list].Path))
		return row(id, nil, "%s", errno(err))
	}
	query := func(id string, d digest.Digest) error {
		a, err := i.Query(d)
		text := ""
		for _, h := range a.Holders {
			text += fmt.Sprintf("%s in %s ", h.Type, h.Name.Label)
		}
		if a.List != nil {
			text += fmt.Sprintf("list %s of %d bytes", a.List.Name.Label, a.List.Size)
		}
		return row(id, err, "%s", text)
	}

	for _, c := range []func() error{
		func() error { return apply("del what is not there", upload.Del, "a") },
		func() error { return apply("add", upload.Add, "a") },
		func() error { return query("query", digest.Sum(digest.SHA256, []byte("f"))) },
		func() error { return query("query three types", digest.Sum(digest.SHA256, []byte("all"))) },
		func() error { return query("query a list", digest.Sum(digest.SHA256, content)) },
		func() error { return query("query another algorithm", digest.Sum(digest.SHA1, []byte("f"))) },
		func() error { return query("query nothing", digest.Sum(digest.SHA256, []byte("nothing"))) },
		func() error { return query("query an algorithm of later", digest.Sum(digest.SHA3_256, []byte("f"))) },
		func() error { return apply("add again", upload.Add, "a") },
		func() error { return apply("add under another name", upload.Add, "b") },
		func() error { return apply("del under another name", upload.Del, "b") },
		func() error { return rawly("raw add under another name", "digest_list_add", "b") },
		func() error { return apply("del through the orphan", upload.Del, "b") },
		func() error { return rawly("raw del through the orphan", "digest_list_del", "b") },
		func() error { return apply("add where files are left", upload.Add, "a") },
		func() error { return apply("add elsewhere", upload.Add, "b") },
		func() error { return apply("del elsewhere", upload.Del, "b") },
	} {
		if err := c(); err != nil {
			return err
		}
	}
	return nil
}
