package repo

import (
	"bufio"
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"

	"diglim/internal/digest"
	"diglim/internal/unpack"
	"diglim/rpmhdr"
)

// Limits on metadata. The largest distribution has 70,000 packages in a
// primary.xml of 250 MB.
const (
	maxRepomd      = 256 << 10 // bytes of repomd.xml
	maxSignature   = 64 << 10  // bytes of repomd.xml.asc
	maxPrimary     = 512 << 20 // bytes of primary.xml, compressed
	maxPrimaryOpen = 1 << 30   // and not
	maxPackages    = 1 << 18
	maxText        = 64 << 20 // bytes of names, versions and locations in all
	maxField       = 4096     // bytes of one of them: Linux' PATH_MAX
	maxToken       = 1 << 20  // bytes of one tag or text in XML
	maxDepth       = 32       // of elements in others
)

// A primary says where primary.xml is, and what it is.
type primary struct {
	href     string
	digest   digest.Digest // of the file as it is, compressed
	size     int64         // in bytes; 0 if repomd.xml does not say
	openSize int64
}

// parseRepomd finds primary.xml in a repomd.xml.
func parseRepomd(b []byte) (primary, error) {
	var doc struct {
		XMLName xml.Name `xml:"repomd"`
		Data    []struct {
			Type     string `xml:"type,attr"`
			Checksum []struct {
				Type  string `xml:"type,attr"`
				Value string `xml:",chardata"`
			} `xml:"checksum"`
			Location []struct {
				Href string `xml:"href,attr"`
				Base string `xml:"base,attr"`
			} `xml:"location"`
			Size     []int64 `xml:"size"`
			OpenSize []int64 `xml:"open-size"`
		} `xml:"data"`
	}
	d := xml.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&doc); err != nil {
		return primary{}, fmt.Errorf("offset %d: %w", d.InputOffset(), err)
	}
	if err := nothingMore(d); err != nil {
		return primary{}, fmt.Errorf("offset %d: %w", d.InputOffset(), err)
	}
	var p primary
	found := 0
	for _, data := range doc.Data {
		if data.Type != "primary" {
			continue
		}
		found++
		if len(data.Checksum) != 1 || len(data.Location) != 1 || len(data.Size) > 1 || len(data.OpenSize) > 1 {
			return primary{}, errors.New("primary: must have one checksum, one location, and one size at most")
		}
		sum, at := data.Checksum[0], data.Location[0]
		alg, err := checksumAlgorithm(sum.Type)
		if err != nil {
			return primary{}, fmt.Errorf("primary: %w", err)
		}
		if p.digest, err = digest.FromHex(alg, []byte(strings.TrimSpace(sum.Value))); err != nil {
			return primary{}, fmt.Errorf("primary: %w", err)
		}
		if p.href, err = location(at.Href, at.Base); err != nil {
			return primary{}, fmt.Errorf("primary: %w", err)
		}
		for _, s := range []struct {
			from  []int64
			to    *int64
			limit int64
		}{{data.Size, &p.size, maxPrimary}, {data.OpenSize, &p.openSize, maxPrimaryOpen}} {
			if len(s.from) == 0 {
				continue
			}
			if *s.to = s.from[0]; *s.to <= 0 || *s.to > s.limit {
				return primary{}, fmt.Errorf("primary: %d bytes, the limit is %d", *s.to, s.limit)
			}
		}
	}
	if found != 1 {
		return primary{}, fmt.Errorf("%d data of type primary, must be one", found)
	}
	return p, nil
}

// checksumAlgorithm finds an algorithm by createrepo's name for it. What it
// has been possible to collide for years proves nothing.
func checksumAlgorithm(name string) (digest.Algorithm, error) {
	switch name {
	case "sha224", "sha256", "sha384", "sha512":
		return digest.ByName(name)
	}
	return 0, fmt.Errorf("checksum of type %q, must be sha224, sha256, sha384 or sha512", name)
}

// nothingMore checks that a document ends.
func nothingMore(d *xml.Decoder) error {
	for {
		switch t, err := d.Token(); {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		default:
			if text, ok := t.(xml.CharData); !ok || len(bytes.TrimSpace(text)) > 0 {
				if _, comment := t.(xml.Comment); !comment {
					return errors.New("something follows the document")
				}
			}
		}
	}
}

// location checks the location of a file, which must be below the repository.
func location(href, base string) (string, error) {
	if base != "" {
		return "", fmt.Errorf("location with a base of its own, %.64q", base)
	}
	clean, err := unpack.Path(href)
	if err != nil {
		return "", fmt.Errorf("location: %w", err)
	}
	// as a web server reads it
	if decoded, err := url.PathUnescape(href); err == nil {
		if _, err := unpack.Path(decoded); err != nil {
			return "", fmt.Errorf("location: %w", err)
		}
	}
	if strings.ContainsAny(href, "\\?#") || strings.Contains(href, "://") {
		return "", fmt.Errorf("location %.64q is not a plain path", href)
	}
	return clean[1:], nil
}

// parsePrimary reads a primary.xml, without keeping more of it than what it
// returns. What is wrong with one package is kept for when it is asked for.
func parsePrimary(r io.Reader) ([]Package, error) {
	in := &bounded{r: bufio.NewReaderSize(r, 64<<10)}
	p := parser{d: xml.NewDecoder(in)}
	for {
		in.left = maxToken
		t, err := p.d.Token()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = p.token(t)
		}
		if err != nil {
			return nil, fmt.Errorf("offset %d: %w", p.d.InputOffset(), err)
		}
	}
	if !p.seen {
		return nil, errors.New("no metadata in it")
	}
	return p.packages, nil
}

// bounded is a reader that ends with an error if too much is taken from it
// before left is set again: the decoder keeps what it reads of a tag or a text.
type bounded struct {
	r    *bufio.Reader
	left int
}

func (b *bounded) ReadByte() (byte, error) {
	if b.left == 0 {
		return 0, fmt.Errorf("a tag or text of more than %d bytes", maxToken)
	}
	b.left--
	return b.r.ReadByte()
}

func (b *bounded) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c, err := b.ReadByte()
	if err != nil {
		return 0, err
	}
	p[0] = c
	return 1, nil
}

// A parser is what is known in the middle of a primary.xml.
type parser struct {
	d        *xml.Decoder
	path     [maxDepth]string // the elements that are open
	depth    int
	seen     bool // the start of the document element
	current  Package
	text     []byte // of the element that is open, if it is of interest
	packages []Package
	total    int // bytes of text kept
}

func (p *parser) token(t xml.Token) error {
	switch t := t.(type) {
	case xml.StartElement:
		if p.depth == maxDepth {
			return fmt.Errorf("more than %d elements in each other", maxDepth)
		}
		p.path[p.depth] = t.Name.Local
		p.depth++
		p.text = p.text[:0]
		return p.start(t.Attr)
	case xml.CharData:
		if p.in("metadata", "package", "name") || p.in("metadata", "package", "arch") {
			if len(p.text)+len(t) > maxField {
				return fmt.Errorf("%s of more than %d bytes", p.path[2], maxField)
			}
			p.text = append(p.text, t...)
		}
	case xml.EndElement:
		err := p.end()
		p.depth--
		return err
	}
	return nil
}

// in reports whether the elements that are open are these.
func (p *parser) in(names ...string) bool {
	if p.depth != len(names) {
		return false
	}
	for i, name := range names {
		if p.path[i] != name {
			return false
		}
	}
	return true
}

func (p *parser) start(attrs []xml.Attr) error {
	attr := func(name string) string {
		for _, a := range attrs {
			if a.Name.Local == name {
				return a.Value
			}
		}
		return ""
	}
	number := func(name string) int64 {
		n, err := strconv.ParseInt(attr(name), 10, 64)
		if err != nil || n < 0 {
			p.wrong(fmt.Errorf("%s: %s %q is not a number", p.path[p.depth-1], name, attr(name)))
		}
		return n
	}
	c := &p.current
	switch {
	case p.depth == 1:
		if p.seen || p.path[0] != "metadata" {
			return fmt.Errorf("element %.64q, must be metadata, and one", p.path[0])
		}
		p.seen = true
	case p.in("metadata", "package"):
		if len(p.packages) == maxPackages {
			return fmt.Errorf("more than %d packages", maxPackages)
		}
		*c = Package{}
		if kind := attr("type"); kind != "rpm" {
			p.wrong(fmt.Errorf("package of type %.64q", kind))
		}
	case p.in("metadata", "package", "version"):
		epoch, err := strconv.ParseUint(attr("epoch"), 10, 32)
		if err != nil && attr("epoch") != "" {
			p.wrong(fmt.Errorf("epoch %.64q is not a number", attr("epoch")))
		}
		c.Epoch, c.Version, c.Release = uint32(epoch), attr("ver"), attr("rel")
	case p.in("metadata", "package", "size"):
		c.size = number("package")
	case p.in("metadata", "package", "location"):
		c.Location = attr("href")
		var err error
		if c.Location, err = location(c.Location, attr("base")); err != nil {
			p.wrong(err)
		}
	case p.in("metadata", "package", "format", "header-range"):
		c.start, c.end = number("start"), number("end")
	default:
		return nil
	}
	if len(c.Version) > maxField || len(c.Release) > maxField {
		return fmt.Errorf("version of more than %d bytes", maxField)
	}
	return nil
}

func (p *parser) end() error {
	c := &p.current
	switch {
	case p.in("metadata", "package", "name"):
		c.Name = string(p.text)
	case p.in("metadata", "package", "arch"):
		c.Arch = string(p.text)
	case p.in("metadata", "package"):
		switch {
		case c.err != nil:
		case c.Name == "" || c.Version == "" || c.Release == "" || c.Arch == "":
			p.wrong(errors.New("it has no full name"))
		case c.Location == "":
			p.wrong(errors.New("it has no location"))
		case c.end == 0:
			p.wrong(errors.New("its header-range is not there"))
		case c.start >= c.end || c.end > maxHead || c.size > 0 && c.end > c.size:
			p.wrong(fmt.Errorf("header from %d to %d of %d bytes, the limit is %d", c.start, c.end, c.size, maxHead))
		}
		p.total += len(c.Name) + len(c.Arch) + len(c.Version) + len(c.Release) + len(c.Location)
		if p.total > maxText {
			return fmt.Errorf("more than %d bytes of names and locations", maxText)
		}
		p.packages = append(p.packages, *c)
	}
	return nil
}

// wrong keeps the first thing that is wrong with the package.
func (p *parser) wrong(err error) {
	if p.current.err == nil {
		p.current.err = err
	}
}

// same reports whether a header is of the package that the metadata says. To
// createrepo a source package without its sources is one like any other.
func same(listed, header rpmhdr.NEVRA) bool {
	if header.Arch == "nosrc" && listed.Arch == "src" {
		header.Arch = "src"
	}
	return listed == header
}
