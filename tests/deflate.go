// Raw DEFLATE of what comes on standard input, by Go's compress/flate: each text at every level, written at once, and in
// pieces with a Flush behind each. 32-bit sizes, little-endian, before each text and each stream.
//
//	go run tests/deflate.go <texts >streams
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

const pieces = 3

func main() {
	in, out := bufio.NewReader(os.Stdin), bufio.NewWriter(os.Stdout)
	writers := map[int]*flate.Writer{}
	for level := flate.HuffmanOnly; level <= flate.BestCompression; level++ {
		if level != flate.DefaultCompression { // another name of 6
			writer, err := flate.NewWriter(nil, level)
			check(err)
			writers[level] = writer
		}
	}
	for {
		var size uint32
		if err := binary.Read(in, binary.LittleEndian, &size); err == io.EOF {
			break
		} else {
			check(err)
		}
		text := make([]byte, size)
		_, err := io.ReadFull(in, text)
		check(err)
		for level := flate.HuffmanOnly; level <= flate.BestCompression; level++ {
			if writer := writers[level]; writer != nil {
				put(out, whole(writer, text))
				put(out, flushed(writer, text))
			}
		}
	}
	check(out.Flush())
}

func whole(writer *flate.Writer, text []byte) []byte {
	var stream bytes.Buffer
	writer.Reset(&stream)
	_, err := writer.Write(text)
	check(err)
	check(writer.Close())
	return stream.Bytes()
}

func flushed(writer *flate.Writer, text []byte) []byte {
	var stream bytes.Buffer
	writer.Reset(&stream)
	for i := 0; i < pieces; i++ {
		_, err := writer.Write(text[len(text)*i/pieces : len(text)*(i+1)/pieces])
		check(err)
		check(writer.Flush())
	}
	check(writer.Close())
	return stream.Bytes()
}

func put(out io.Writer, stream []byte) {
	check(binary.Write(out, binary.LittleEndian, uint32(len(stream))))
	_, err := out.Write(stream)
	check(err)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
