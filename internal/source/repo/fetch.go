package repo

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"diglim/internal/wire"
)

const (
	maxTries      = 4                // to get on with a file
	maxRetryAfter = time.Minute      // that a server can ask for
	maxRedirects  = 10               // as browsers have it
	minRate       = 1 << 10          // bytes a second, below which a server stalls
	timeout       = 30 * time.Second // without a byte; Options.Timeout says otherwise
	pause         = time.Second      // before the second try, doubled for each one after
	connections   = 8                // kept open to one host
)

// An origin is where the files of a repository are.
type origin interface {
	// open opens a file at byte from, to be read up to byte to, or to its end if
	// to is -1. More can come. The size of the whole file is -1 if it is not known.
	open(ctx context.Context, name string, from, to int64) (body io.ReadCloser, size int64, err error)

	// where says what to call a file in messages.
	where(name string) string
}

// newOrigin finds out what kind of origin a location is: a URL of scheme http,
// https or file, or a directory.
func newOrigin(location string, o Options) (origin, error) {
	if !strings.Contains(location, "://") {
		return local(location), nil
	}
	u, err := url.Parse(location)
	if err != nil {
		return nil, err
	}
	switch {
	case u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("%s: a repository's URL has neither query nor fragment", u.Redacted())
	case u.Scheme == "file" && (u.Host == "" || u.Host == "localhost"):
		return local(u.Path), nil
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, fmt.Errorf("%s: must be http, https or file, or a directory", u.Redacted())
	}
	if !strings.HasSuffix(u.Path, "/") {
		u = u.JoinPath("/")
	}
	return newRemote(u, o), nil
}

// local is a directory.
type local string

func (l local) where(name string) string { return filepath.Join(string(l), filepath.FromSlash(name)) }

func (l local) open(_ context.Context, name string, from, _ int64) (io.ReadCloser, int64, error) {
	path := l.where(name)
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, permanent{err}
	}
	if !info.Mode().IsRegular() { // opening a pipe would wait for a writer
		return nil, 0, permanent{errors.New("not a regular file")}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, permanent{err}
	}
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return nil, 0, permanent{errors.Join(err, f.Close())}
	}
	return f, info.Size(), nil
}

// remote is a directory of a web server.
type remote struct {
	base    *url.URL // path ends in a slash
	client  *http.Client
	timeout time.Duration
}

func newRemote(base *url.URL, o Options) *remote {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = o.Connections
	t.DisableCompression = true // ranges and sizes are those of the file
	client := &http.Client{Transport: t, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if len(via) >= maxRedirects {
			return permanent{fmt.Errorf("more than %d redirects", maxRedirects)}
		}
		if via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https" {
			return permanent{errors.New("redirect from https to " + req.URL.Scheme)}
		}
		return nil
	}}
	return &remote{base, client, o.Timeout}
}

// url is the address of a file. What is escaped in its name stays as it is.
func (r *remote) url(name string) *url.URL {
	ref, err := url.Parse("./" + name)
	if err != nil { // a percent sign that escapes nothing
		ref = &url.URL{Path: "./" + name}
	}
	return r.base.ResolveReference(ref)
}

func (r *remote) where(name string) string { return r.url(name).Redacted() }

func (r *remote) open(ctx context.Context, name string, from, to int64) (io.ReadCloser, int64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	b := &body{cancel: cancel, ctx: ctx, timeout: r.timeout, start: time.Now()}
	b.timer = time.AfterFunc(b.timeout, func() { cancel(fmt.Errorf("%w: no answer in %v", errStalled, b.timeout)) })
	size, err := r.get(b, name, from, to)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, 0, errors.Join(err, b.Close())
	}
	return b, size, nil
}

// get asks for a file, and puts the answer into b. A server that knows no
// ranges sends all of the file: what is in front of from is then passed over.
func (r *remote) get(b *body, name string, from, to int64) (size int64, err error) {
	req, err := http.NewRequestWithContext(b.ctx, http.MethodGet, r.url(name).String(), nil)
	if err != nil {
		return 0, permanent{err}
	}
	if to >= 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, to-1))
	} else if from > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return 0, plain(err)
	}
	b.r = resp.Body
	switch resp.StatusCode {
	case http.StatusOK:
		_, err := io.CopyN(io.Discard, b, from)
		return resp.ContentLength, err
	case http.StatusPartialContent:
		return checkRange(resp.Header.Get("Content-Range"), from, to)
	case http.StatusNotFound, http.StatusGone:
		return 0, permanent{fmt.Errorf("%s: %w", resp.Status, fs.ErrNotExist)}
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
	default:
		if resp.StatusCode < 500 {
			return 0, permanent{errors.New(resp.Status)}
		}
	}
	after, _ := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 16)
	return 0, busy{resp.Status, time.Duration(after) * time.Second}
}

// plain is the error of an HTTP client without the URL, which the caller adds.
func plain(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	_, certificate := errors.AsType[*tls.CertificateVerificationError](err)
	dns, isDNS := errors.AsType[*net.DNSError](err)
	if certificate || isDNS && dns.IsNotFound {
		return permanent{err}
	}
	return err
}

// checkRange checks that the range that a server sends is the one that it was
// asked for (RFC 9110 section 14.4), and returns the size of the whole file.
func checkRange(text string, from, to int64) (size int64, err error) {
	wrong := permanent{fmt.Errorf("content range %q for bytes from %d to %d", text, from, to)}
	span, total, ok := strings.Cut(strings.TrimPrefix(text, "bytes "), "/")
	first, last, ok2 := strings.Cut(span, "-")
	a, err1 := strconv.ParseInt(first, 10, 64)
	z, err2 := strconv.ParseInt(last, 10, 64)
	size, err3 := strconv.ParseInt(total, 10, 64)
	if total == "*" {
		size, err3 = -1, nil
	}
	if !ok || !ok2 || err1 != nil || err2 != nil || err3 != nil || a != from {
		return 0, wrong
	}
	end := z + 1
	if to >= 0 && end != to || to < 0 && end != size || size >= 0 && end > size {
		return 0, wrong
	}
	return size, nil
}

var errStalled = errors.New("the server stalls")

// A body is what a server sends. It ends with errStalled if nothing comes for
// too long, or too little in all.
type body struct {
	r       io.ReadCloser
	ctx     context.Context
	cancel  context.CancelCauseFunc
	timeout time.Duration
	timer   *time.Timer
	start   time.Time
	read    int64
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.read += int64(n)
	atLeast := b.timeout + time.Duration(b.read)*time.Second/minRate
	b.timer.Reset(min(b.timeout, atLeast-time.Since(b.start)))
	if err != nil && err != io.EOF && context.Cause(b.ctx) != nil {
		err = context.Cause(b.ctx)
	}
	return n, err
}

func (b *body) Close() error {
	b.timer.Stop()
	defer b.cancel(nil)
	if b.r == nil {
		return nil
	}
	return b.r.Close()
}

// permanent is an error that trying again does not help.
type permanent struct{ error }

func (e permanent) Unwrap() error { return e.error }

// busy is the answer of a server that wants to be asked again.
type busy struct {
	status string
	after  time.Duration // 0 if it does not say when
}

func (e busy) Error() string { return e.status }

// A download reads one file from its start, and goes on where it was when the
// connection breaks.
type download struct {
	ctx   context.Context
	from  origin
	name  string
	to    int64 // bytes to read, -1 for all
	size  int64 // of the file, as somebody says who should know; 0 if nobody does
	pause time.Duration

	at    int64 // bytes read so far
	body  io.ReadCloser
	total int64 // size of the file, as the origin says; -1 until it does
	tries int
}

func newDownload(ctx context.Context, from origin, name string, to, size int64, pause time.Duration) *download {
	return &download{ctx: ctx, from: from, name: name, to: to, size: size, pause: pause, total: -1}
}

func (d *download) Read(p []byte) (int, error) {
	for {
		if d.done() {
			return 0, io.EOF
		}
		n, err := d.readOnce(p)
		if err == nil || err == io.EOF {
			return n, err
		}
		if n > 0 {
			return n, nil // the error comes again
		}
		if err := d.again(err); err != nil {
			return 0, err
		}
	}
}

// readOnce reads without trying twice.
func (d *download) readOnce(p []byte) (int, error) {
	if d.body == nil {
		if err := d.open(); err != nil {
			return 0, err
		}
	}
	if d.to >= 0 {
		p = p[:min(int64(len(p)), d.to-d.at)]
	}
	n, err := d.body.Read(p)
	d.at += int64(n)
	if err == io.EOF && !d.done() && (d.to >= 0 || d.total >= 0) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// done reports whether all has been read, if it is known how much that is.
func (d *download) done() bool { return d.at == d.to || d.to < 0 && d.at == d.total }

func (d *download) open() error {
	body, total, err := d.from.open(d.ctx, d.name, d.at, d.to)
	if err != nil {
		return err
	}
	switch {
	case d.size > 0 && total >= 0 && total != d.size:
		err = fmt.Errorf("%d bytes, the metadata says %d", total, d.size)
	case d.to >= 0 && total >= 0 && total < d.to:
		err = fmt.Errorf("%w: %d bytes wanted, there are %d", wire.ErrShort, d.to, total)
	case d.total >= 0 && total != d.total:
		err = fmt.Errorf("had %d bytes, now has %d", d.total, total)
	}
	if err != nil {
		body.Close()
		return permanent{err}
	}
	d.body, d.total = body, total
	return nil
}

// again waits until it is time to try again, or returns the error that says
// why not.
func (d *download) again(err error) error {
	d.Close()
	if e, ok := errors.AsType[permanent](err); ok {
		return e.error
	}
	if ctxErr := d.ctx.Err(); ctxErr != nil {
		return ctxErr
	}
	if d.tries++; d.tries == maxTries {
		return fmt.Errorf("%w (tried %d times)", err, maxTries)
	}
	wait := d.pause << (d.tries - 1)
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
	case <-d.ctx.Done():
		return d.ctx.Err()
	}
}

// Close closes the connection, if there is one.
func (d *download) Close() error {
	if d.body == nil {
		return nil
	}
	err := d.body.Close()
	d.body = nil
	return err
}
