// Package fetch reads files below a directory or a URL. It is patient with
// connections that are cut and servers that are busy, not with servers that
// stall or that send another thing than they were asked for. It proves nothing
// of what a file says: that is for who reads it.
package fetch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// maxRetryAfter limits how long a server can ask to wait.
const maxRetryAfter = time.Minute

// Options say how to read from a server. All but Escaped and Progress are
// needed.
type Options struct {
	Tries       int           // to get on with a file
	Pause       time.Duration // before the second, doubled for each one after, and up to a half more
	Timeout     time.Duration // for a server to send nothing, or to be slow
	Connections int           // kept open to one host

	// Escaped says that names are escaped where a URL needs it, and that no more
	// is to be escaped.
	Escaped bool

	// Progress is called with the number of bytes whenever some have been read;
	// several calls at a time, if files are read at a time. It can be nil.
	Progress func(bytes int)
}

// An Origin is where files are: a directory, or one of a web server. It is safe
// for concurrent use.
type Origin struct {
	dir     string
	server  *server // nil for a directory
	options Options
}

// New finds out what a location is: a URL of scheme http, https or file, or a
// directory.
func New(location string, o Options) (*Origin, error) {
	if !strings.Contains(location, "://") {
		return &Origin{dir: location, options: o}, nil
	}
	u, err := url.Parse(location)
	if err != nil {
		return nil, err
	}
	switch {
	case u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("%s: must have neither query nor fragment", u.Redacted())
	case u.Scheme == "file" && (u.Host == "" || u.Host == "localhost"):
		return &Origin{dir: u.Path, options: o}, nil
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, fmt.Errorf("%s: scheme %q and host %q, must be http, https or file, or a directory", u.Redacted(), u.Scheme, u.Host)
	}
	return &Origin{server: newServer(u, o), options: o}, nil
}

// Where says what to call a file in messages: its path, or its URL without the
// password.
func (o *Origin) Where(name string) string {
	if o.server == nil {
		return filepath.Join(o.dir, filepath.FromSlash(name))
	}
	return o.server.url(name).Redacted()
}

// ReadAll reads a file that may have at most limit bytes. The error names the
// file; it is fs.ErrNotExist where there is none.
func (o *Origin) ReadAll(ctx context.Context, name string, limit int64) ([]byte, error) {
	f := o.Open(ctx, Request{Name: name})
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("more than %d bytes", limit)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.Where(name), err)
	}
	return b, nil
}

// A Request says what to read of a file.
type Request struct {
	Name string // below the origin
	End  int64  // bytes to read from its start, 0 for all
	Size int64  // of the file in bytes, by which a server's cut is told from its end; 0 if unknown

	// Check is called with the size of the file, where a server or a directory
	// says it, before anything is read; its error is final. It can be nil.
	Check func(size int64) error
}

// Open returns a file to be read. What is wrong with it the first Read says.
func (o *Origin) Open(ctx context.Context, r Request) *File {
	if o.server == nil {
		r.Size = 0 // nothing cuts a file in a directory
	}
	return &File{Request: r, ctx: ctx, origin: o}
}

// A File is read from its start. Where a connection breaks, another takes over
// from the same byte.
type File struct {
	Request
	ctx    context.Context
	origin *Origin

	at    int64 // bytes read so far
	body  io.ReadCloser
	total int64 // size of the file, as the origin says; 0 until it does
	tries int
	err   error // the last one
}

// Read reads what comes next. Its errors do not name the file. Where there is
// no such file the error is fs.ErrNotExist.
func (f *File) Read(p []byte) (int, error) {
	for f.err == nil {
		n, err := f.readOnce(p)
		if n > 0 || err == nil {
			return n, nil // an error comes again
		}
		if err != io.EOF {
			err = f.again(err)
		}
		f.err = err
	}
	return 0, f.err
}

// readOnce reads without trying twice.
func (f *File) readOnce(p []byte) (int, error) {
	if err := f.ctx.Err(); err != nil {
		return 0, err
	}
	if f.done() {
		return 0, io.EOF
	}
	if f.body == nil {
		if err := f.connect(); err != nil {
			return 0, err
		}
	}
	if f.End > 0 {
		p = p[:min(int64(len(p)), f.End-f.at)]
	}
	n, err := f.body.Read(p)
	f.at += int64(n)
	if f.origin.options.Progress != nil {
		f.origin.options.Progress(n)
	}
	if want := cmp.Or(f.End, f.Size, f.total); err == io.EOF && want > 0 && f.at != want {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// done reports whether all has been read, if it is known how much that is. A
// file that is to have Size bytes and has more, by mistake, is read on.
func (f *File) done() bool {
	if f.End > 0 {
		return f.at == f.End
	}
	return f.total > 0 && f.at == f.total && f.at >= f.Size
}

// connect opens the file where reading is to go on.
func (f *File) connect() error {
	body, total, err := f.origin.open(f.ctx, f.Name, f.at, f.End)
	if err != nil {
		return err
	}
	f.body = body
	if total < 0 {
		return nil
	}
	if f.Size == 0 && f.total > 0 && total != f.total {
		return permanent{fmt.Errorf("had %d bytes, now has %d", f.total, total)}
	}
	f.total = total
	if f.Check != nil {
		if err := f.Check(total); err != nil {
			return permanent{err}
		}
	}
	return nil
}

// again waits until it is time to try again, or returns the error that says
// why not.
func (f *File) again(err error) error {
	f.Close()
	if e, ok := errors.AsType[permanent](err); ok {
		return e.error
	}
	if ctxErr := f.ctx.Err(); ctxErr != nil {
		return ctxErr
	}
	o := f.origin.options
	if f.tries++; f.tries >= o.Tries {
		return fmt.Errorf("%w (tried %d times)", err, f.tries)
	}
	wait := o.Pause << (f.tries - 1)
	wait += rand.N(wait/2 + 1) // so that not all come back at once
	if b, ok := errors.AsType[busy](err); ok {
		if b.after > maxRetryAfter {
			return fmt.Errorf("%w: asks to come back in %v", err, b.after)
		}
		wait = max(wait, b.after)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-f.ctx.Done():
		return f.ctx.Err()
	}
}

// Close closes the connection, if there is one.
func (f *File) Close() error {
	if f.body == nil {
		return nil
	}
	err := f.body.Close()
	f.body = nil
	return err
}

// permanent is an error that trying again does not help.
type permanent struct{ error }

func (e permanent) Unwrap() error { return e.error }

// open opens a file at byte from, to be read up to byte end, or to its end if
// end is 0. The size of the whole file is -1 if it is not known.
func (o *Origin) open(ctx context.Context, name string, from, end int64) (body io.ReadCloser, size int64, err error) {
	if o.server != nil {
		return o.server.open(ctx, name, from, end)
	}
	f, err := OpenFile(o.Where(name))
	if err != nil {
		return nil, 0, permanent{err}
	}
	size, err = f.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = f.Seek(from, io.SeekStart)
	}
	if err != nil {
		return nil, 0, permanent{errors.Join(err, f.Close())}
	}
	return f, size, nil
}

// OpenFile opens a regular file. Others are refused: opening a pipe would wait
// for a writer.
func OpenFile(path string) (*os.File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: path, Err: errors.New("not a regular file")}
	}
	return os.Open(path)
}
