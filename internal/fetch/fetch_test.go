package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// quick makes failing fast.
var quick = Options{Tries: 4, Pause: time.Microsecond, Timeout: 5 * time.Second}

// flaky serves a file, and breaks off with every third byte of it.
type flaky string

func (f flaky) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	from, status := 0, http.StatusOK
	if n, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); n == 1 {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(f)-1, len(f)))
		status = http.StatusPartialContent
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(f)-from))
	w.WriteHeader(status)
	_, _ = io.WriteString(w, string(f[from:min(from+3, len(f))]))
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

func serve(t *testing.T, h http.Handler, o Options) *Origin {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	origin, err := New(s.URL, o)
	if err != nil {
		t.Fatal(err)
	}
	return origin
}

// A file goes on where it was, up to the number of tries that there are, and
// what it failed with it fails with again.
func TestResume(t *testing.T) {
	for content, want := range map[flaky]error{"": nil, "0123": nil, "0123456789a": nil, "0123456789ab": nil, "0123456789abc": io.ErrUnexpectedEOF} {
		origin := serve(t, content, quick)
		size := int64(len(content))
		for _, r := range []Request{{}, {End: size}, {Size: size}} {
			f := origin.Open(t.Context(), r)
			got, err := io.ReadAll(f)
			if !errors.Is(err, want) || want == nil && string(got) != string(content) {
				t.Errorf("%+v of %q: %q, %v", r, content, got, err)
			}
			if _, again := f.Read(make([]byte, 1)); err != nil && again != err || err == nil && again != io.EOF {
				t.Errorf("%+v of %q: %v, then %v", r, content, err, again)
			}
			f.Close()
		}
	}
}

// A file that is replaced between one connection and the next is not two files
// in one.
func TestReplaced(t *testing.T) {
	asked := 0
	origin := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		flaky(strings.Repeat("x", 10+asked)).ServeHTTP(w, r)
	}), quick)
	if b, err := origin.ReadAll(t.Context(), "file", 100); err == nil || !strings.Contains(err.Error(), "/file: had 11 bytes, now has 12") {
		t.Errorf("%q, %v", b, err)
	}
}

// A byte now and then does not count as something.
func TestTrickle(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	silent, _ := io.Pipe()
	b := &body{r: silent, ctx: ctx, cancel: cancel, timeout: time.Hour, read: 1, waited: 2 * time.Hour}
	context.AfterFunc(ctx, func() { silent.CloseWithError(ctx.Err()) })
	if _, err := b.Read(make([]byte, 1)); !errors.Is(err, ErrStalled) {
		t.Errorf("%v", err)
	}
}

// Nobody is led from a connection that is secure to one that is not.
func TestRedirectToPlain(t *testing.T) {
	plain := httptest.NewServer(flaky("x"))
	defer plain.Close()
	asked := 0
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		http.Redirect(w, r, plain.URL, http.StatusFound)
	}))
	defer secure.Close()
	origin, err := New(secure.URL, quick)
	if err != nil {
		t.Fatal(err)
	}
	origin.server.client.Transport = secure.Client().Transport
	if b, err := origin.ReadAll(t.Context(), "file", 100); err == nil || !strings.Contains(err.Error(), "redirect from https to http") || asked != 1 {
		t.Errorf("%q, %v, asked %d times", b, err, asked)
	}
}

// A percent sign is one in a name, and more where names are escaped.
func TestEscapes(t *testing.T) {
	for _, c := range []struct {
		escaped   bool
		name, url string
	}{
		{false, "pool/a+b_1%3a2~3.deb", "http://h/x%20y/pool/a+b_1%253a2~3.deb"},
		{true, "pool/a+b_1%3a2~3.deb", "http://h/x%20y/pool/a+b_1%3a2~3.deb"},
		{true, "50%", "http://h/x%20y/50%25"},
		{false, "a:b?c#d", "http://h/x%20y/a:b%3Fc%23d"},
	} {
		for _, base := range []string{"http://h/x%20y", "http://h/x%20y/"} {
			o, err := New(base, Options{Escaped: c.escaped})
			if err != nil || o.Where(c.name) != c.url {
				t.Errorf("%s and %s: %s, %v", base, c.name, o.Where(c.name), err)
			}
		}
	}
}

func TestDirectory(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	read := 0 // bytes
	o := quick
	o.Progress = func(n int) { read += n }
	origin, err := New("file://"+dir, o)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := origin.ReadAll(t.Context(), "file", 7); err != nil || string(b) != "content" || read != 7 {
		t.Errorf("%q, %v, progress of %d", b, err, read)
	}
	if b, err := origin.ReadAll(t.Context(), "file", 6); err == nil || !strings.Contains(err.Error(), "file: more than 6 bytes") {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := origin.ReadAll(t.Context(), "none", 7); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if _, err := origin.ReadAll(t.Context(), "", 7); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("%v", err)
	}
	short := origin.Open(t.Context(), Request{Name: "file", End: 8})
	defer short.Close()
	if b, err := io.ReadAll(short); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("8 bytes of 7: %q, %v", b, err)
	}
	refused := errors.New("refused")
	f := origin.Open(t.Context(), Request{Name: "file", Check: func(size int64) error {
		if size != 7 {
			t.Errorf("a size of %d", size)
		}
		return refused
	}})
	defer f.Close()
	if n, err := f.Read(make([]byte, 1)); n != 0 || !errors.Is(err, refused) {
		t.Errorf("%d bytes, %v", n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := origin.ReadAll(ctx, "file", 7); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
