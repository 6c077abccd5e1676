// Command supervise owns the processes, the address and the directory of one
// testbed, and takes all of them away when its owner is gone.
//
//	owner (a test, or the testbed command)
//	  | stdin: requests, one JSON object a line      stdout: replies and events ^
//	  v                                                                         |
//	supervise --- etcd, kube-apiserver, kubelets, the binaries under test, ...
//
// The owner may be killed at any moment: the kernel then closes the pipe, and
// the end of stdin is the order to tear down. What must hold:
//
//   - Every process of the testbed is a descendant of the supervisor. It is
//     their subreaper, so that a daemon which detaches itself (a containerd
//     shim) becomes its child instead of init's.
//   - Children die with the supervisor (PDEATHSIG). It is therefore the main
//     thread, which lives as long as the process, that starts them.
//   - The directory exists only while the supervisor holds its lock file. A
//     directory whose lock is free was left by a supervisor that was killed;
//     the next one to start removes it.
//   - One goroutine owns all state: requests, child exits and signals arrive on
//     channels of the main loop.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
)

// prSetChildSubreaper is PR_SET_CHILD_SUBREAPER of prctl(2).
const prSetChildSubreaper = 36

func init() {
	// PDEATHSIG follows the thread that forked, not the process.
	runtime.LockOSThread()
}

func main() {
	parent := flag.String("parent", os.TempDir(), "directory in which the testbed's directory is made")
	flag.Parse()
	if err := run(*parent, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "supervise:", err)
		os.Exit(1)
	}
}

func run(parent string, in io.Reader, out io.Writer) error {
	// A closed reader of our stdout must not kill us before the teardown. The
	// signals are caught and not ignored, because children inherit ignoring.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE, syscall.SIGHUP)
	// Fails only if we lead a session already, which is as good.
	_, _ = syscall.Setsid()
	if _, _, errno := syscall.Syscall(syscall.SYS_PRCTL, prSetChildSubreaper, 1, 0); errno != 0 {
		return fmt.Errorf("become subreaper: %w", errno)
	}
	claim, err := claimHome(parent)
	if err != nil {
		return err
	}
	s := newSupervisor(claim, json.NewEncoder(out))
	s.emit(event{Event: "ready", Dir: claim.dir, Slot: claim.slot, Pid: os.Getpid()})
	s.loop(requests(in))
	return s.teardown()
}

// requests decodes one request a line; the channel is closed at the end of
// input.
func requests(in io.Reader) <-chan request {
	decoded := make(chan request)
	go func() {
		defer close(decoded)
		lines := bufio.NewScanner(in)
		lines.Buffer(nil, 16<<20)
		for lines.Scan() {
			var r request
			if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
				r = request{Op: "invalid", malformed: err}
			}
			decoded <- r
		}
	}()
	return decoded
}
