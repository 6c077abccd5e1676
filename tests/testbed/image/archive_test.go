package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

var two = []Image{
	{Name: "docker.io/a/work:1", Entrypoint: []string{"/work"}},
	{Name: "docker.io/a/pause:1", Entrypoint: []string{"/work", "pause"}},
}

func write(t *testing.T, program string, images []Image) []byte {
	t.Helper()
	var archive bytes.Buffer
	if err := WriteArchive(&archive, []File{{"work", []byte(program)}}, "amd64", images); err != nil {
		t.Fatal(err)
	}
	return archive.Bytes()
}

// unpack returns the regular files of a tar archive.
func unpack(t *testing.T, archive []byte) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for reader := tar.NewReader(bytes.NewReader(archive)); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Typeflag == tar.TypeReg {
			content, err := io.ReadAll(reader)
			if err != nil {
				t.Fatal(err)
			}
			files[header.Name] = content
		}
	}
}

// blob returns what a descriptor points to, after checking digest and size.
func blob(t *testing.T, files map[string][]byte, d descriptor) []byte {
	t.Helper()
	content := files["blobs/sha256/"+d.Digest[len("sha256:"):]]
	sum := sha256.Sum256(content)
	if d.Digest != "sha256:"+hex.EncodeToString(sum[:]) || d.Size != len(content) {
		t.Fatalf("%+v does not describe %d bytes of digest %x", d, len(content), sum)
	}
	return content
}

func decode[T any](t *testing.T, content []byte) T {
	t.Helper()
	var value T
	if err := json.Unmarshal(content, &value); err != nil {
		t.Fatal(err)
	}
	return value
}

func TestEveryImageLeadsToTheProgram(t *testing.T) {
	files := unpack(t, write(t, "program", two))
	root := decode[index](t, files["index.json"])
	if len(root.Manifests) != len(two) {
		t.Fatalf("%d manifests", len(root.Manifests))
	}
	for at, described := range root.Manifests {
		if described.Annotations[annotationName] != two[at].Name {
			t.Errorf("image %d is named %v", at, described.Annotations)
		}
		manifested := decode[manifest](t, blob(t, files, described))
		configured := decode[config](t, blob(t, files, manifested.Config))
		if got := configured.Config.Entrypoint; len(got) != len(two[at].Entrypoint) {
			t.Errorf("entrypoint %v", got)
		}
		if configured.RootFS.DiffIDs[0] != manifested.Layers[0].Digest {
			t.Error("the diff id is not that of the uncompressed layer")
		}
		layer := unpack(t, blob(t, files, manifested.Layers[0]))
		if string(layer["work"]) != "program" {
			t.Errorf("layer holds %v", layer)
		}
	}
	if want := 2 + 1 + 2*len(two); len(files) != want {
		t.Errorf("%d files, want %d: the layer is shared", len(files), want)
	}
}

func TestLibrariesStandWhereTheyStandHere(t *testing.T) {
	folder := t.TempDir()
	binary, library, output := filepath.Join(folder, "b"), filepath.Join(folder, "lib/c.so"), filepath.Join(folder, "o")
	if err := os.Mkdir(filepath.Dir(library), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{binary, library} {
		if err := os.WriteFile(path, []byte(filepath.Base(path)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := run(output, binary, []string{library}, "amd64", []string{"docker.io/a/b:1=/b"}); err != nil {
		t.Fatal(err)
	}
	archive, err := os.ReadFile(output)
	if err != nil {
		t.Fatal(err)
	}
	files := unpack(t, archive)
	described := decode[index](t, files["index.json"]).Manifests[0]
	manifested := decode[manifest](t, blob(t, files, described))
	layer := unpack(t, blob(t, files, manifested.Layers[0]))
	if string(layer["b"]) != "b" || string(layer[library[1:]]) != "c.so" || len(layer) != 2 {
		t.Errorf("layer holds %v", layer)
	}
}

func TestSameInputSameBytes(t *testing.T) {
	if !bytes.Equal(write(t, "program", two), write(t, "program", two)) {
		t.Error("two archives of one input differ")
	}
	if bytes.Equal(write(t, "program", two), write(t, "another", two)) {
		t.Error("two programs give one archive")
	}
}

func TestBadCommandLinesAreRefused(t *testing.T) {
	folder := t.TempDir()
	binary, output := filepath.Join(folder, "b"), filepath.Join(folder, "o")
	if err := os.WriteFile(binary, []byte("x"), 0o755); err != nil {
		t.Fatal(err)
	}
	good := "docker.io/a/b:1=/b"
	for _, bad := range []string{"", "docker.io/a/b:1", "docker.io/a/b:1=", "a/b:1=/b", "b:1=/b", "docker.io/a/b=/b"} {
		if err := run(output, binary, nil, "amd64", []string{good, bad}); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	for _, library := range []string{"b", filepath.Join(folder, "missing")} {
		if err := run(output, binary, []string{library}, "amd64", []string{good}); err == nil {
			t.Errorf("library %q is accepted", library)
		}
	}
	if entries, _ := os.ReadDir(folder); len(entries) != 1 {
		t.Error("a refused command line leaves files")
	}
	if err := run(output, binary, nil, "amd64", []string{good}); err != nil {
		t.Error(err)
	}
}
