package imalog

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"diglim/internal/digest"
	"diglim/internal/wire"
)

// MaxText is the limit on a log in text, in bytes. It is turned into a binary
// one in memory.
const MaxText = 24 << 20

const maxLine = 2 * MaxEntry // what is no text takes two digits a byte

// Binary returns a log in its binary form, and whether it was text: log itself,
// or what it makes of securityfs ima/ascii_runtime_measurements
// (ima_ascii_measurements_show in ima_fs.c):
//
//	PCR in two places, template hash, template name, fields; a blank between each two
//
// The binary log has the hashes that stand in the text, and data made of the
// fields: where that is not what was hashed, the entry is not Authentic, and the
// log does not replay. Text has lost what is not in it: a name with a newline is
// cut, the numbers of users and groups are taken for 32 bits wide, and of a
// template that is not understood no data can be made, which is an error.
func Binary(log io.ReaderAt) (binaryLog io.ReaderAt, text bool, err error) {
	head := make([]byte, 3)
	if n, _ := log.ReadAt(head, 0); n < len(head) || head[2] != ' ' || !digitOrBlank(head[0]) || !digitOrBlank(head[1]) {
		return log, false, nil // a binary one begins with three bytes 0 or with a number below 24
	}
	b, right, err := fromText(log, binary.LittleEndian)
	if err == nil && !right {
		if other, ok, err := fromText(log, binary.BigEndian); ok && err == nil {
			b = other
		}
	}
	if err != nil {
		return nil, true, err
	}
	return bytes.NewReader(b), true, nil
}

func digitOrBlank(c byte) bool { return c == ' ' || '0' <= c && c <= '9' }

// fromText makes a binary log with numbers in that order, and says whether the
// first template hash is right then. Violations have none.
func fromText(log io.ReaderAt, order binary.AppendByteOrder) (b []byte, right bool, err error) {
	lines := bufio.NewScanner(io.NewSectionReader(log, 0, MaxText+1))
	lines.Buffer(nil, maxLine)
	lines.Split(cutLine)
	var width digest.Algorithm
	number, decided := 0, false
	var at int64
	for lines.Scan() {
		number++
		line := lines.Text()
		pcr, hash, template, rest, err := head(line)
		if err == nil && number > 1 && len(hash) != width.Size() {
			err = errors.New("template hash of another length than the one before")
		}
		var data []byte
		if err == nil {
			width, _ = widthOf(len(hash))
			data, err = fromFields(template, rest, order)
		}
		if err != nil {
			return nil, false, &wire.Error{Record: fmt.Sprintf("entry %d", number), Offset: at, Err: err}
		}
		if !decided && !zero(hash) {
			decided = true
			sum := digest.Sum(width, hashed(template, data))
			right = sum.Is(hash)
		}
		b = append(order.AppendUint32(b, pcr), hash...)
		b = appendField(b, order, []byte(template))
		if template == "ima" {
			b = append(b, data...)
		} else {
			b = appendField(b, order, data)
		}
		at += int64(len(line)) + 1
	}
	err = lines.Err()
	if err == nil && at > MaxText {
		err = fmt.Errorf("the limit on a log in text is %d bytes", MaxText)
	}
	if err != nil {
		return nil, false, &wire.Error{Record: fmt.Sprintf("entry %d", number+1), Offset: at, Err: err}
	}
	return b, right || !decided, nil
}

// cutLine is bufio.ScanLines, but leaves a carriage return at the end of a name.
func cutLine(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i], nil
	}
	if !atEOF || len(data) == 0 {
		return 0, nil, nil
	}
	return len(data), data, nil
}

// head takes the beginning of a line apart.
func head(line string) (pcr uint32, hash []byte, template, fields string, err error) {
	number, rest, ok := strings.Cut(strings.TrimPrefix(line, " "), " ")
	text, rest, ok2 := strings.Cut(rest, " ")
	template, fields, ok3 := strings.Cut(rest, " ")
	n, err := strconv.ParseUint(number, 10, 32)
	if !ok || !ok2 || !ok3 || err != nil {
		return 0, nil, "", "", errors.New("not an entry: PCR, hash, template and fields, with blanks between")
	}
	hash, err = hex.DecodeString(text)
	if _, ok := widthOf(len(hash)); err == nil && !ok {
		err = fmt.Errorf("template hash of %d bytes", len(hash))
	}
	return uint32(n), hash, template, fields, err
}

// widthOf is the algorithm of template hashes that are so many bytes wide.
func widthOf(size int) (digest.Algorithm, bool) {
	for _, alg := range []digest.Algorithm{digest.SHA1, digest.SHA256, digest.SHA384, digest.SHA512} {
		if alg.Size() == size {
			return alg, true
		}
	}
	return 0, false
}

// hashed is what of template data is hashed. That of template "ima" is given
// without the length of its name here.
func hashed(template string, data []byte) []byte {
	if template != "ima" {
		return data
	}
	b := make([]byte, legacyDigest+legacyName+1)
	copy(b, data[:legacyDigest])
	copy(b[legacyDigest:], data[legacyDigest+4:])
	return b
}

func appendField(b []byte, order binary.AppendByteOrder, field []byte) []byte {
	return append(order.AppendUint32(b, uint32(len(field))), field...)
}

// fromFields makes template data of the fields of a line. Of these only a name
// can have blanks in it.
func fromFields(template, text string, order binary.AppendByteOrder) ([]byte, error) {
	if template == "ima" {
		d, name, _ := strings.Cut(text, " ")
		b, err := hex.DecodeString(d)
		if err != nil || len(b) != legacyDigest || len(name) > legacyName {
			return nil, errors.New("not a digest of 20 bytes and a name of at most 255")
		}
		return appendField(b, order, []byte(name)), nil
	}
	ids := identifiers(template)
	parts := strings.Split(text, " ")
	if i := slices.IndexFunc(ids, func(id string) bool { return families[id] == "n" || id == "n" }); i >= 0 && len(parts) > len(ids) {
		end := len(parts) - (len(ids) - i - 1)
		parts = slices.Replace(parts, i, end, strings.Join(parts[i:end], " "))
	}
	for len(parts) < len(ids) {
		parts = append(parts, "") // an editor took away the blank before an empty field
	}
	if len(parts) != len(ids) {
		return nil, fmt.Errorf("%d fields, template %s has %d", len(parts), template, len(ids))
	}
	var data []byte
	for i, id := range ids {
		field, err := fromField(id, parts[i], order)
		if err != nil {
			return nil, fmt.Errorf("field %s: %w", id, err)
		}
		data = appendField(data, order, field)
	}
	return data, nil
}

// fromField makes a field of its text (ima_show_template_data_ascii in
// ima_template_lib.c).
func fromField(id, text string, order binary.AppendByteOrder) ([]byte, error) {
	switch id {
	case "n", "n-ng":
		return append([]byte(text), 0), nil
	case "xattrnames":
		if text == "" {
			return nil, nil
		}
		return append([]byte(text), 0), nil
	case "d-ng", "d-ngv2", "d-modsig":
		if text == "" {
			return nil, nil
		}
		i := strings.LastIndexByte(text, ':')
		value, err := hex.DecodeString(text[i+1:])
		return slices.Concat([]byte(text[:i+1]), []byte{0}, value), err
	case "iuid", "igid":
		n, err := strconv.ParseUint(text, 10, 32)
		return order.AppendUint32(nil, uint32(n)), err
	case "imode":
		n, err := strconv.ParseUint(text, 10, 16)
		return order.AppendUint16(nil, uint16(n)), err
	case "d", "sig", "modsig", "buf", "evmsig", "xattrlengths", "xattrvalues":
		return hex.DecodeString(text)
	}
	return nil, errors.New("not known, and its text says nothing")
}
