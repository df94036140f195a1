// Bench compares this module with its peers, in one run, and prints ratios:
// absolute figures depend on the machine, ratios hardly do.
package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"testing"
	"text/tabwriter"
	"time"

	"diglim/digestlist"
	"diglim/internal/keyring"
	"diglim/internal/rpmtest"
	"diglim/internal/rsaverify"
	"diglim/internal/source"
	"diglim/rpmhdr"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/sassoftware/go-rpmutils"
)

// rounds is how often each contender runs; the median counts.
const rounds = 7

type contender struct {
	name string
	run  func() error
}

func main() {
	var err error
	switch {
	case len(os.Args) > 1 && os.Args[1] == readCommand:
		err = readPackages(os.Args[2:])
	case len(os.Args) == 3 && os.Args[1] == statCommand:
		err = statTwice(os.Args[2])
	case len(os.Args) > 1:
		err = fmt.Errorf("usage: %s", os.Args[0])
	default:
		err = run(os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(2)
	}
}

func run(w io.Writer) error {
	testing.Init()
	if err := flag.Set("test.benchtime", "300ms"); err != nil {
		return err
	}
	if err := ima(context.Background(), w); err != nil {
		return err
	}
	pkg, keys, err := fixture()
	if err != nil {
		return err
	}
	title := fmt.Sprintf("one package, 100 files, RSA-4096, %d bytes of headers", len(pkg))
	if err := compare(w, title, contenders(pkg, keys)); err != nil {
		return err
	}
	for _, bits := range []int{2048, 3072, 4096} {
		c, err := verifiers(bits)
		if err != nil {
			return err
		}
		if err := compare(w, fmt.Sprintf("one RSA-%d signature", bits), c); err != nil {
			return err
		}
	}
	return peers(context.Background(), w)
}

// compare prints what contenders take, the first one as 1.00. They take turns,
// so that what else the machine does is nobody's alone.
func compare(w io.Writer, title string, contenders []contender) error {
	times := make([][]float64, len(contenders))
	allocs := make([]int64, len(contenders))
	for range rounds {
		for i, c := range contenders {
			t, n, err := measure(c)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			times[i], allocs[i] = append(times[i], t), n
		}
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(tw, "%s\tmedian\tspread\tallocs\tratio\t\n", title)
	for i, c := range contenders {
		slices.Sort(times[i])
		fmt.Fprintf(tw, "%s\t%.1f us\t%.1f-%.1f\t%d\t%.2f\t\n", c.name,
			times[i][rounds/2], times[i][0], times[i][rounds-1], allocs[i], times[i][rounds/2]/times[0][rounds/2])
	}
	return tw.Flush()
}

// contenders do what they do to the same package. The first one is 1.00.
func contenders(pkg []byte, keys *keyring.Keyring) []contender {
	buf := make([]byte, 64<<10)
	return []contender{
		{"diglim: read, check digests, list the files", func() error {
			p, _, err := rpmhdr.ReadPackage(bytes.NewReader(pkg), int64(len(pkg)), buf)
			if err != nil {
				return err
			}
			_, _, err = digestlist.FromHeader(p.Header)
			return err
		}},
		{"go-rpmutils: read, list the files", func() error {
			h, err := rpmutils.ReadHeader(bytes.NewReader(pkg))
			if err != nil {
				return err
			}
			_, err = h.GetFiles()
			return err
		}},
		{"diglim: the same, and verify the signature", func() error {
			p, _, err := rpmhdr.ReadPackage(bytes.NewReader(pkg), int64(len(pkg)), buf)
			if err != nil {
				return err
			}
			if _, err := source.Prove(p, keys, keyring.Policy{}); err != nil {
				return err
			}
			_, _, err = digestlist.FromHeader(p.Header)
			return err
		}},
	}
}

// verifiers check a signature of a key of that size, over SHA-256.
func verifiers(bits int) ([]contender, error) {
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte("document"))
	sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		return nil, err
	}
	ready := rsaverify.New(&key.PublicKey)
	return []contender{
		{"crypto/rsa", func() error { return rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, sum[:], sig) }},
		{"rsaverify", func() error { return ready.Verify(crypto.SHA256, sum[:], sig) }},
		{"rsaverify, the key's first", func() error { return rsaverify.New(&key.PublicKey).Verify(crypto.SHA256, sum[:], sig) }},
	}, nil
}

// measure returns microseconds and allocations a run.
func measure(c contender) (us float64, allocs int64, err error) {
	r := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			if err = c.run(); err != nil {
				b.FailNow()
			}
		}
	})
	return float64(r.T) / float64(r.N) / float64(time.Microsecond), r.AllocsPerOp(), err
}

// fixture makes a signed package, and the keyring that it is signed with.
func fixture() (pkg []byte, keys *keyring.Keyring, err error) {
	p := rpmtest.Package{Name: "bench", Algo: 8}
	for i := range 100 {
		p.Files = append(p.Files, rpmtest.Regular(fmt.Sprintf("/usr/share/bench/%02d/file-%d", i%7, i), 0o644, fmt.Sprint(i)))
	}
	// what the peer insists on
	names, zeros := slices.Repeat([]string{"root"}, len(p.Files)), make([]uint32, len(p.Files))
	p.Extra = []rpmtest.Entry{rpmtest.Int32s(1034, zeros...), rpmtest.Strings(1039, names...), rpmtest.Strings(1040, names...),
		rpmtest.Int32s(1095, zeros...), rpmtest.Int32s(1096, zeros...)}
	keys = &keyring.Keyring{}
	// Keys come from the tests' recipes, which report to a testing.TB.
	testing.Benchmark(func(b *testing.B) {
		if pkg != nil {
			return
		}
		key := rpmtest.NewKey(b, "bench", func(c *packet.Config) { c.RSABits = 4096 })
		pkg = p.File(rpmtest.Signatures{RSA: rpmtest.Sign(b, key, p.Header(), rpmtest.Made.AddDate(1, 0, 0), nil)})
		err = keys.Add("bench", rpmtest.Public(b, key))
	})
	return pkg, keys, err
}
