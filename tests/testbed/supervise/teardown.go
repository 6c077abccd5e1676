package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// cleanupLimit bounds one cleanup command.
	cleanupLimit = 20 * time.Second
	// orphanLimit bounds the killing of what the named processes left behind.
	orphanLimit = 10 * time.Second
)

// teardown takes away everything that the testbed has, in this order: the
// processes stage by stage, what they left running, the registered cleanups,
// the logs somebody asked for, mounts and directory, and last the lock and the
// address.
func (s *supervisor) teardown() error {
	for _, stage := range s.stages() {
		s.stopStage(stage)
	}
	errs := []error{s.killOrphans()}
	for _, argv := range slices.Backward(s.cleanups) {
		errs = append(errs, s.cleanup(argv))
	}
	if s.keepLogs != "" {
		errs = append(errs, copyLogs(filepath.Join(s.home.dir, "logs"), s.keepLogs))
	}
	errs = append(errs, removeTree(s.home.dir))
	s.home.lock.Close()
	s.home.guard.Close()
	return errors.Join(errs...)
}

func (s *supervisor) stages() []int {
	var stages []int
	for _, p := range s.running {
		if !slices.Contains(stages, p.stage) {
			stages = append(stages, p.stage)
		}
	}
	slices.Sort(stages)
	return stages
}

// stopStage ends the processes of one stage together: SIGTERM, and SIGKILL for
// each when its grace is over. A stopped process is continued, or it could not
// act on SIGTERM.
func (s *supervisor) stopStage(stage int) {
	begin := time.Now()
	for _, p := range s.running {
		if p.stage == stage && p.grace > 0 {
			_ = syscall.Kill(p.pid, syscall.SIGTERM)
			_ = syscall.Kill(p.pid, syscall.SIGCONT)
		}
	}
	for {
		s.reap()
		left := 0
		for _, p := range s.running {
			if p.stage != stage {
				continue
			}
			left++
			if time.Since(begin) >= p.grace {
				_ = syscall.Kill(p.pid, syscall.SIGKILL)
			}
		}
		if left == 0 {
			return
		}
		s.awaitChild(10 * time.Millisecond)
	}
}

// killOrphans ends the descendants that are left. As their subreaper we become
// the parent of each whose own parent has ended, so that killing children until
// there are none reaches all of them.
func (s *supervisor) killOrphans() error {
	begin := time.Now()
	for {
		s.reap()
		orphans := childrenOf(os.Getpid())
		if len(orphans) == 0 {
			return nil
		}
		if time.Since(begin) > orphanLimit {
			return fmt.Errorf("processes %v do not end", orphans)
		}
		for _, pid := range orphans {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		s.awaitChild(10 * time.Millisecond)
	}
}

// cleanup runs one command to its end.
func (s *supervisor) cleanup(argv []string) error {
	if len(argv) == 0 {
		return nil
	}
	pid, err := spawn(argv, nil, filepath.Join(s.home.dir, "logs", "cleanup.log"))
	if err != nil {
		return fmt.Errorf("cleanup %v: %w", argv, err)
	}
	s.running[pid] = &process{name: "cleanup", pid: pid}
	for begin := time.Now(); s.running[pid] != nil; s.reap() {
		if time.Since(begin) > cleanupLimit {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		s.awaitChild(10 * time.Millisecond)
	}
	return nil
}

// awaitChild waits for a child to end, but not longer than the limit.
func (s *supervisor) awaitChild(limit time.Duration) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-s.children:
	case <-timer.C:
	}
}

// childrenOf reads the process table for the children of a process, zombies
// left out: those are reaped, not killed.
func childrenOf(parent int) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var children []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "stat"))
		if err != nil {
			continue
		}
		state, ppid, ok := parseStat(string(stat))
		if ok && ppid == parent && state != "Z" {
			children = append(children, pid)
		}
	}
	return children
}

// parseStat reads state and parent from /proc/PID/stat. The command name, in
// parentheses, may itself hold spaces and parentheses.
func parseStat(stat string) (state string, ppid int, ok bool) {
	end := strings.LastIndexByte(stat, ')')
	if end < 0 {
		return "", 0, false
	}
	fields := strings.Fields(stat[end+1:])
	if len(fields) < 2 {
		return "", 0, false
	}
	ppid, err := strconv.Atoi(fields[1])
	return fields[0], ppid, err == nil
}

func copyLogs(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	var errs []error
	for _, entry := range entries {
		if entry.Type().IsRegular() {
			errs = append(errs, copyFile(filepath.Join(from, entry.Name()), filepath.Join(to, entry.Name())))
		}
	}
	return errors.Join(errs...)
}

func copyFile(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close())
}
