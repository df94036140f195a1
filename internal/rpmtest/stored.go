package rpmtest

import "encoding/binary"

// Stored makes of a main header what an rpm database stores: without magic, and
// with the entries that rpm adds behind those of the region.
func Stored(header []byte, added ...Entry) []byte {
	il, dl := binary.BigEndian.Uint32(header[8:]), binary.BigEndian.Uint32(header[12:])
	index := append([]byte(nil), header[16:16+16*il]...)
	data := append([]byte(nil), header[16+16*il:][:dl]...)
	for _, e := range added {
		for e.Align > 1 && len(data)%e.Align != 0 {
			data = append(data, 0)
		}
		index = AppendIndex(index, e.Tag, e.Type, uint32(len(data)), e.Count)
		data = append(data, e.Data...)
	}
	return Raw(index, data)[8:]
}
