package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// cgroups is one group of the same path in every hierarchy: one directory with
// cgroup v2, one per controller with v1.
type cgroups struct {
	root, path string
}

// hierarchies are the roots in which the group exists.
func (c cgroups) hierarchies() ([]string, error) {
	if _, err := os.Stat(filepath.Join(c.root, "cgroup.controllers")); err == nil {
		return []string{c.root}, nil
	}
	entries, err := os.ReadDir(c.root)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, entry := range entries {
		folder := filepath.Join(c.root, entry.Name())
		// Links (cpu -> cpu,cpuacct) lead to hierarchies that are listed anyway.
		if _, err := os.Stat(filepath.Join(folder, "cgroup.procs")); err == nil && entry.IsDir() {
			all = append(all, folder)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no cgroup hierarchy is mounted below %s", c.root)
	}
	return all, nil
}

// create makes the group, level by level: with v1 a fresh cpuset takes no
// process before it has CPUs and memory nodes, with v2 a group has the
// controllers that its parent hands down.
func (c cgroups) create() error {
	hierarchies, err := c.hierarchies()
	if err != nil {
		return err
	}
	for _, hierarchy := range hierarchies {
		// The parents are shared: a node that ends removes the ones that it
		// leaves empty, perhaps between two levels of this walk.
		err := c.createIn(hierarchy)
		for try := 1; vanished(err) && try < createTries; try++ {
			err = c.createIn(hierarchy)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// createTries bounds how often a group is begun anew whose parent vanished.
const createTries = 1000

// vanished says that a group was removed under our hands: ENOENT for its path,
// ENODEV for a file of it that was open.
func vanished(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV)
}

func (c cgroups) createIn(folder string) error {
	for name := range strings.SplitSeq(c.path, "/") {
		parent := folder
		folder = filepath.Join(folder, name)
		if err := handDown(parent); err != nil {
			return err
		}
		if err := os.Mkdir(folder, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if err := inherit(parent, folder, file); err != nil {
				return err
			}
		}
	}
	return nil
}

// needed are the controllers without which a kubelet refuses a v2 group.
var needed = []string{"cpu", "cpuset", "hugetlb", "memory", "pids"}

// handDown enables the controllers of a v2 group for its children. One that is
// busy elsewhere (cpu with real-time processes, rdma, misc) is missed only if
// the kubelet needs it.
func handDown(parent string) error {
	controllers, err := os.ReadFile(filepath.Join(parent, "cgroup.controllers"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	control := filepath.Join(parent, "cgroup.subtree_control")
	for controller := range strings.FieldsSeq(string(controllers)) {
		err := os.WriteFile(control, []byte("+"+controller), 0o644)
		if err != nil && slices.Contains(needed, controller) {
			return fmt.Errorf("%s: +%s: %w", control, controller, err)
		}
	}
	return nil
}

// inherit copies a file of v1's cpuset that is empty in the child.
func inherit(parent, child, name string) error {
	if _, err := os.Stat(filepath.Join(parent, "cgroup.controllers")); err == nil {
		return nil
	}
	value, err := os.ReadFile(filepath.Join(child, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || len(bytes.TrimSpace(value)) > 0 {
		return err
	}
	if value, err = os.ReadFile(filepath.Join(parent, name)); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(child, name), value, 0o644)
}

// remove deletes the group with all below it, then the parents that have become
// empty. Killed processes take a moment to leave, so it tries for a while.
func (c cgroups) remove(patience time.Duration) error {
	hierarchies, err := c.hierarchies()
	if err != nil {
		return err
	}
	deadline := time.Now().Add(patience)
	for _, hierarchy := range hierarchies {
		for {
			err := removeTree(filepath.Join(hierarchy, c.path))
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				return err
			}
			time.Sleep(20 * time.Millisecond)
		}
		for parent := filepath.Dir(c.path); parent != "."; parent = filepath.Dir(parent) {
			if syscall.Rmdir(filepath.Join(hierarchy, parent)) != nil {
				break
			}
		}
	}
	return nil
}

// removeTree removes a group and its children; the files of a group are no
// obstacle, only its children and processes are.
func removeTree(folder string) error {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := removeTree(filepath.Join(folder, entry.Name())); err != nil {
				return err
			}
		}
	}
	if err := syscall.Rmdir(folder); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("rmdir %s: %w", folder, err)
	}
	return nil
}
