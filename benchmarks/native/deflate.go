// Compresses texts one by one with compress/flate at its default level, each into a complete stream, as a server written
// in Go sends messages.
//
//	go run deflate.go <texts >streams     32-bit little-endian sizes, each before its text or stream
package main

import (
	"bufio"
	"bytes"
	"compress/flate"
	"encoding/binary"
	"io"
	"log"
	"os"
)

func main() {
	in, out := bufio.NewReader(os.Stdin), bufio.NewWriter(os.Stdout)
	var stream bytes.Buffer
	deflate, err := flate.NewWriter(&stream, flate.DefaultCompression)
	for err == nil {
		var size uint32
		if err = binary.Read(in, binary.LittleEndian, &size); err != nil {
			break
		}
		text := make([]byte, size)
		if _, err = io.ReadFull(in, text); err != nil {
			break
		}
		stream.Reset()
		deflate.Reset(&stream)
		if _, err = deflate.Write(text); err != nil {
			break
		}
		if err = deflate.Close(); err != nil {
			break
		}
		if err = binary.Write(out, binary.LittleEndian, uint32(stream.Len())); err != nil {
			break
		}
		_, err = stream.WriteTo(out)
	}
	if err == io.EOF {
		err = out.Flush()
	}
	if err != nil {
		log.Fatal(err)
	}
}
