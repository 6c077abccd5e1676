// Command image writes an OCI image archive around one binary.
//
//	image -o ARCHIVE -binary FILE [-with FILE]... NAME=COMMAND[,ARG]... [NAME=COMMAND...]...
//
// Every NAME becomes an image that holds the binary, at /NAME-OF-FILE, with
// COMMAND and its arguments as entrypoint; all images of an archive share the
// one layer. A static binary needs no other file; what a dynamic one loads is
// named by -with, and stands in the image at the path that it has here. The
// archive depends on nothing but the arguments and the files: same input, same
// bytes, so its hash can be the key of a cache.
//
// The format is the OCI image layout in a tar file (image-spec v1.1), with the
// annotation by which containerd's importer names images.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

func main() {
	output := flag.String("o", "", "archive to write")
	binary := flag.String("binary", "", "binary to pack")
	var libraries []string
	flag.Func("with", "absolute path of a file to pack as well, repeatable", func(path string) error {
		libraries = append(libraries, path)
		return nil
	})
	arch := flag.String("arch", runtime.GOARCH, "architecture of the binary")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: image -o ARCHIVE -binary FILE [-with FILE]... NAME=COMMAND[,ARG]...")
		flag.PrintDefaults()
	}
	flag.Parse()
	if err := run(*output, *binary, libraries, *arch, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(output, binary string, libraries []string, arch string, arguments []string) error {
	if output == "" || binary == "" || len(arguments) == 0 {
		return fmt.Errorf("-o, -binary and at least one NAME=COMMAND are needed")
	}
	images := make([]Image, 0, len(arguments))
	for _, argument := range arguments {
		image, err := parseImage(argument)
		if err != nil {
			return err
		}
		images = append(images, image)
	}
	program, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	files := []File{{filepath.Base(binary), program}}
	for _, path := range libraries {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("-with %q is not an absolute path", path)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files = append(files, File{strings.TrimPrefix(filepath.Clean(path), "/"), content})
	}
	var archive bytes.Buffer
	if err := WriteArchive(&archive, files, arch, images); err != nil {
		return err
	}
	draft := fmt.Sprintf("%s.%d", output, os.Getpid())
	if err := os.WriteFile(draft, archive.Bytes(), 0o644); err != nil {
		return err
	}
	return os.Rename(draft, output)
}

// parseImage reads NAME=COMMAND[,ARG]... The name must be full: a container
// runtime would complete a short one to another than was meant.
func parseImage(argument string) (Image, error) {
	name, command, ok := strings.Cut(argument, "=")
	host, path, _ := strings.Cut(name, "/")
	if !ok || command == "" || !strings.Contains(host, ".") || !strings.Contains(path, ":") {
		return Image{}, fmt.Errorf("%q is not HOST/PATH:TAG=COMMAND[,ARG]...", argument)
	}
	return Image{Name: name, Entrypoint: strings.Split(command, ",")}, nil
}
