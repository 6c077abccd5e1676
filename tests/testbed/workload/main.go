// Command workload is what runs in the containers of a testbed's real nodes.
//
//	workload MODE [ARGS] [-- MODE [ARGS]]...
//
// A command line is one or more steps, separated by "--", run in order; the
// first step that fails ends the process with that step's exit code. So a
// training member is `read /mnt/data -- rank -- write /mnt/model`.
//
// It is one static binary without dependencies, so that an image is one file.
// As `workload pause` it is also the sandbox process of every pod.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

// Exit codes of the process; those above 128 follow the shell's convention.
const (
	exitFailed     = 1
	exitUsage      = 2
	exitTerminated = 128 + int(syscall.SIGTERM)
)

// environment is all that a step may touch of the outside.
type environment struct {
	lookup         func(string) (string, bool)
	stdout         io.Writer
	terminationLog string
}

// step is one mode of the workload: what it takes and what it does.
type step struct {
	usage string
	run   func(env environment, args []string) error
}

var steps = map[string]step{
	"await":       {"await PATH: wait until this file exists", runAwait},
	"connect":     {"connect HOST:PORT: open a TCP connection, trying for 30 s", runConnect},
	"env":         {"env NAME: print an environment variable", runEnv},
	"exit":        {"exit CODE: end with this exit code at once", runExit},
	"ignore-term": {"ignore-term SECONDS: sleep, deaf to SIGTERM", runIgnoreTerm},
	"oom":         {"oom MB: allocate and touch this much memory, then hold it", runOOM},
	"pause":       {"pause: reap orphans until SIGTERM or SIGINT", runPause},
	"rank":        {"rank: meet the other ranks of NNODES at MASTER_ADDR:MASTER_PORT", runRank},
	"read":        {"read PATH: print a file", runRead},
	"sleep":       {"sleep SECONDS: sleep, end with 143 on SIGTERM", runSleep},
	"term":        {"term MESSAGE: write the termination message", runTerm},
	"write":       {"write PATH [TEXT]: write a file, with its parent directories", runWrite},
}

// exitError ends the process with its code; message is empty where the code
// says everything.
type exitError struct {
	code    int
	message string
}

func (e *exitError) Error() string { return e.message }

func usageError(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Sprintf(format, args...)}
}

func main() {
	env := environment{lookup: os.LookupEnv, stdout: os.Stdout, terminationLog: "/dev/termination-log"}
	handleTermination(os.Args[1:])
	os.Exit(execute(env, os.Args[1:], os.Stderr))
}

// handleTermination makes SIGTERM end the process with 143. A container's first
// process has no default action for signals, so without it a pod would sit out
// its whole grace period. The two modes that mean to treat the signal otherwise
// are exempt.
func handleTermination(args []string) {
	if slices.Contains(args, "ignore-term") {
		signal.Ignore(syscall.SIGTERM)
		return
	}
	if slices.Contains(args, "pause") {
		return
	}
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	go func() {
		<-terminated
		fmt.Fprintln(os.Stderr, "workload: terminated")
		os.Exit(exitTerminated)
	}()
}

// execute runs the steps of a command line and returns the exit code.
func execute(env environment, args []string, stderr io.Writer) int {
	for _, words := range split(args) {
		if err := runStep(env, words); err != nil {
			code := exitFailed
			if exit, ok := errors.AsType[*exitError](err); ok {
				code = exit.code
			}
			if err.Error() != "" {
				fmt.Fprintf(stderr, "workload: %s: %v\n", strings.Join(words, " "), err)
			}
			return code
		}
	}
	return 0
}

// split cuts a command line at every "--".
func split(args []string) [][]string {
	var all [][]string
	for {
		at := slices.Index(args, "--")
		if at < 0 {
			return append(all, args)
		}
		all = append(all, args[:at])
		args = args[at+1:]
	}
}

func runStep(env environment, words []string) error {
	if len(words) == 0 {
		return usageError("no mode given\n%s", usage())
	}
	step, ok := steps[words[0]]
	if !ok {
		return usageError("unknown mode\n%s", usage())
	}
	return step.run(env, words[1:])
}

func usage() string {
	lines := []string{"modes:"}
	for _, step := range steps {
		lines = append(lines, "  "+step.usage)
	}
	slices.Sort(lines[1:])
	return strings.Join(lines, "\n")
}
