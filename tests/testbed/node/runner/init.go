package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

const (
	socketTimeout  = 20 * time.Second
	restartDelay   = time.Second
	socketInterval = 20 * time.Millisecond
)

// runInit is the inner stage, PID 1 of the node: it mounts, starts everything,
// and then reaps, restarts and obeys until it is killed.
func runInit(path string) error {
	spec, err := readSpec(path)
	if err != nil {
		return err
	}
	control, err := listen(spec.Control)
	if err != nil {
		return err
	}
	if err := mountAll(spec); err != nil {
		return err
	}
	node := &node{programs: map[string]*program{}, pids: map[int]*program{}, logs: filepath.Dir(spec.Processes[0].Log)}
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	go node.reap(children)
	for _, process := range spec.Processes {
		if err := node.boot(process); err != nil {
			return fmt.Errorf("%s: %w (see %s)", process.Name, err, process.Log)
		}
	}
	return node.obey(control)
}

func listen(path string) (net.Listener, error) {
	if err := os.RemoveAll(path); err != nil {
		return nil, err
	}
	return net.Listen("unix", path)
}

// node is the set of programs and who of them is alive.
//
// All children are reaped in one place, because PID 1 inherits orphans (a shim
// leaves its parent on purpose) and cannot tell which child a wait will return.
type node struct {
	mutex    sync.Mutex
	programs map[string]*program
	// logs is the directory for what `run` commands print.
	logs string
	// pids are the live processes of programs.
	pids map[int]*program
}

// program is a process as asked for, and its present life.
type program struct {
	process Process
	// wanted is false after a kill or stop command.
	wanted bool
	pid    int
	exited chan syscall.WaitStatus
}

// boot starts one program and waits until the next may start.
func (n *node) boot(process Process) error {
	one := &program{process: process, wanted: true}
	n.mutex.Lock()
	if !process.Once {
		n.programs[process.Name] = one
	}
	err := n.start(one)
	exited := one.exited
	n.mutex.Unlock()
	if err != nil {
		return err
	}
	if process.Once {
		if status := <-exited; status != 0 {
			return fmt.Errorf("ended with %s", describe(status))
		}
		return nil
	}
	if process.Socket != "" {
		return waitForSocket(process.Socket, socketTimeout)
	}
	return nil
}

// start makes a process. The mutex is held, so that a process which ends at once
// is not reaped before it is known.
func (n *node) start(one *program) error {
	if err := os.MkdirAll(filepath.Dir(one.process.Log), 0o755); err != nil {
		return err
	}
	log, err := os.OpenFile(one.process.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	program, err := exec.LookPath(one.process.Argv[0])
	if err != nil {
		return err
	}
	process, err := os.StartProcess(program, one.process.Argv, &os.ProcAttr{
		Env:   os.Environ(),
		Files: []*os.File{nil, log, log},
	})
	if err != nil {
		return err
	}
	one.pid, one.exited = process.Pid, make(chan syscall.WaitStatus, 1)
	if err := process.Release(); err != nil {
		return err
	}
	n.pids[one.pid] = one
	return nil
}

// reap collects every child of PID 1, its own and inherited ones.
func (n *node) reap(children <-chan os.Signal) {
	for range children {
		for {
			var status syscall.WaitStatus
			pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
			if err == syscall.EINTR {
				continue
			}
			if err != nil || pid <= 0 {
				break
			}
			n.mutex.Lock()
			if one, ok := n.pids[pid]; ok {
				delete(n.pids, pid)
				n.finish(one, status)
			}
			n.mutex.Unlock()
		}
	}
}

// finish notes the end of a program and has it started again where that is
// wanted; the mutex is held.
func (n *node) finish(one *program, status syscall.WaitStatus) {
	one.pid = 0
	one.exited <- status
	close(one.exited)
	if one.process.Once || !one.wanted {
		return
	}
	fmt.Fprintf(os.Stderr, "runner: %s ended with %s, starting it again\n", one.process.Name, describe(status))
	time.AfterFunc(restartDelay, func() {
		n.mutex.Lock()
		defer n.mutex.Unlock()
		if one.wanted && one.pid == 0 {
			if err := n.start(one); err != nil {
				fmt.Fprintf(os.Stderr, "runner: %s: %v\n", one.process.Name, err)
			}
		}
	})
}

func describe(status syscall.WaitStatus) string {
	if status.Signaled() {
		return "signal " + status.Signal().String()
	}
	return fmt.Sprintf("exit code %d", status.ExitStatus())
}

func waitForSocket(path string, patience time.Duration) error {
	deadline := time.Now().Add(patience)
	for {
		connection, err := net.Dial("unix", path)
		if err == nil {
			return connection.Close()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("does not listen: %w", err)
		}
		time.Sleep(socketInterval)
	}
}
