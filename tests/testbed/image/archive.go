package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"time"
)

// File is a file of an image: its path without the leading slash.
type File struct {
	Path    string
	Content []byte
}

// Image is one name of an archive and what a container of it runs.
type Image struct {
	Name       string
	Entrypoint []string
}

// Media types and annotations of image-spec v1.1; the last is containerd's.
const (
	mediaIndex          = "application/vnd.oci.image.index.v1+json"
	mediaManifest       = "application/vnd.oci.image.manifest.v1+json"
	mediaConfig         = "application/vnd.oci.image.config.v1+json"
	mediaLayer          = "application/vnd.oci.image.layer.v1.tar"
	annotationReference = "org.opencontainers.image.ref.name"
	annotationName      = "io.containerd.image.name"
)

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Manifests     []descriptor `json:"manifests"`
}

type process struct {
	Env        []string `json:"Env"`
	Entrypoint []string `json:"Entrypoint"`
	WorkingDir string   `json:"WorkingDir"`
}

type rootFS struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

type config struct {
	Created      string  `json:"created"`
	Architecture string  `json:"architecture"`
	OS           string  `json:"os"`
	Config       process `json:"config"`
	RootFS       rootFS  `json:"rootfs"`
}

// epoch is the time of every file and image: a real one would make each build
// another archive.
var epoch = time.Unix(0, 0).UTC()

// layout collects blobs in the order in which they are written.
type layout struct {
	digests []string
	blobs   map[string][]byte
}

func (l *layout) add(mediaType string, content []byte) descriptor {
	sum := sha256.Sum256(content)
	digest := hex.EncodeToString(sum[:])
	if _, ok := l.blobs[digest]; !ok {
		l.digests = append(l.digests, digest)
		l.blobs[digest] = content
	}
	return descriptor{MediaType: mediaType, Digest: "sha256:" + digest, Size: len(content)}
}

func (l *layout) addJSON(mediaType string, value any) (descriptor, error) {
	content, err := json.Marshal(value)
	if err != nil {
		return descriptor{}, err
	}
	return l.add(mediaType, content), nil
}

// WriteArchive writes all images, which share one layer that holds the files.
func WriteArchive(w io.Writer, files []File, arch string, images []Image) error {
	layer, err := layerOf(files)
	if err != nil {
		return err
	}
	blobs := layout{blobs: map[string][]byte{}}
	root := index{SchemaVersion: 2, MediaType: mediaIndex}
	for _, image := range images {
		described, err := blobs.addImage(layer, arch, image)
		if err != nil {
			return err
		}
		root.Manifests = append(root.Manifests, described)
	}
	content, err := json.Marshal(root)
	if err != nil {
		return err
	}
	archive := tar.NewWriter(w)
	members := []entry{{"oci-layout", 0o644, []byte(`{"imageLayoutVersion":"1.0.0"}`)}, {"index.json", 0o644, content}}
	for _, digest := range blobs.digests {
		members = append(members, entry{"blobs/sha256/" + digest, 0o644, blobs.blobs[digest]})
	}
	if err := writeTree(archive, []entry{{"blobs/", 0o755, nil}, {"blobs/sha256/", 0o755, nil}}, members); err != nil {
		return err
	}
	return archive.Close()
}

// addImage adds config and manifest of an image and returns what the index says
// about it.
func (l *layout) addImage(layer []byte, arch string, image Image) (descriptor, error) {
	packed := l.add(mediaLayer, layer)
	configured, err := l.addJSON(mediaConfig, config{
		Created:      epoch.Format(time.RFC3339),
		Architecture: arch,
		OS:           "linux",
		Config:       process{Env: []string{"PATH=/"}, Entrypoint: image.Entrypoint, WorkingDir: "/"},
		// The layer is not compressed: its digest is its diff id.
		RootFS: rootFS{Type: "layers", DiffIDs: []string{packed.Digest}},
	})
	if err != nil {
		return descriptor{}, err
	}
	described, err := l.addJSON(mediaManifest, manifest{
		SchemaVersion: 2, MediaType: mediaManifest, Config: configured, Layers: []descriptor{packed},
	})
	if err != nil {
		return descriptor{}, err
	}
	described.Annotations = map[string]string{annotationReference: image.Name, annotationName: image.Name}
	return described, nil
}

func layerOf(files []File) ([]byte, error) {
	var content bytes.Buffer
	layer := tar.NewWriter(&content)
	folders := []entry{{"tmp/", 0o1777, nil}}
	known := map[string]bool{"tmp/": true}
	members := make([]entry, 0, len(files))
	for _, file := range files {
		// Parents first; whoever runs the container must be able to enter them.
		for at, letter := range file.Path {
			if folder := file.Path[:at+1]; letter == '/' && !known[folder] {
				known[folder] = true
				folders = append(folders, entry{folder, 0o755, nil})
			}
		}
		members = append(members, entry{file.Path, 0o755, file.Content})
	}
	if err := writeTree(layer, folders, members); err != nil {
		return nil, err
	}
	if err := layer.Close(); err != nil {
		return nil, err
	}
	return content.Bytes(), nil
}

type entry struct {
	name    string
	mode    int64
	content []byte
}

func writeTree(archive *tar.Writer, folders, files []entry) error {
	for _, folder := range folders {
		header := tar.Header{Typeflag: tar.TypeDir, Name: folder.name, Mode: folder.mode, ModTime: epoch}
		if err := archive.WriteHeader(&header); err != nil {
			return err
		}
	}
	for _, file := range files {
		header := tar.Header{
			Typeflag: tar.TypeReg, Name: file.name, Mode: file.mode, Size: int64(len(file.content)), ModTime: epoch,
		}
		if err := archive.WriteHeader(&header); err != nil {
			return err
		}
		if _, err := archive.Write(file.content); err != nil {
			return err
		}
	}
	return nil
}
