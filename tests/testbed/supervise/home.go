package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// dirPrefix starts the name of every testbed directory. It is short because
	// paths of unix sockets below it may have 107 bytes.
	dirPrefix = "flowforge-"
	// unbornPrefix starts its name until its lock is held.
	unbornPrefix = ".flowforge-"
	// unbornLimit is how long that may take.
	unbornLimit = 10 * time.Minute
	// lockName is the file in the directory that its supervisor holds locked.
	lockName = "supervisor.lock"
	// maxSlot is the number of testbeds that a machine can hold at once.
	maxSlot = 250
	// guardPort is the port that claims a slot's loopback address.
	guardPort = 65000
)

// home is what a testbed has to itself: a directory, and a slot from which its
// addresses follow (127.77.SLOT.1 on the loopback). Both are held by open
// descriptors, so that the kernel gives them back whatever happens to us.
type home struct {
	dir   string
	slot  int
	lock  *os.File
	guard net.Listener
}

func claimHome(parent string) (*home, error) {
	sweep(parent)
	slot, guard, err := claimSlot()
	if err != nil {
		return nil, err
	}
	dir, lock, err := makeDir(parent, slot)
	if err != nil {
		return nil, fmt.Errorf("make a directory in %s: %w", parent, err)
	}
	return &home{dir: dir, slot: slot, lock: lock, guard: guard}, nil
}

// makeDir makes the directory under a name that sweep leaves alone, and gives it
// its own when the lock is held: to sweep, a directory whose lock is free is one
// that nobody owns any more.
func makeDir(parent string, slot int) (string, *os.File, error) {
	unborn, err := os.MkdirTemp(parent, unbornPrefix)
	if err != nil {
		return "", nil, err
	}
	lock, err := lockDir(unborn, os.O_CREATE)
	if err != nil {
		return "", nil, err
	}
	// The pid is for the command that ends a detached testbed.
	if _, err := fmt.Fprintln(lock, os.Getpid()); err != nil {
		return "", nil, err
	}
	// Containers of other users walk through it to their volumes.
	if err := os.Chmod(unborn, 0o711); err != nil {
		return "", nil, err
	}
	if err := os.Mkdir(filepath.Join(unborn, "logs"), 0o755); err != nil {
		return "", nil, err
	}
	random := strings.TrimPrefix(filepath.Base(unborn), unbornPrefix)
	dir := filepath.Join(parent, fmt.Sprintf("%s%d-%s", dirPrefix, slot, random))
	return dir, lock, os.Rename(unborn, dir)
}

// claimSlot takes the first free slot, starting at one that differs between
// processes so that testbeds that start together seldom collide.
func claimSlot() (int, net.Listener, error) {
	first := os.Getpid() % maxSlot
	for i := range maxSlot {
		slot := (first+i)%maxSlot + 1
		guard, err := net.Listen("tcp", fmt.Sprintf("127.77.%d.1:%d", slot, guardPort))
		if err == nil {
			return slot, guard, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return 0, nil, err
		}
	}
	return 0, nil, fmt.Errorf("all %d testbed slots of this machine are in use", maxSlot)
}

// lockDir locks a testbed directory for this process, without waiting.
func lockDir(dir string, flags int) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|flags, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, err
	}
	return lock, nil
}

// sweep removes the directories of supervisors that were killed: those whose
// lock is free, and those that were not finished in time.
func sweep(parent string) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, entry := range entries {
		dir := filepath.Join(parent, entry.Name())
		switch {
		case !entry.IsDir():
		case strings.HasPrefix(entry.Name(), dirPrefix):
			lock, err := lockDir(dir, 0)
			if err != nil {
				continue // in use, or not a testbed's
			}
			removeStale(dir)
			lock.Close()
		case strings.HasPrefix(entry.Name(), unbornPrefix):
			if info, err := entry.Info(); err == nil && time.Since(info.ModTime()) > unbornLimit {
				removeStale(dir)
			}
		}
	}
}

func removeStale(dir string) {
	if err := removeTree(dir); err != nil {
		fmt.Fprintf(os.Stderr, "supervise: remove stale %s: %v\n", dir, err)
	}
}

// removeTree unmounts what is mounted below dir, then removes dir. It refuses
// to remove through a mount that will not go away: what is behind a bind mount
// is not ours.
func removeTree(dir string) error {
	for range 8 {
		mounts, err := mountsBelow(dir)
		if err != nil {
			return err
		}
		if len(mounts) == 0 {
			return os.RemoveAll(dir)
		}
		// Deepest first: mountinfo lists a mount after the one it is on.
		for i := len(mounts) - 1; i >= 0; i-- {
			if err := syscall.Unmount(mounts[i], syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) {
				return fmt.Errorf("unmount %s: %w", mounts[i], err)
			}
		}
	}
	return fmt.Errorf("%s still holds mounts", dir)
}

func mountsBelow(dir string) ([]string, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var below []string
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		point := unescapeMount(fields[4])
		if point == dir || strings.HasPrefix(point, dir+"/") {
			below = append(below, point)
		}
	}
	return below, nil
}

// unescapeMount undoes the octal escapes of mountinfo.
func unescapeMount(field string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(field)
}
