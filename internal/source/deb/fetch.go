package deb

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"
)

// How a transfer goes on when it is cut.
const (
	attempts = 6                      // connections for one file, at most
	pause    = 500 * time.Millisecond // before the second; doubled before each after that
	patience = 30 * time.Second       // without a single byte
)

// errStalled is why a connection is given up after patience.
var errStalled = errors.New("stalled")

// An archive is where files are read from: a directory or an HTTP server.
type archive struct {
	base   *url.URL // nil for a directory
	dir    string
	client *http.Client

	pause, patience time.Duration
	progress        func(bytes int)
}

// newArchive understands http, https and file URLs and directories.
func newArchive(location string, progress func(int)) (*archive, error) {
	a := &archive{pause: pause, patience: patience, progress: progress}
	scheme, _, isURL := strings.Cut(location, "://")
	if !isURL {
		a.dir = location
		return a, nil
	}
	u, err := url.Parse(location)
	if err != nil {
		return nil, err
	}
	switch scheme {
	case "file":
		if u.Host != "" && u.Host != "localhost" {
			return nil, fmt.Errorf("%s: a file on another host", location)
		}
		a.dir = u.Path
		return a, nil
	case "http", "https":
		a.base = u
		a.client = &http.Client{Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DisableCompression:  true, // what is compressed has its digest as it is
			MaxIdleConnsPerHost: 16,
			IdleConnTimeout:     time.Minute,
			ForceAttemptHTTP2:   true,
		}}
		return a, nil
	}
	return nil, fmt.Errorf("%s: scheme %q is not http, https or file", location, scheme)
}

// name returns what to call a file of the archive.
func (a *archive) name(path string) string {
	if a.base == nil {
		return filepath.Join(a.dir, path)
	}
	return a.url(path).Redacted()
}

func (a *archive) url(path string) *url.URL {
	u := *a.base
	u.Path, u.RawPath = strings.TrimSuffix(u.Path, "/")+"/"+path, ""
	return &u
}

// open opens a file of the archive. A size that is known, otherwise -1, tells
// the end of the file from a connection that was cut. Where there is no such
// file the error is fs.ErrNotExist, now or at the first Read.
func (a *archive) open(ctx context.Context, path string, size int64) (io.ReadCloser, error) {
	if a.base == nil {
		f, err := openFile(filepath.Join(a.dir, filepath.FromSlash(path)))
		if err != nil {
			return nil, err
		}
		return &local{f, ctx, a.progress}, nil
	}
	return &transfer{ctx: ctx, archive: a, path: path, size: size}, nil
}

// read returns all of a file that may have at most limit bytes.
func (a *archive) read(ctx context.Context, path string, limit int64) ([]byte, error) {
	f, err := a.open(ctx, path, -1)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s: more than %d bytes", a.name(path), limit)
	}
	return b, nil
}

// local is a file that reports progress and ends with its context.
type local struct {
	io.ReadCloser
	ctx      context.Context
	progress func(int)
}

func (l *local) Read(p []byte) (int, error) {
	if err := l.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := l.ReadCloser.Read(p)
	l.progress(n)
	return n, err
}

// A transfer reads a file from a server. Where a connection is cut or stalls,
// another takes over from the same byte.
type transfer struct {
	ctx     context.Context
	archive *archive
	path    string
	size    int64 // -1 if it is not known

	body    io.ReadCloser
	cancel  context.CancelCauseFunc // of the connection
	request context.Context
	at      int64 // bytes read
	skip    int64 // of the connection's, because they have been read
	tries   int   // connections made
	err     error // the last one
}

func (t *transfer) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for t.err == nil {
		n, err := t.step(p)
		t.at += int64(n)
		t.archive.progress(n)
		if err == io.EOF && t.at < t.size {
			err = fmt.Errorf("%w: %d of %d bytes", io.ErrUnexpectedEOF, t.at, t.size)
		}
		if err != nil {
			t.disconnect()
		}
		if err == io.EOF || err != nil && !t.again(err) {
			t.err = err
		}
		if n > 0 {
			return n, nil
		}
	}
	if t.err == io.EOF {
		return 0, io.EOF
	}
	return 0, fmt.Errorf("%s: %w", t.archive.name(t.path), t.err)
}

// step reads from the connection, which it makes if there is none.
func (t *transfer) step(p []byte) (int, error) {
	if t.body == nil {
		if err := t.connect(); err != nil {
			return 0, err
		}
	}
	defer t.watch()()
	n, err := t.body.Read(p)
	if again := int(min(int64(n), t.skip)); again > 0 {
		t.skip -= int64(again)
		n = copy(p, p[again:n])
	}
	return n, t.cause(err)
}

// connect asks for what was not read yet.
func (t *transfer) connect() error {
	t.tries++
	t.skip = 0
	t.request, t.cancel = context.WithCancelCause(t.ctx)
	defer t.watch()()
	req, err := http.NewRequestWithContext(t.request, http.MethodGet, t.archive.url(t.path).String(), nil)
	if err != nil {
		return err
	}
	if t.at > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", t.at))
	}
	resp, err := t.archive.client.Do(req)
	if err != nil {
		return t.cause(err)
	}
	t.body = resp.Body
	switch {
	case resp.StatusCode == http.StatusPartialContent && t.at > 0:
		var from int64
		if _, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-", &from); err != nil || from != t.at {
			return statusError{resp.StatusCode, fmt.Sprintf("for another range: %.64q", resp.Header.Get("Content-Range"))}
		}
	case resp.StatusCode == http.StatusOK:
		t.skip = t.at // a server that does not know ranges starts from the beginning
	default:
		return statusError{resp.StatusCode, http.StatusText(resp.StatusCode)}
	}
	return nil
}

// watch gives the connection up when nothing has come for too long, until the
// function that it returns is called.
func (t *transfer) watch() (stop func()) {
	cancel := t.cancel
	timer := time.AfterFunc(t.archive.patience, func() { cancel(fmt.Errorf("%w for %s", errStalled, t.archive.patience)) })
	return func() { timer.Stop() }
}

// cause returns why a connection failed: that it was given up, if it was.
func (t *transfer) cause(err error) error {
	if why := context.Cause(t.request); err != nil && errors.Is(why, errStalled) {
		return why
	}
	return err
}

// again waits before the next attempt, if there is to be one after that error.
func (t *transfer) again(err error) bool {
	if t.ctx.Err() != nil || t.tries >= attempts || !passing(err) {
		return false
	}
	timer := time.NewTimer(t.archive.pause << (t.tries - 1))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-t.ctx.Done():
		return false
	}
}

// passing reports whether a failure can be over the next time.
func passing(err error) bool {
	var status statusError
	if errors.As(err, &status) {
		return status.code >= 500 || status.code == http.StatusTooManyRequests || status.code == http.StatusRequestTimeout
	}
	var dns *net.DNSError
	var certificate *tls.CertificateVerificationError
	if errors.As(err, &dns) && dns.IsNotFound || errors.As(err, &certificate) {
		return false
	}
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, errStalled) || errors.Is(err, io.ErrUnexpectedEOF)
}

func (t *transfer) disconnect() {
	if t.body != nil {
		t.body.Close() // a connection that failed has nothing more to say
	}
	if t.cancel != nil {
		t.cancel(nil)
	}
	t.body = nil
}

func (t *transfer) Close() error {
	t.disconnect()
	return nil
}

// statusError is an answer other than the file.
type statusError struct {
	code int
	text string
}

func (e statusError) Error() string { return fmt.Sprintf("the server says %d %s", e.code, e.text) }

func (e statusError) Is(target error) bool {
	return target == fs.ErrNotExist && (e.code == http.StatusNotFound || e.code == http.StatusGone)
}
