// Bench compares this module with its peers, in one run, and prints ratios:
// absolute figures depend on the machine, ratios hardly do.
package main

import (
	"bytes"
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
	if err := run(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(2)
	}
}

func run(w io.Writer) error {
	pkg, keys, err := fixture()
	if err != nil {
		return err
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(tw, "one package, 100 files, RSA-4096, %d bytes of headers\tmedian\tspread\tallocs\tratio\t\n", len(pkg))
	var base float64
	for _, c := range contenders(pkg, keys) {
		m, err := measure(c)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		if base == 0 {
			base = m.median
		}
		fmt.Fprintf(tw, "%s\t%.1f us\t%.1f-%.1f\t%d\t%.2f\t\n", c.name, m.median, m.min, m.max, m.allocs, m.median/base)
	}
	return tw.Flush()
}

// contenders do what they do to the same package. The first one is 1.00.
func contenders(pkg []byte, keys *keyring.Keyring) []contender {
	buf := make([]byte, 64<<10)
	return []contender{
		{"diglim: read, check digests, list the files", func() error {
			p, err := rpmhdr.ReadPackage(bytes.NewReader(pkg), int64(len(pkg)), buf)
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
			p, err := rpmhdr.ReadPackage(bytes.NewReader(pkg), int64(len(pkg)), buf)
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

type measured struct {
	median, min, max float64 // microseconds
	allocs           int64
}

func measure(c contender) (measured, error) {
	var failed error
	var times []float64
	var m measured
	for range rounds {
		r := testing.Benchmark(func(b *testing.B) {
			for b.Loop() {
				if err := c.run(); err != nil {
					failed = err
					b.FailNow()
				}
			}
		})
		if failed != nil {
			return measured{}, failed
		}
		times = append(times, float64(r.NsPerOp())/float64(time.Microsecond))
		m.allocs = r.AllocsPerOp()
	}
	slices.Sort(times)
	m.median, m.min, m.max = times[rounds/2], times[0], times[rounds-1]
	return m, nil
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
