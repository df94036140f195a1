package fetch

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
	"strconv"
	"strings"
	"time"
)

const (
	maxRedirects = 10      // as browsers have it
	minRate      = 1 << 10 // bytes a second, below which a server stalls
)

// ErrStalled says that a server was given up because it sends nothing, or next
// to nothing.
var ErrStalled = errors.New("the server stalled")

// A server is a directory of a web server.
type server struct {
	base    *url.URL // path ends in a slash
	client  *http.Client
	timeout time.Duration
	escaped bool // names are
}

func newServer(base *url.URL, o Options) *server {
	if !strings.HasSuffix(base.Path, "/") {
		base = base.JoinPath("/")
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = o.Connections
	t.DisableCompression = true // ranges, sizes and digests are those of the file
	client := &http.Client{Transport: t, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if len(via) >= maxRedirects {
			return permanent{fmt.Errorf("more than %d redirects", maxRedirects)}
		}
		if via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https" {
			return permanent{errors.New("redirect from https to " + req.URL.Scheme)}
		}
		return nil
	}}
	return &server{base, client, o.Timeout, o.Escaped}
}

// url is the address of a file.
func (s *server) url(name string) *url.URL {
	ref := &url.URL{Path: "./" + name}
	if s.escaped {
		if u, err := url.Parse("./" + name); err == nil { // or a percent sign escapes nothing
			ref = u
		}
	}
	return s.base.ResolveReference(ref)
}

// open is Origin.open.
func (s *server) open(ctx context.Context, name string, from, end int64) (io.ReadCloser, int64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	b := &body{ctx: ctx, cancel: cancel, timeout: s.timeout}
	size, err := s.get(b, name, from, end)
	if err != nil {
		return nil, 0, errors.Join(b.why(err), b.Close())
	}
	return b, size, nil
}

// get asks for a file, and puts the answer into b. A server that knows no
// ranges sends all of the file: what is in front of from is then passed over.
func (s *server) get(b *body, name string, from, end int64) (size int64, err error) {
	req, err := http.NewRequestWithContext(b.ctx, http.MethodGet, s.url(name).String(), nil)
	if err != nil {
		return 0, permanent{err}
	}
	if end > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, end-1))
	} else if from > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
	}
	stop := b.watch()
	resp, err := s.client.Do(req)
	stop()
	if err != nil {
		return 0, plain(err)
	}
	b.r = resp.Body
	status := fmt.Sprintf("%d %s", resp.StatusCode, http.StatusText(resp.StatusCode)) // the server's own words can be anything
	switch code := resp.StatusCode; {
	case code == http.StatusOK:
		_, err := io.CopyN(io.Discard, b, from)
		return resp.ContentLength, err
	case code == http.StatusPartialContent && req.Header.Get("Range") != "":
		return checkRange(resp.Header.Get("Content-Range"), from, end)
	case code == http.StatusNotFound || code == http.StatusGone:
		return 0, permanent{fmt.Errorf("%s: %w", status, fs.ErrNotExist)}
	case code >= 500 || code == http.StatusRequestTimeout || code == http.StatusTooEarly || code == http.StatusTooManyRequests:
		after, _ := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 16)
		return 0, busy{status, time.Duration(after) * time.Second}
	}
	return 0, permanent{errors.New(status)}
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
func checkRange(text string, from, end int64) (size int64, err error) {
	span, total, ok := strings.Cut(strings.TrimPrefix(text, "bytes "), "/")
	first, last, ok2 := strings.Cut(span, "-")
	a, err1 := strconv.ParseInt(first, 10, 64)
	z, err2 := strconv.ParseInt(last, 10, 64)
	size, err3 := strconv.ParseInt(total, 10, 64)
	if total == "*" {
		size, err3 = -1, nil
	}
	ok = ok && ok2 && err1 == nil && err2 == nil && err3 == nil && a == from && z >= a && (size < 0 || z < size)
	switch {
	case ok && end > 0 && z == end-1, ok && end == 0 && z == size-1:
		return size, nil
	case end > 0:
		return 0, permanent{fmt.Errorf("another range: content range %.64q for bytes %d to %d", text, from, end-1)}
	}
	return 0, permanent{fmt.Errorf("another range: content range %.64q for bytes from %d", text, from)}
}

// busy is the answer of a server that wants to be asked again.
type busy struct {
	status string
	after  time.Duration // 0 if it does not say when
}

func (e busy) Error() string { return e.status }

// A body is what a server sends. It ends with ErrStalled if nothing comes for
// too long, or too little in all.
type body struct {
	r       io.ReadCloser // nil until there is an answer
	ctx     context.Context
	cancel  context.CancelCauseFunc
	timeout time.Duration
	read    int64         // bytes
	waited  time.Duration // for them
}

func (b *body) Read(p []byte) (int, error) {
	stop := b.watch()
	n, err := b.r.Read(p)
	stop()
	b.read += int64(n)
	if err != nil && err != io.EOF {
		err = b.why(err)
	}
	return n, err
}

// watch gives the server up when it lets wait for too long, until the function
// that it returns is called. What the reader does in between is not counted.
func (b *body) watch() (stop func()) {
	start := time.Now()
	inAll := b.timeout + time.Duration(b.read/minRate)*time.Second
	timer := time.AfterFunc(min(b.timeout, inAll-b.waited), func() { b.cancel(fmt.Errorf("%w for %v", ErrStalled, b.timeout)) })
	return func() {
		timer.Stop()
		b.waited += time.Since(start)
	}
}

// why is the reason for an error: that the server was given up, if it was.
func (b *body) why(err error) error {
	if cause := context.Cause(b.ctx); cause != nil {
		return cause
	}
	return err
}

func (b *body) Close() error {
	defer b.cancel(nil)
	if b.r == nil {
		return nil
	}
	return b.r.Close()
}
