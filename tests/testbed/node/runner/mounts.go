package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// stage is where directories are parked while the mounts above them change.
const stage = "/run/node"

type mount struct {
	source, target, kind string
	flags                uintptr
	options              string
}

func (m mount) do() error {
	if err := syscall.Mount(m.source, m.target, m.kind, m.flags, m.options); err != nil {
		return fmt.Errorf("mount %s at %s: %w", m.source, m.target, err)
	}
	return nil
}

// mountAll turns a fresh mount namespace into the node's view of the machine:
//
//	/proc  of the node's PID namespace, with kernel settings shielded
//	/run   empty, in memory
//	/var   the host's, with the node's changes kept in memory
//	binds  on top
//
// Nothing of it propagates to the host. Inside, mounts are shared, as container
// runtimes expect of a root file system.
func mountAll(spec *Spec) error {
	parked, err := os.Open(spec.Keep)
	if err != nil {
		return err
	}
	defer parked.Close()
	const bind = syscall.MS_BIND | syscall.MS_REC
	sources, err := openBinds(spec)
	if err != nil {
		return err
	}
	base := []mount{
		{"none", "/", "", syscall.MS_REC | syscall.MS_PRIVATE, ""},
		{"proc", "/proc", "proc", syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC, ""},
		{"tmpfs", "/run", "tmpfs", syscall.MS_NOSUID | syscall.MS_NODEV, "mode=755"},
	}
	if err := mountEach(base); err != nil {
		return err
	}
	upper, work := filepath.Join(stage, "upper"), filepath.Join(stage, "work")
	for _, folder := range []string{upper, work} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
	}
	rest := []mount{
		{"overlay", "/var", "overlay", 0, "lowerdir=/var,upperdir=" + upper + ",workdir=" + work},
	}
	// A file descriptor still leads to the directory below the new mounts.
	if below(spec.Keep, "/var") || below(spec.Keep, "/run") {
		rest = append(rest, mount{descriptorPath(parked), spec.Keep, "", bind, ""})
	}
	for at, file := range sources {
		rest = append(rest, mount{descriptorPath(file), spec.Binds[at].To, "", bind, ""})
	}
	if err := mountEach(rest); err != nil {
		return err
	}
	for _, file := range sources {
		file.Close()
	}
	if err := shield(); err != nil {
		return err
	}
	return mount{"none", "/", "", syscall.MS_REC | syscall.MS_SHARED, ""}.do()
}

// shielded are the settings of the whole machine that a kubelet changes when it
// starts. It shall not: the machine is not the node's.
var shielded = []string{
	"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
	"kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
}

// shield puts a copy in the place of each of these settings.
func shield() error {
	for _, name := range shielded {
		setting, copied := filepath.Join("/proc/sys", name), filepath.Join(stage, strings.ReplaceAll(name, "/", "."))
		value, err := os.ReadFile(setting)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(copied, value, 0o644); err != nil {
			return err
		}
		if err := (mount{copied, setting, "", syscall.MS_BIND, ""}).do(); err != nil {
			return err
		}
	}
	return nil
}

// mountEach mounts in order, making the directories that are missing.
func mountEach(mounts []mount) error {
	for _, m := range mounts {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := m.do(); err != nil {
			return err
		}
	}
	return nil
}

func openBinds(spec *Spec) ([]*os.File, error) {
	files := make([]*os.File, 0, len(spec.Binds))
	for _, bind := range spec.Binds {
		if err := os.MkdirAll(bind.From, 0o755); err != nil {
			return nil, err
		}
		file, err := os.Open(bind.From)
		if err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}

func descriptorPath(file *os.File) string {
	return "/proc/self/fd/" + strconv.Itoa(int(file.Fd()))
}

func below(path, folder string) bool {
	return strings.HasPrefix(path, folder+"/")
}
