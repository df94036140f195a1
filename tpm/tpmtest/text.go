package tpmtest

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"

	"diglim/internal/digest"
)

// formats are those of templates that have a name.
var formats = map[string]string{
	"ima-ng": "d-ng|n-ng", "ima-ngv2": "d-ngv2|n-ng", "ima-sig": "d-ng|n-ng|sig", "ima-sigv2": "d-ngv2|n-ng|sig", "ima-buf": "d-ng|n-ng|buf",
	"ima-modsig": "d-ng|n-ng|sig|d-modsig|modsig", "evm-sig": "d-ng|n-ng|evmsig|xattrnames|xattrlengths|xattrvalues|iuid|igid|imode",
}

// Text is what a kernel prints of entries in text.
func Text(alg digest.Algorithm, all ...Entry) string {
	var b strings.Builder
	for _, e := range all {
		hash := digest.Sum(alg, e.TemplateData()).Bytes()
		if e.Violation {
			hash = make([]byte, alg.Size())
		}
		fmt.Fprintf(&b, "%2d %x %s", e.PCR, hash, e.Template)
		format, ok := formats[e.Template]
		if !ok {
			format = e.Template
		}
		fields := e.Fields
		if fields == nil {
			fields = [][]byte{Tagged(e.Digest), append([]byte(e.Path), 0), e.Signature}
		}
		order := binary.ByteOrder(binary.LittleEndian)
		if e.BigEndian {
			order = binary.BigEndian
		}
		for i, id := range strings.Split(format, "|") {
			b.WriteByte(' ')
			f := fields[i]
			switch tag, value, ok := bytes.Cut(f, []byte(":\x00")); {
			case len(f) == 0:
			case id == "iuid" || id == "igid":
				fmt.Fprint(&b, order.Uint32(f))
			case id == "imode":
				fmt.Fprint(&b, order.Uint16(f))
			case strings.HasPrefix(id, "d-") && ok:
				fmt.Fprintf(&b, "%s:%x", tag, value)
			case id == "n" || id == "n-ng" || id == "xattrnames":
				b.Write(f[:len(f)-1])
			default:
				b.WriteString(hex.EncodeToString(f))
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}
