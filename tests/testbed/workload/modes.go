package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	pageBytes      = 4096
	connectTimeout = 30 * time.Second
	awaitInterval  = 100 * time.Millisecond
)

// one returns the only argument of a mode.
func one(args []string, what string) (string, error) {
	if len(args) != 1 {
		return "", usageError("want %s, got %d arguments", what, len(args))
	}
	return args[0], nil
}

// number returns the only argument of a mode as a number of [0, limit].
func number(args []string, what string, limit int) (int, error) {
	text, err := one(args, what)
	if err != nil {
		return 0, err
	}
	value, err := strconv.Atoi(text)
	if err != nil || value < 0 || value > limit {
		return 0, usageError("%s %q is not a number of 0 to %d", what, text, limit)
	}
	return value, nil
}

func runExit(_ environment, args []string) error {
	code, err := number(args, "CODE", 255)
	if err != nil || code == 0 {
		return err
	}
	return &exitError{code: code}
}

func runEnv(env environment, args []string) error {
	name, err := one(args, "NAME")
	if err != nil {
		return err
	}
	value, ok := env.lookup(name)
	if !ok {
		return fmt.Errorf("%s is not set", name)
	}
	fmt.Fprintf(env.stdout, "%s=%s\n", name, value)
	return nil
}

func runConnect(env environment, args []string) error {
	address, err := one(args, "HOST:PORT")
	if err != nil {
		return err
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		return usageError("%v", err)
	}
	for deadline := time.Now().Add(connectTimeout); ; time.Sleep(retryInterval) {
		connection, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			fmt.Fprintf(env.stdout, "connected to %s\n", address)
			return connection.Close()
		}
		if time.Now().After(deadline) {
			return err
		}
	}
}

func seconds(args []string) (time.Duration, error) {
	text, err := one(args, "SECONDS")
	if err != nil {
		return 0, err
	}
	value, err := strconv.ParseFloat(text, 64)
	if err != nil || !(value >= 0 && value <= 1e9) {
		return 0, usageError("SECONDS %q is not a number of 0 to 1e9", text)
	}
	return time.Duration(value * float64(time.Second)), nil
}

func runSleep(_ environment, args []string) error {
	length, err := seconds(args)
	if err != nil {
		return err
	}
	time.Sleep(length)
	return nil
}

// runIgnoreTerm differs from sleep by what main does with SIGTERM.
func runIgnoreTerm(env environment, args []string) error {
	length, err := seconds(args)
	if err != nil {
		return err
	}
	fmt.Fprintln(env.stdout, "ignoring SIGTERM")
	time.Sleep(length)
	return nil
}

func runTerm(env environment, args []string) error {
	return os.WriteFile(env.terminationLog, []byte(strings.Join(args, " ")), 0o644)
}

// runOOM touches every page, since untouched memory costs nothing and would
// not be charged to the container.
func runOOM(env environment, args []string) error {
	megabytes, err := number(args, "MB", 1<<20)
	if err != nil {
		return err
	}
	held := make([][]byte, 0, megabytes)
	for range megabytes {
		block := make([]byte, 1<<20)
		for at := 0; at < len(block); at += pageBytes {
			block[at] = 1
		}
		held = append(held, block)
	}
	fmt.Fprintf(env.stdout, "holding %d MB\n", len(held))
	select {}
}

// runWrite replaces the file by rename, so that a reader on another node sees
// all of it or none.
func runWrite(env environment, args []string) error {
	if len(args) == 0 {
		return usageError("want PATH [TEXT]")
	}
	path, text := args[0], strings.Join(args[1:], " ")
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	draft, err := os.CreateTemp(filepath.Dir(path), ".write-*")
	if err != nil {
		return err
	}
	defer os.Remove(draft.Name())
	if _, err := draft.WriteString(text + "\n"); err != nil {
		return err
	}
	if err := draft.Chmod(0o644); err != nil {
		return err
	}
	if err := draft.Close(); err != nil {
		return err
	}
	if err := os.Rename(draft.Name(), path); err != nil {
		return err
	}
	fmt.Fprintf(env.stdout, "wrote %s\n", path)
	return nil
}

func runRead(env environment, args []string) error {
	path, err := one(args, "PATH")
	if err != nil {
		return err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	fmt.Fprintf(env.stdout, "read %s: %s\n", path, strings.TrimSuffix(string(text), "\n"))
	return nil
}

// runAwait lets a test say when a member goes on, where a sleep would only guess.
func runAwait(env environment, args []string) error {
	path, err := one(args, "PATH")
	if err != nil {
		return err
	}
	for {
		_, err := os.Stat(path)
		if err == nil {
			fmt.Fprintf(env.stdout, "found %s\n", path)
			return nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return err
		}
		time.Sleep(awaitInterval)
	}
}

// runPause is the first process of a pod's sandbox. It reaps what others leave
// behind (pods that share a process namespace) and goes when told to.
func runPause(environment, []string) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGCHLD, syscall.SIGINT, syscall.SIGTERM)
	for received := range signals {
		if received != syscall.SIGCHLD {
			return nil
		}
		for {
			if reaped, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); err != nil || reaped <= 0 {
				break
			}
		}
	}
	return nil
}
